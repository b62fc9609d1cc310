"""Snowflake settings that point at a fakesnow of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestion.destinations import snowflake
from ingestion.destinations.snowflake_sql import EXISTING_TABLES
from ingestion.raw import create_raw_tables
from tests.engines import fakesnow_server
from warehouse.core.database import open_warehouse
from warehouse.core.settings import Settings

USED = {
    "LANDED_LOADS", "LANDED_STATE", "LOAD_MANIFEST", "QUARANTINE", "ACCESS_AUDIT",
    "PRODUCT", "PRODUCT_HISTORY", "CURRENCY", "PAYMENTS_TRANSACTIONS",
}  # fmt: skip
"""The tables that tests of the destination write to: emptied between them."""


@pytest.fixture(scope="session")
def snowflake_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server, shared by the session."""
    if reason := fakesnow_server.missing():
        pytest.skip(reason)
    with fakesnow_server.running(tmp_path_factory.mktemp("fakesnow")) as url:
        yield url


@pytest.fixture
def settings(
    tmp_path: Path, make_settings: Callable[..., Settings], snowflake_url: str, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A home whose target is that server; the raw tables are empty here and there."""
    # what fakesnow does not know it answers with an internal error, which the driver would send again for minutes
    monkeypatch.setattr(snowflake, "ANSWER_SECONDS", 5)
    key = tmp_path / "snowflake.p8"
    fakesnow_server.write_private_key(key)
    settings = make_settings(
        tmp_path / "home",
        lake_uri=None,
        dbt_target="snowflake",
        snowflake_url=snowflake_url,
        snowflake_account="fakesnow",
        snowflake_user="loader",
        snowflake_private_key_path=key,
        dbt_env_secret_snowflake_passphrase=fakesnow_server.PASSPHRASE,
        snowflake_lake_stage=None,
    )
    with open_warehouse(settings) as connection:
        create_raw_tables(connection)
    with snowflake.snowflake_session(settings) as session:
        for schema, name in session.run(EXISTING_TABLES, step="emptying the server"):
            if name in USED:
                session.run(f'delete from "{schema}"."{name}"', step="emptying the server")
    return settings
