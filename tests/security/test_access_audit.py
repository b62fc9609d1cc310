"""The audit log as a table: every event once, each resource a row, Snowflake's history in the same columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingestion.raw import create_raw_tables
from tests.conftest import MakeSettings
from tests.integration.landed_home import query
from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.access_audit import land_own, land_snowflake
from warehouse.privacy.audit import record, tail
from warehouse.privacy.ocsf import Activity, Actor, Resource

ACTOR = Actor("ana", "1000", "host-1", "192.0.2.7", 42, role="auditor")
HISTORY: list[dict[str, Any]] = [
    {
        "VIEW": "LOGIN_HISTORY", "EVENT_ID": 7, "EVENT_TIMESTAMP": "2024-01-03T09:00:00+00:00", "USER_NAME": "ANA",
        "CLIENT_IP": "192.0.2.7", "IS_SUCCESS": "NO", "FIRST_AUTHENTICATION_FACTOR": "PASSWORD",
    },
    {
        "VIEW": "QUERY_HISTORY", "QUERY_ID": "q1", "START_TIME": "2024-01-03T09:01:00+00:00", "USER_NAME": "ANA",
        "ROLE_NAME": "ANALYST", "QUERY_TEXT": "select 'secret' from t", "QUERY_TYPE": "SELECT", "ROWS_PRODUCED": 12,
    },
    {
        "VIEW": "ACCESS_HISTORY", "QUERY_ID": "q1", "QUERY_START_TIME": "2024-01-03T09:01:00+00:00", "USER_NAME": "ANA",
        "BASE_OBJECTS_ACCESSED": [{"objectName": "DB.PUBLIC.A"}, {"objectName": "DB.PUBLIC.B"}],
    },
]  # fmt: skip


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A home with raw tables."""
    made = make_settings(tmp_path / "home")
    with open_warehouse(made) as connection:
        create_raw_tables(connection)
    return made


def write(settings: Settings, *names: str) -> None:
    record(
        settings, Activity.QUERY, actor=ACTOR, outcome="success",
        resources=[Resource("table", name) for name in names], statement="select 1", rows=3,
    )  # fmt: skip


def land(settings: Settings) -> int:
    with open_warehouse(settings) as connection:
        return land_own(connection, settings)


def test_a_row_per_resource_and_every_event_once(settings: Settings) -> None:
    assert land(settings) == 0
    write(settings, "public.a", "public.b")
    write(settings)
    assert land(settings) == 3
    assert land(settings) == 0
    write(settings, "public.c")
    assert land(settings) == 1
    rows = query(
        settings,
        "select log_sequence, resource_number, resource_name, event_code, class_uid, status, actor_name, actor_role, "
        "origin_host, origin_address, rows_returned from raw_ops.access_audit order by all",
    )
    told = ("query", 6005, "Success", "ana", "auditor", "host-1", "192.0.2.7", 3)
    assert rows == [
        (1, 1, "public.a", *told), (1, 2, "public.b", *told), (2, 1, None, *told), (3, 1, "public.c", *told),
    ]  # fmt: skip


def test_the_time_and_the_id_are_those_of_the_log(settings: Settings) -> None:
    write(settings, "public.a")
    land(settings)
    (entry,) = tail(settings)
    (row,) = query(settings, "select event_uid, epoch_ms(event_at), statement_digest from raw_ops.access_audit")
    event = entry["record"]
    assert row == (event["metadata"]["uid"], event["time"], event["query_info"]["query_string"])


def test_a_torn_line_is_no_event_and_hides_none(settings: Settings) -> None:
    write(settings, "public.a")
    with Home.of(settings).audit.open("ab") as log:
        log.write(b'{"seq":2,"prev":"')
    write(settings, "public.b")
    assert land(settings) == 2


def test_snowflakes_history_lands_in_the_same_columns(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        assert land_snowflake(connection, HISTORY) == 4
        assert land_snowflake(connection, HISTORY) == 0
        with pytest.raises(ValueError, match="VIEW"):
            land_snowflake(connection, [{"VIEW": "OTHER"}])
    write(settings, "public.a")
    assert land(settings) == 1
    rows = query(
        settings,
        "select event_system, event_code, status, resource_name, rows_returned, actor_role from raw_ops.access_audit "
        "order by all",
    )
    assert rows == [
        ("snowflake", "login", "Failure", None, None, None),
        ("snowflake", "query", "Success", "db.public.a", None, None),
        ("snowflake", "query", "Success", "db.public.b", None, None),
        ("snowflake", "query", "Success", None, 12, "ANALYST"),
        ("warehouse", "query", "Success", "public.a", 3, "auditor"),
    ]


def test_no_statement_lands(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        land_snowflake(connection, HISTORY)
        found = connection.execute("select count(*) from raw_ops.access_audit as t where t::varchar ilike '%secret%'")
        assert found.fetchone() == (0,)
