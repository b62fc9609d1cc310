"""Invariant 24: rebuild = replay = shuffled = incremental, bookkeeping columns aside; and only what changed is rebuilt.

The landed rows of a company arrive here in three builds, dealt out at random: events before their payment, versions
months late, rates after the payments they convert, then corrections and deletions. Whatever the incremental builds
made of that must be, row by row, what a rebuild makes of the same rows, and of the same rows in another order. One of
them is a build in parts, as those of large companies are.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable

import duckdb
import pytest

from warehouse import build_parts
from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.rewrite import REMEMBERED_A_ROW
from warehouse.core.settings import CATALOG, PROJECT_ROOT, Settings
from warehouse.dbt import dbt_environment, run_dbt

RAW = ("raw_oltp", "raw_mongodb", "raw_stream")
BUILT = ("staging", "intermediate", "public", "ops")
BOOKKEEPING = {"loaded_at", "row_version", "first_loaded_at", "last_loaded_at"}
WAVES = 3

Tables = list[tuple[str, str]]
Checksums = dict[str, tuple[int, int]]


def _tables(connection: duckdb.DuckDBPyConnection, schemas: tuple[str, ...]) -> Tables:
    rows = connection.execute(
        "select table_schema, table_name from information_schema.tables "
        "where table_catalog = ? and list_contains(?, table_schema) and not starts_with(table_name, '_dlt') "
        "order by all",
        [CATALOG, list(schemas)],
    ).fetchall()
    return [(str(schema), str(name)) for schema, name in rows]


def checksums(settings: Settings) -> Checksums:
    """Rows of every model, and a sum over hashes of their business columns: equal for equal rows in any order."""
    found: Checksums = {}
    with open_warehouse(settings, read_only=True) as connection:
        for schema, name in _tables(connection, BUILT):
            described = connection.execute(f"describe {CATALOG}.{schema}.{name}").fetchall()
            columns = ", ".join(f'"{row[0]}"' for row in sorted(described) if row[0] not in BOOKKEEPING)
            row = connection.execute(
                f"select count(*), coalesce(sum(hash(row({columns}))::hugeint), 0) from {CATALOG}.{schema}.{name}"
            ).fetchone()
            assert row is not None
            found[f"{schema}.{name}"] = (int(row[0]), int(row[1]))
    return found


def _build(settings: Settings, *arguments: str) -> Checksums:
    run_dbt(settings, ["run", *arguments])
    return checksums(settings)


def _hold_back(connection: duckdb.DuckDBPyConnection) -> None:
    """Set all landed rows aside and leave the raw tables empty."""
    connection.execute(f"create schema {CATALOG}.held")
    for schema, name in _tables(connection, RAW):
        connection.execute(f"create table {CATALOG}.held.{schema}__{name} as from {CATALOG}.{schema}.{name}")
        connection.execute(f"delete from {CATALOG}.{schema}.{name}")


def _arrive(connection: duckdb.DuckDBPyConnection, wave: int) -> None:
    """One third of the rows of every table lands, an hour after the one before; the day of the last load moves on.

    What compliance knows ends with that day: observations and rules that lie after it are not known yet.
    """
    connection.execute(
        f"update {CATALOG}.raw_ops.load_manifest set finished_at = (select quantile_disc(created_at, "
        f"{(wave + 1) / WAVES}) from {CATALOG}.held.raw_oltp__transaction)"
    )
    for schema, name in _tables(connection, RAW):
        connection.execute(
            f"insert into {CATALOG}.{schema}.{name} by name "
            f"select * replace (timestamptz '2030-01-01 00:00:00+00' + interval {wave} hour as _landed_at) "
            f"from {CATALOG}.held.{schema}__{name} as held where hash(held) % {WAVES} = {wave}"
        )


def _correct(connection: duckdb.DuckDBPyConnection) -> None:
    """What a source does to rows that have landed: changes, deletions, and one rate that was published wrong."""
    later = "timestamptz '2030-01-02 00:00:00+00'"
    for statement in (
        f"update {CATALOG}.raw_oltp.transaction set status_code = 'canceled', _landed_at = {later} "
        "where hash(transaction_id) % 50 = 0",
        f"update {CATALOG}.raw_oltp.transaction set _deleted_at = {later}, _landed_at = {later} "
        "where hash(transaction_id) % 50 = 1",
        f"update {CATALOG}.raw_mongodb.transactions set _deleted_at = {later}, _landed_at = {later} "
        "where hash(_id) % 50 = 2",
        f"delete from {CATALOG}.raw_mongodb.user_interactions where hash(_id) % 50 = 3",
    ):
        row = connection.execute(statement).fetchone()
        assert row is not None
        assert row[0] > 0, "the correction found no row"


def _shuffle(connection: duckdb.DuckDBPyConnection) -> None:
    """The same rows in another physical order."""
    for schema, name in _tables(connection, RAW):
        connection.execute(f"create temp table shuffled as from {CATALOG}.{schema}.{name} order by random()")
        connection.execute(f"delete from {CATALOG}.{schema}.{name}")
        connection.execute(f"insert into {CATALOG}.{schema}.{name} from shuffled")
        connection.execute("drop table shuffled")


@pytest.fixture(scope="module")
def copied(company: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A warehouse of its own with what the company has landed."""
    settings = company.model_copy(update={"warehouse_home": tmp_path_factory.mktemp("incremental")})
    original, copy = Home.of(company), Home.of(settings)
    shutil.copytree(original.keys, copy.keys)
    shutil.copytree(original.extensions, copy.extensions)
    shutil.copy(original.warehouse, copy.warehouse)
    return settings


