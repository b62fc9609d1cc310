"""Types that PostgreSQL has and others lack: each value lands exactly, or its row is in quarantine with the column's
name. The table is pinned here; the server is real.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import duckdb
import psycopg
import pytest

from ingestion import boundary, landing
from ingestion.lake import Lake
from ingestion.raw import column_list, create_raw_tables
from ingestion.schema import Leaf, Table, _leaf
from ingestion.sources.oltp import OltpReader
from tests.conftest import MakeSettings
from warehouse import servers
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import SchemaDrift
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy import vault
from warehouse.privacy.tokens import token_key

NOW = datetime(2024, 6, 1, tzinfo=UTC)
COLUMNS = {
    "id": "integer",
    "money": "numeric(18,4)",
    "wide": "numeric(38,10)",
    "unbounded": "numeric",
    "ratio": "double",
    "at": "timestamptz",
    "day": "date",
    "doc": "json",
    "docb": "json",
    "numbers": "array",
    "texts": "array",
    "address": "inet",
    "padded": "text",
    "word": "text",
    "uid": "text",
}
DDL = """
    create table odd_types (
        id integer primary key, money numeric(18, 4), wide numeric(38, 10), unbounded numeric, ratio double precision,
        at timestamptz, day date, doc json, docb jsonb, numbers numeric[], texts text[], address inet,
        padded char(5), word text, uid uuid, secret numeric
    )
"""


def pin(name: str, columns: dict[str, str], key: tuple[str, ...], *personal: Leaf, cursor: str | None = None) -> Table:
    """A flat table as schema.yml would pin it."""
    plain = tuple(_leaf(column, {"type": declared, "class": "internal"}) for column, declared in columns.items())
    return Table(
        source="oltp",
        raw_schema="raw_oltp",
        name=name,
        origin=name,
        key=key,
        cursor=cursor,
        history=False,
        subject=None,
        amount=None,
        columns=(*plain, *personal),
    )


ODD = pin("odd_types", COLUMNS, ("id",))

Source = tuple[Settings, Endpoints]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Source]:
    """A PostgreSQL of this module's own."""
    settings = make_settings(
        tmp_path_factory.mktemp("types"),
        mongodb_uri="mongodb://127.0.0.1:1/none",
        kafka_bootstrap="127.0.0.1:1",
    )
    try:
        yield settings, servers.up(settings)
    except servers.ServerMissing as error:
        pytest.skip(error.what)
    finally:
        servers.down(settings)


@pytest.fixture
def admin(source: Source) -> Iterator[psycopg.Connection]:
    """A writer at the source; the table is new for each test."""
    with psycopg.connect(str(source[1].postgres_admin_uri), autocommit=True) as connection:
        connection.execute("drop table if exists odd_types")
        connection.execute(DDL)
        yield connection


@pytest.fixture
def warehouse(source: Source) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(source[0], postgres=True) as connection:
        create_raw_tables(connection)
        vault.attach_vault(connection, source[0])
        boundary.install(connection, token_key(source[0]))
        yield connection


def land(connection: duckdb.DuckDBPyConnection, source: Source, table: Table, load_id: str = "l1") -> landing.Counts:
    """Land `table` and put what landed where the load would put it."""
    settings, endpoints = source
    lake = Lake(settings)
    landing.prepare(connection)
    connection.execute(f"create or replace table {CATALOG}.{table.qualified} ({column_list(table)})")
    lake.discard_unsealed("oltp", table.name)
    with OltpReader(connection, settings, str(endpoints.postgres_uri)) as reader:
        reader.check_shape([table])
        plan = reader.plan(table, {}, full=False)
        target = landing.TableLanding(connection, lake, table, load_id, NOW, plan)
        for relation in reader.chunks(table, plan):
            target.add(relation)
        counts = target.finish()
    for path in counts.files:
        connection.execute(
            f"insert into {CATALOG}.{table.qualified} by name "
            f"select * from read_parquet('{path}', encryption_config = {{footer_key: 'lake'}})"
        )
    return counts


def landed(connection: duckdb.DuckDBPyConnection, column: str) -> list[object]:
    rows = connection.execute(f'select "{column}" from raw_oltp.odd_types order by id').fetchall()
    return [value for (value,) in rows]


