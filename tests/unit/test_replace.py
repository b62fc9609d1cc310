"""Tables replaced inside their file: not a byte of the old rows is left, and what is left is not overlooked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from warehouse.core import replace
from warehouse.core.replace import RoomNotOverwritten, TableName, replace_tables

SECRET = b"SECRET-OF-SOMEBODY"
PERSON: TableName = ("main", "person")
NOBODY = "select * from {} where name not like 'SECRET%'"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plain.duckdb"


@pytest.fixture
def connection(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that is not encrypted, so that every byte can be read: large tables, small ones, long texts."""
    opened = duckdb.connect()
    opened.execute(f"attach '{path}' as store")
    for number in range(3):
        opened.execute(
            f"create table store.large_{number} as "
            f"select range as id, md5((range + {number})::varchar) as digest from range(300000)"
        )
    opened.execute("begin")
    opened.execute("create table store.person (name varchar not null, note varchar default 'none', check (name <> ''))")
    opened.execute("create table store.small as select 'other' as name")
    opened.execute(
        f"insert into store.person select '{SECRET.decode()}' || range, repeat('x', 5000) || '{SECRET.decode()}' "
        "from range(5) union all select 'somebody else', 'a note'"
    )
    opened.execute("commit")
    opened.execute("comment on table store.person is 'who''s who'")
    opened.execute("comment on column store.person.note is 'free text'")
    opened.execute("checkpoint store")
    yield opened
    opened.close()


def test_no_byte_is_left_and_the_rest_stays(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    assert SECRET in path.read_bytes()
    others = {name: connection.execute(f"from store.{name} order by all").fetchall() for name in ("large_1", "small")}
    done = replace_tables(connection, path, "store", {PERSON: NOBODY.format})
    assert SECRET not in path.read_bytes()
    assert (
        not path.with_name(path.name + ".wal").exists() or SECRET not in path.with_name(path.name + ".wal").read_bytes()
    )
    assert done["rows_removed"] == 5
    assert connection.execute("from store.person").fetchall() == [("somebody else", "a note")]
    for name, rows in others.items():
        assert connection.execute(f"from store.{name} order by all").fetchall() == rows
    assert connection.execute("select table_name from duckdb_tables() order by all").fetchall() == [
        ("large_0",), ("large_1",), ("large_2",), ("person",), ("small",),
    ]  # fmt: skip


def test_constraints_defaults_and_comments_stay(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    told = "select sql, comment from duckdb_tables() where table_name = 'person'"
    columns = (
        "select column_name, column_default, is_nullable, comment from duckdb_columns() where table_name = 'person'"
    )
    before = connection.execute(told).fetchall(), connection.execute(columns).fetchall()
    replace_tables(connection, path, "store", {PERSON: NOBODY.format})
    assert (connection.execute(told).fetchall(), connection.execute(columns).fetchall()) == before


def test_a_table_without_its_rows_alone_would_leave_them(
    connection: duckdb.DuckDBPyConnection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault that the overwriting is there for."""
    monkeypatch.setattr(replace, "overwrite_room", lambda *_: 0)
    replace_tables(connection, path, "store", {PERSON: NOBODY.format})
    connection.execute("checkpoint store")
    assert SECRET in path.read_bytes()


def test_room_that_was_not_overwritten_is_noticed(
    connection: duckdb.DuckDBPyConnection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace, "_NUMBERS_A_BLOCK", 0)
    with pytest.raises(RoomNotOverwritten, match="could not be overwritten"):
        replace_tables(connection, path, "store", {PERSON: NOBODY.format})


def test_tables_that_share_a_block_go_together() -> None:
    blocks = {("s", "a"): {1, 2}, ("s", "b"): {2, 3}, ("s", "c"): {3}, ("s", "d"): {4}}
    assert replace._with_neighbours(blocks, [("s", "a")]) == {("s", "a"), ("s", "b"), ("s", "c")}


def test_a_table_that_cannot_be_written_stays_as_it_was(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    before = connection.execute("from store.person order by all").fetchall()
    with pytest.raises(duckdb.Error):
        replace_tables(connection, path, "store", {PERSON: "select * from {} where no_such_column".format})
    assert connection.execute("from store.person order by all").fetchall() == before
