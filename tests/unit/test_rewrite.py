"""A database file is written anew with what is in it, however little memory there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeSettings
from warehouse.core import rewrite as rewrite_module
from warehouse.core.database import open_warehouse
from warehouse.core.errors import WarehouseError
from warehouse.core.keys import warehouse_key
from warehouse.core.paths import Home
from warehouse.core.rewrite import rewrite
from warehouse.core.settings import CATALOG, Settings

TABLES, ROWS = 8, 2_000_000


@pytest.fixture
def full_of_gaps(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """Tables of which DuckDB remembers 128 MB of deleted rows, and a view, where 128 MB are allowed."""
    settings = make_settings(tmp_path / "home", memory_limit="128MB")
    with open_warehouse(settings) as connection:
        for number in range(TABLES):
            table = f"{CATALOG}.main.table_{number}"
            connection.execute(f"create table {table} as select range as number from range({ROWS})")
            connection.execute(f"comment on table {table} is 'number {number}'")
        connection.execute(f"create view {CATALOG}.main.seen as from {CATALOG}.main.table_7")
    with open_warehouse(settings) as connection:
        for number in range(TABLES):
            connection.execute(f"delete from {CATALOG}.main.table_{number} where number % 1000 = 0")
    return settings


def test_what_is_remembered_of_deleted_rows_fills_no_memory(full_of_gaps: Settings) -> None:
    path = Home.of(full_of_gaps).warehouse
    before = path.stat().st_ino
    assert rewrite(full_of_gaps, path, warehouse_key(full_of_gaps), alias=CATALOG) == (TABLES, 0)
    assert path.stat().st_ino != before
    with open_warehouse(full_of_gaps, read_only=True) as connection:
        sizes = connection.execute(
            "select estimated_size, comment from duckdb_tables() where database_name = $name order by all",
            {"name": CATALOG},
        ).fetchall()
        assert sizes == [(ROWS - ROWS // 1000, f"number {number}") for number in range(TABLES)]
        assert connection.execute("select count(*), min(number) from seen").fetchone() == (ROWS - ROWS // 1000, 1)


def test_it_would_fill_it_if_the_file_stayed_open(full_of_gaps: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, DuckDB has learnt to give the memory back, and files need not be opened anew."""
    monkeypatch.setattr(rewrite_module, "_MOST_REMEMBERED", TABLES * ROWS * rewrite_module.REMEMBERED_A_ROW)
    path = Home.of(full_of_gaps).warehouse
    before = path.stat().st_ino
    with pytest.raises(WarehouseError, match="OutOfMemory"):
        rewrite(full_of_gaps, path, warehouse_key(full_of_gaps), alias=CATALOG)
    assert path.stat().st_ino == before
    assert not path.with_name(path.name + ".new").exists()


def test_only_the_rows_that_stay_are_copied(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "home")
    with open_warehouse(settings) as connection:
        connection.execute(f"create table {CATALOG}.main.one as select range as number from range(10)")
        connection.execute(f"create table {CATALOG}.main.other as select range as number from range(5)")
    done = rewrite(
        settings,
        Home.of(settings).warehouse,
        warehouse_key(settings),
        alias=CATALOG,
        prepare=lambda _: (
            lambda schema, table: f"from {CATALOG}.{schema}.{table} where number <> 3 or '{table}' = 'other'"
        ),
    )
    assert done == (2, 1)
    with open_warehouse(settings, read_only=True) as connection:
        assert connection.execute("select count(*) from one").fetchone() == (9,)
        assert connection.execute("select count(*) from other").fetchone() == (5,)