@pytest.fixture(scope="module")
def incremental(copied: Settings) -> Checksums:
    """What the builds after each wave and, in parts, after the corrections have made."""

    def between(change: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        with open_warehouse(copied) as connection:
            change(connection)

    between(_hold_back)
    for wave in range(WAVES):
        between(lambda connection, wave=wave: _arrive(connection, wave))
        made = _build(copied, *(["--full-refresh"] if wave == 0 else []))
    between(_correct)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_parts, "most_remembered", _room_for_a_third)
        assert len(build_parts.selections(copied)) > 1
        build_parts.build_in_parts(copied, "run")
    corrected = checksums(copied)
    assert corrected["public.fct_sales"] != made["public.fct_sales"], "the corrections changed nothing"
    return corrected


def _room_for_a_third(settings: Settings) -> int:
    with open_warehouse(settings, read_only=True) as connection:
        rows = connection.execute(
            "select sum(estimated_size) from duckdb_tables() where list_contains(?, schema_name)", [list(BUILT)]
        ).fetchone()
    assert rows is not None
    return int(rows[0]) * REMEMBERED_A_ROW // 3


def _rows(settings: Settings, table: str, key: str) -> dict[str, str]:
    with open_warehouse(settings, read_only=True) as connection:
        return dict(connection.execute(f"select {key}, row_version from {CATALOG}.{table}").fetchall())


def test_incremental_equals_rebuilt(copied: Settings, incremental: Checksums) -> None:
    rebuilt = _build(copied, "--full-refresh")
    assert {name: sums for name, sums in incremental.items() if rebuilt[name] != sums} == {}
    assert incremental.keys() == rebuilt.keys()


def test_shuffled_equals_rebuilt_and_a_lost_row_is_seen(copied: Settings, incremental: Checksums) -> None:
    with open_warehouse(copied) as connection:
        _shuffle(connection)
    assert _build(copied, "--full-refresh") == incremental
    with open_warehouse(copied) as connection:
        connection.execute(f"delete from {CATALOG}.public.fct_sales where hash(transaction_key) % 500 = 7")
    assert checksums(copied) != incremental
    # what went missing is found missing by the next run, and made again
    assert _build(copied) == incremental


def test_only_what_an_arrival_concerns_is_built_again(copied: Settings, incremental: Checksums) -> None:
    assert incremental
    before = _rows(copied, "public.fct_sales", "transaction_key")
    with open_warehouse(copied) as connection:
        connection.execute(
            f"update {CATALOG}.raw_oltp.transaction set quantity = quantity + 1, _landed_at = now() "
            f"where transaction_id = (select min(transaction_id) from {CATALOG}.raw_oltp.transaction "
            "where _deleted_at is null)"
        )
    _build(copied)
    after = _rows(copied, "public.fct_sales", "transaction_key")
    assert len({key for key, version in after.items() if before[key] != version}) == 1


def test_parts_together_are_the_whole_build(
    copied: Settings, incremental: Checksums, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every model, seed, snapshot and test is in exactly one of them."""
    assert incremental
    whole = _listed(copied, [])
    monkeypatch.setattr(build_parts, "most_remembered", _room_for_a_third)
    parts = [_listed(copied, part) for part in build_parts.selections(copied)]
    assert len(parts) > 1
    assert sorted(name for part in parts for name in part) == sorted(whole)


def _listed(settings: Settings, selection: list[str]) -> list[str]:
    """What `dbt build` would run, by dbt's own selection."""
    # fmt: off
    command = [
        sys.executable, "-m", "dbt.cli.main", "--quiet", "ls", "--output", "json", "--output-keys", "unique_id",
        *(f"--resource-type={kind}" for kind in ("model", "seed", "snapshot", "test", "unit_test")), *selection,
        "--target", settings.dbt_target, "--target-path", str(Home.of(settings).dbt_target),
        "--log-path", str(Home.of(settings).logs),
        "--project-dir", str(PROJECT_ROOT), "--profiles-dir", str(PROJECT_ROOT),
    ]
    # fmt: on
    done = subprocess.run(command, env=dbt_environment(settings), capture_output=True, text=True, check=True)
    return [json.loads(line)["unique_id"] for line in done.stdout.splitlines()]