def reasons(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rows = connection.execute("select position, reason from pending_quarantine").fetchall()
    assert len(rows) == len(dict(rows)), "a row is in quarantine twice"
    return dict(rows)


EXACT = [
    ("money", "99999999999999.9999", Decimal("99999999999999.9999")),
    ("money", "-0.0001", Decimal("-0.0001")),
    ("wide", "1234567890123456789012345678.1234567891", Decimal("1234567890123456789012345678.1234567891")),
    ("unbounded", "123456789012345678901234567890.123456789", "123456789012345678901234567890.123456789"),
    ("unbounded", "1.10", "1.10"),
    ("unbounded", "NaN", "NaN"),
    ("unbounded", "infinity", "Infinity"),
    ("ratio", "0.1", 0.1),
    ("ratio", "infinity", float("inf")),
    ("ratio", "-infinity", float("-inf")),
    ("ratio", "1e308", 1e308),
    ("at", "2024-03-31 01:59:59.999999+01", datetime(2024, 3, 31, 0, 59, 59, 999999, tzinfo=UTC)),
    ("at", "1969-12-31 23:59:59.999999+00", datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ("doc", '{"b": 1, "a":1.10, "b": 2}', '{"b": 1, "a":1.10, "b": 2}'),
    ("doc", '{"n": "\\u0000"}', '{"n": "\\u0000"}'),
    ("docb", '{"n": 12345678901234567890.10}', '{"n": 12345678901234567890.10}'),
    ("numbers", "{1,NULL,12345678901234567890.10}", "[1, null, 12345678901234567890.10]"),
    ("numbers", "{{1,2},{3,4}}", "[[1, 2], [3, 4]]"),
    ("numbers", "{}", "[]"),
    ("texts", '{"a,b","\\"quoted\\"",NULL,""}', '["a,b", "\\"quoted\\"", null, ""]'),
    ("address", "10.0.0.5", "10.0.0.5/32"),
    ("address", "2001:db8::/48", "2001:db8::/48"),
    ("padded", "ab", "ab"),
    ("padded", "", ""),
    ("word", "  ab  ", "  ab  "),
    ("word", "é\u00a0\U0001f600\r\n\t'\"\\\x1f", "é\u00a0\U0001f600\r\n\t'\"\\\x1f"),
    ("word", "", ""),
    ("uid", "123E4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
]


def test_what_can_land_lands_exactly(
    source: Source, admin: psycopg.Connection, warehouse: duckdb.DuckDBPyConnection
) -> None:
    for number, (column, text, _) in enumerate(EXACT):
        admin.execute(f"insert into odd_types (id, {column}) values (%s, %s)".encode(), [number, text])
    counts = land(warehouse, source, ODD)
    assert (counts.landed_rows, counts.quarantined_rows) == (len(EXACT), 0)
    for number, (column, text, expected) in enumerate(EXACT):
        assert landed(warehouse, column)[number] == expected, f"{column}: {text!r}"


def test_a_not_a_number_in_a_double_lands_as_one(
    source: Source, admin: psycopg.Connection, warehouse: duckdb.DuckDBPyConnection
) -> None:
    admin.execute("insert into odd_types (id, ratio) values (1, 'NaN')")
    land(warehouse, source, ODD)
    assert warehouse.execute("select isnan(ratio) from raw_oltp.odd_types").fetchall() == [(True,)]


BAD = [
    ("money", "NaN"),
    ("wide", "NaN"),
    ("at", "infinity"),
    ("at", "-infinity"),
    ("at", "294276-12-31 23:59:59+00"),
    ("at", "4713-01-01 00:00:00+00 BC"),
    ("day", "infinity"),
    ("day", "-infinity"),
    ("day", "5874897-12-31"),
    ("day", "0044-03-15 BC"),
]


@pytest.mark.parametrize("primary_key", [True, False], ids=["streamed", "compared"])
def test_what_cannot_land_is_in_quarantine_under_its_column(
    source: Source, admin: psycopg.Connection, warehouse: duckdb.DuckDBPyConnection, primary_key: bool
) -> None:
    if not primary_key:
        admin.execute("alter table odd_types drop constraint odd_types_pkey")
    admin.execute("insert into odd_types (id, money, at, day) values (1000, 1.5, '2024-01-01', '9999-12-31')")
    for number, (column, text) in enumerate(BAD):
        admin.execute(f"insert into odd_types (id, {column}) values (%s, %s)".encode(), [number, text])
    counts = land(warehouse, source, ODD)
    assert reasons(warehouse) == {str(number): f"type: {column}" for number, (column, _) in enumerate(BAD)}
    assert (counts.source_rows, counts.landed_rows, counts.quarantined_rows) == (len(BAD) + 1, 1, len(BAD))
    assert landed(warehouse, "money") == [Decimal("1.5000")]
    assert landed(warehouse, "at") == [datetime(2024, 1, 1, tzinfo=UTC)]


def test_the_scanner_alone_would_change_these_values_silently(
    source: Source, admin: psycopg.Connection, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """Why the exact way of reading exists. When this fails, the scanner has learned, and it can go."""
    admin.execute(
        "insert into odd_types (id, money, unbounded, at) "
        "values (1, 'NaN', 0.1000000000000000055, '294276-12-31 23:59:59+00')"
    )
    warehouse.execute(f"attach '{source[1].postgres_uri}' as plain (type postgres, read_only)")
    read = warehouse.execute(
        "select money, unbounded, odd_types.at < '2000-01-01' from plain.public.odd_types"
    ).fetchone()
    warehouse.execute("detach plain")
    assert read == (Decimal(0), 0.1, True)


def test_a_personal_number_gives_the_same_token_on_either_way(
    source: Source, admin: psycopg.Connection, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """A NaN in another row makes the whole table be read exactly: no token may change by that."""
    admin.execute("alter table odd_types alter column secret type numeric(9, 6)")
    secret = _leaf("secret", {"type": "numeric(9,6)", "class": "personal", "domain": "geo"})
    table = pin("odd_types", {"id": "integer", "money": "numeric(18,4)", "at": "timestamptz"}, ("id",), secret)
    admin.execute("insert into odd_types (id, money, secret, at) values (1, 1, 52.37, '2024-01-01 00:00:00.5+00')")
    query = "select secret_token, _row_hash from raw_oltp.odd_types where id = 1"
    land(warehouse, source, table)
    fast = warehouse.execute(query).fetchall()
    admin.execute("insert into odd_types (id, money) values (2, 'NaN')")
    land(warehouse, source, table, "l2")
    assert warehouse.execute(query).fetchall() == fast
    assert reasons(warehouse) == {"2": "type: money"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("alter column money type numeric(20, 4)", r"odd_types\.money is now numeric\(20,4\)"),
        ("alter column money type numeric(18, 6)", r"odd_types\.money is now numeric\(18,6\)"),
        ("alter column money type numeric", r"odd_types\.money is now numeric"),
        ("alter column unbounded type numeric(10, 2)", r"odd_types\.unbounded is now numeric\(10,2\)"),
        ("alter column word type integer using 0", r"odd_types\.word is now integer"),
        ("alter column ratio type text", r"odd_types\.ratio is now text"),
        ("alter column at type timestamp", r"odd_types\.at is now timestamp without time zone"),
        ("alter column numbers type text", r"odd_types\.numbers is now text"),
        ("drop column word", r"odd_types\.word is missing"),
        ("rename column word to words", r"odd_types\.word is missing"),
    ],
)
def test_a_changed_type_is_refused_and_named(
    source: Source, admin: psycopg.Connection, warehouse: duckdb.DuckDBPyConnection, change: str, told: str
) -> None:
    admin.execute(f"alter table odd_types {change}".encode())
    with pytest.raises(SchemaDrift, match=told) as caught:
        land(warehouse, source, ODD)
    assert caught.value.kept and caught.value.todo


def test_an_integer_that_became_text_is_refused(
    source: Source, admin: psycopg.Connection, warehouse: duckdb.DuckDBPyConnection
) -> None:
    admin.execute("alter table odd_types alter column id type text")
    with pytest.raises(SchemaDrift, match=r"odd_types\.id is now text"):
        land(warehouse, source, ODD)


def test_an_added_column_is_told_and_does_not_land(
    source: Source, admin: psycopg.Connection, warehouse: duckdb.DuckDBPyConnection
) -> None:
    admin.execute("insert into odd_types (id, secret) values (1, 7)")
    land(warehouse, source, ODD)
    with OltpReader(warehouse, source[0], str(source[1].postgres_uri)) as reader:
        assert reader.check_shape([ODD]) == ["odd_types.secret is new at the source and does not land"]
    names = [name for name, *_ in warehouse.execute("describe raw_oltp.odd_types").fetchall()]
    assert "secret" not in names
