"""Who is under a legal hold is in no role's export while it lasts; payments count as before (GDPR 18)."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from tests.conftest import MakeSettings
from tests.security.few_marts import publish_few_marts
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.database import open_warehouse
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.exports import export_role, open_export
from warehouse.file_keys import rotate_file_key
from warehouse.privacy.holds import add_hold, release_hold, restricted
from warehouse.privacy.ocsf import Actor
from warehouse.privacy.roles import load_policy
from warehouse.privacy.totp import STEP_SECONDS, code_at
from warehouse.privacy.vault import attach_vault

HELD = "CUSTOMER001"
ROLES = [name for name, role in load_policy().roles.items() if "public" in role.schemas]
MARTS = (
    "insert into public.dim_customer_history values ('v', md5('o'), 'CUSTOMER002', true, '1900-01-01', '9999-12-31'),"
    " ('-1', '-1', 'Unknown', true, '1900-01-01', '9999-12-31')",
    "insert into public.dim_customer select customer_key, customer_version_key, customer_id "
    "from public.dim_customer_history where customer_id <> 'CUSTOMER001'",
    "alter table public.fct_sales add column device_key varchar",
    "alter table public.fct_sales add column payment_method_key varchar",
    "update public.fct_sales set device_key = md5(transaction_id), payment_method_key = '-2'",
    "insert into public.fct_sales by name select * replace ('other' as transaction_key, md5('o') as customer_key) "
    "from public.fct_sales where transaction_id = 'TXN001'",
    "create or replace table public.dim_device as select md5(id) as device_key, id as device_id, '10.0.0.0/16' as "
    "network from (values ('TXN001'), ('TX1005')) as devices(id)",
)
"""Another customer, who has paid with the device `TXN001`, too; the device `TX1005` is the held one's alone."""
TOTALS = "select currency_code, count(*), sum(amount) from public.fct_sales group by all order by all"


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path / "home")
    with open_warehouse(settings) as connection:
        attach_vault(connection, settings)
    publish_few_marts(settings, *MARTS)
    return settings


def everything(connection: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    tables = connection.execute(
        "select schema_name || '.' || table_name from duckdb_tables() where database_name = current_database()"
    ).fetchall()
    return {table: connection.execute(f"select * from {table} order by all").fetchall() for (table,) in tables}


def exported(settings: Settings, role: str) -> dict[str, list[Any]]:
    with open_export(settings, role) as connection:
        return everything(connection)


def values(rows: dict[str, list[Any]]) -> set[str]:
    return {str(value) for table in rows.values() for row in table for value in row}


def facts(rows: dict[str, list[Any]]) -> dict[str, int]:
    """Rows of each table that is no dimension."""
    return {table: len(found) for table, found in rows.items() if not table.startswith("public.dim_")}


def theirs(settings: Settings) -> set[str]:
    with open_warehouse(settings, read_only=True) as connection:
        keys = connection.execute(
            "select unnest([customer_id, customer_key, customer_version_key]) from public.dim_customer_history "
            "where customer_id = 'CUSTOMER001'"
        ).fetchall()
        alone = connection.execute("select md5('TX1005')").fetchall()
    return {name for (name,) in [*keys, *alone]}


def test_a_held_customer_is_in_no_export_and_back_after_release(settings: Settings) -> None:
    before = {role: exported(settings, role) for role in ROLES}
    assert values(before["analyst"]) & theirs(settings)
    add_hold(settings, "CUST001", "aml", "AML-1")
    for role in ROLES:
        during = exported(settings, role)
        assert not values(during) & theirs(settings), role
        assert facts(during) == facts(before[role]), role
    release_hold(settings, HELD, "aml", "AML-1")
    assert {role: exported(settings, role) for role in ROLES} == before


def test_payments_count_as_before_and_find_a_customer(settings: Settings) -> None:
    joined = TOTALS.replace("fct_sales", "fct_sales inner join public.dim_customer using (customer_key)")
    with open_export(settings, "fraud_analyst") as connection:
        totals = connection.execute(TOTALS).fetchall()
        assert values(everything(connection)) >= theirs(settings), "there is something to leave out"
    add_hold(settings, HELD, "aml", "AML-1")
    with open_export(settings, "fraud_analyst") as connection:
        assert connection.execute(TOTALS).fetchall() == totals
        assert connection.execute(joined).fetchall() == totals
        assert connection.execute("select customer_id from public.dim_customer order by all").fetchall() == [
            ("CUSTOMER002",),
            ("Unknown",),
        ]
        counted = connection.execute(
            "select customer_key, count(*) from public.fct_sales group by all order by all"
        ).fetchall()
        assert counted[0] == ("-1", 2)
        devices = connection.execute("select device_id from public.dim_device").fetchall()
        assert devices == [("TXN001",)], "what somebody else has paid with, too, stays"


def test_another_hold_changes_nothing_for_others(settings: Settings) -> None:
    before = exported(settings, "fraud_analyst")
    add_hold(settings, "CUSTOMER777", "tax", "TAX-1")
    assert exported(settings, "fraud_analyst") == before


def test_who_is_restricted_is_noted_without_a_name_and_comes_back_from_the_vault(settings: Settings) -> None:
    add_hold(settings, HELD, "aml", "AML-1")
    add_hold(settings, HELD, "tax", "TAX-1")
    path = Home.of(settings).restricted
    assert path.stat().st_mode & 0o777 == 0o600
    assert "CUST" not in path.read_text()
    noted = restricted(settings)
    for damage in (path.unlink, lambda: path.write_text("{")):
        damage()
        assert restricted(settings) == noted
    release_hold(settings, HELD, "aml", "AML-1")
    assert restricted(settings) == noted, "one hold is left"
    release_hold(settings, HELD, "tax", "TAX-1")
    assert restricted(settings) == frozenset()


def test_a_hold_outlasts_a_rotation_of_the_key_of_pseudonyms(settings: Settings) -> None:
    add_hold(settings, HELD, "aml", "AML-1")
    noted = restricted(settings)
    with writer_lock(settings, "rotate-key", rotates=True):
        rotate_file_key(settings, "audit")
    assert restricted(settings).isdisjoint(noted)
    for role in ROLES:
        assert not values(exported(settings, role)) & theirs(settings), role


def test_the_command_takes_old_exports_away(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the file and its key must not go on reading what was so before."""
    monkeypatch.setattr(context, "get_settings", lambda: settings)
    run = CliRunner()
    assert run.invoke(app, ["privacy", "enrol", "--role", "compliance_officer"]).exit_code == 0
    for role in ("analyst", "fraud_analyst"):
        export_role(settings, role)
    home = Home.of(settings)
    for place, action in enumerate(("add", "release")):
        old = home.role_export("analyst").stat().st_mtime_ns
        export_role(settings, "fraud_analyst")
        path = home.keys / f"totp_{Actor.current().name}.json"
        secret = base64.b32decode(json.loads(path.read_text())["secret"])
        code = code_at(secret, int(time.time() // STEP_SECONDS) + place)
        words = ["privacy", "hold", action, HELD, "--reason", "aml", "--ticket", "AML-1", "--code", code]
        result = run.invoke(app, words)
        assert result.exit_code == 0, result.output
        assert not home.role_export("fraud_analyst").exists(), "made when it is asked for"
        assert home.role_export("analyst").stat().st_mtime_ns != old, "ROLE_EXPORTS: made at once"
