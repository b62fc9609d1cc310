"""A new token key, then the real dbt: every model builds, every test passes, and the marts say what they said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ingestion.run import ingest
from tests.conftest import RecordFigure
from tests.integration.landed_home import NOWHERE, REFERENCE, drop, query
from warehouse.core.database import open_warehouse
from warehouse.core.locks import writer_lock
from warehouse.core.settings import Settings
from warehouse.dbt import run_dbt
from warehouse.rotation import rotate_token_key

BUILD = ["build", "--exclude-resource-type", "unit_test"]
TOKEN = "^v[0-9]+:[0-9a-f]{64}$"


def marts(settings: Settings) -> dict[str, Any]:
    """Column of a mart → what it holds, in any order; of tokens it counts how many different ones there are."""
    found: dict[str, Any] = {}
    with open_warehouse(settings, read_only=True) as connection:
        columns: dict[str, list[tuple[str, bool]]] = {}
        for table, column, is_text in connection.execute(
            "select table_name, column_name, data_type = 'VARCHAR' from duckdb_columns() "
            "where schema_name = 'public' and database_name = current_database() order by all"
        ).fetchall():
            columns.setdefault(table, []).append((column, is_text))
        for table, known in columns.items():
            values = [
                f"case when regexp_matches(\"{name}\", '{TOKEN}') then 'a token' else \"{name}\" end"
                if is_text
                else f'"{name}"'
                for name, is_text in known
            ]
            facts = ", ".join(
                f'count(distinct "{name}"), bit_xor(hash({value})), sum(hash({value}))'
                for (name, _), value in zip(known, values, strict=True)
            )
            row = connection.execute(f"select count(*), {facts} from public.{table}").fetchone() or ()
            found[table] = row[0]
            for at, (name, _) in enumerate(known):
                found[f"{table}.{name}"] = row[1 + 3 * at : 4 + 3 * at]
    return found


def old_tokens(settings: Settings, version: int) -> dict[str, int]:
    """Table of any schema → its rows that hold a token of a version."""
    found = {}
    with open_warehouse(settings, read_only=True) as connection:
        for schema, table in connection.execute(
            "select schema_name, table_name from duckdb_tables() where database_name = current_database()"
        ).fetchall():
            row = connection.execute(
                f'select count(*) from "{schema}"."{table}" as t where contains(t::varchar, \'v{version}:\')'
            ).fetchone()
            if row and row[0]:
                found[f"{schema}.{table}"] = int(row[0])
    return found


SNAPSHOT = "select count(*), count(*) filter (where dbt_valid_to > now()) from snapshots.snap_mongodb__products"


@pytest.mark.slow
def test_the_models_build_and_say_the_same_after_a_rotation(
    company: Settings, tmp_path: Path, record_figure: RecordFigure
) -> None:
    home = tmp_path / "home"
    shutil.copytree(
        company.warehouse_home, home, ignore=shutil.ignore_patterns("servers", "spill"), ignore_dangling_symlinks=True
    )
    settings = company.model_copy(update={"warehouse_home": home, "drops_uri": None, "drops_settle_seconds": 0})
    # a key that the pinned schema does not know becomes a token, which reaches a snapshot
    odd = REFERENCE / "mongodb" / "products.jsonl"
    drop(settings, "mongodb/products/odd.jsonl", odd.read_bytes().replace(b'"brand"', b'"Brand Name"'))
    ingest(settings, NOWHERE, run_id="odd", sources=("files",))
    run_dbt(settings, [*BUILD, "--full-refresh"])
    before, snapshot = marts(settings), query(settings, SNAPSHOT)
    held = old_tokens(settings, 1)
    assert {"snapshots.snap_mongodb__products", "raw_oltp.customer"} < held.keys()
    with writer_lock(settings, "rotate", rotates=True):
        receipt = rotate_token_key(settings)  # builds every model and runs every test
    assert receipt.rebuilt and receipt.broken == 0 and receipt.snapshot_rows > 0
    assert old_tokens(settings, 1) == {}
    assert old_tokens(settings, 2) == held
    assert query(settings, SNAPSHOT) == snapshot, "nothing but its token has changed"
    assert differences(before, marts(settings)) == set()
    again = run_dbt(settings, BUILD)
    assert (again.failed, again.warned) == ([], [])
    assert again.counts["success"] > 100 and again.counts["pass"] > 500
    assert differences(before, marts(settings)) == set()
    assert before["fct_sales"] > 2_000
    assert before["fct_sales.customer_key"][0] > 100, "sales of many customers"
    record_figure(
        "key rotation, then dbt build",
        f"{receipt.broken} of {receipt.joins} joins broken, 0 of {len(before)} facts about marts changed",
        "0 broken, 0 changed",
    )
    with open_warehouse(settings) as connection:
        connection.execute(
            "update public.fct_sales set amount = amount + 1 "
            "where transaction_key = (select min(transaction_key) from public.fct_sales)"
        )
    assert differences(before, marts(settings)) == {"fct_sales.amount"}, "a difference would be seen"


def differences(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
