"""Reading PostgreSQL: streamed, in blocks, by cursor, by keys. Each way lands the same rows; none loses one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import duckdb
import psycopg
import pytest

from ingestion import boundary, landing
from ingestion.lake import Lake
from ingestion.raw import column_list, create_raw_tables
from ingestion.schema import Retention, Table, _leaf
from ingestion.sources import Plan
from ingestion.sources.oltp import OltpReader, reader
from tests.conftest import MakeSettings
from tests.integration.test_oltp_types import pin
from warehouse import servers
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import LoadIncomplete
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy import vault
from warehouse.privacy.tokens import token_key

COLUMNS = {"shop": "text", "number": "integer", "amount": "numeric(18,4)", "updated_at": "timestamptz"}
ORDERS = pin("orders", COLUMNS, ("shop", "number"), cursor="updated_at")
ROWS = 3_000


class World:
    """One table at a source, its raw table, and landings of it: what `ingestion.run` does, without dlt."""

    def __init__(self, settings: Settings, endpoints: Endpoints, connection: duckdb.DuckDBPyConnection) -> None:
        self.settings, self.endpoints, self.connection = settings, endpoints, connection
        self.state: dict[str, Any] = {}
        self.loads = 0
        self.plan: Plan | None = None

    def sql(self, *statements: str) -> None:
        with psycopg.connect(str(self.endpoints.postgres_admin_uri), autocommit=True) as source:
            for statement in statements:
                source.execute(statement.encode())

    def land(self, table: Table = ORDERS, *, full: bool = False, keys: bool = False) -> landing.Counts:
        self.loads += 1
        load_id = f"l{self.loads}"
        lake = Lake(self.settings)
        lake.discard_unsealed("oltp", table.name)
        landing.prepare(self.connection)
        with OltpReader(self.connection, self.settings, str(self.endpoints.postgres_uri)) as source:
            source.check_shape([table])
            self.plan = source.plan(table, self.state, full=full)
            target = landing.TableLanding(
                self.connection, lake, table, load_id, datetime(2024, 6, self.loads, tzinfo=UTC), self.plan
            )
            for relation in source.chunks(table, self.plan):
                target.add(relation)
            if keys:
                target.compare_keys(source.keys(table, target.telling_columns))
            if keys or self.plan.mode == "compare":
                target.mark_deleted(accept=False)
            counts = target.finish()
            self.state = source.advanced(table, self.plan)
        raw = f"{CATALOG}.{table.qualified}"
        for path in counts.files:
            part = f"read_parquet('{path}', encryption_config = {{footer_key: 'lake'}})"
            self.connection.execute(f"delete from {raw} using {part} as new where {self._same(table, raw)}")
            self.connection.execute(f"insert into {raw} by name select * from {part}")
        return counts

    def current(self, columns: str = "shop, number, amount") -> list[tuple[Any, ...]]:
        return self.connection.execute(
            f"select {columns} from raw_oltp.orders where _deleted_at is null order by all"
        ).fetchall()

    def reasons(self) -> list[tuple[Any, ...]]:
        return self.connection.execute("select position, reason from pending_quarantine order by all").fetchall()

    def at_source(self) -> list[tuple[Any, ...]]:
        with psycopg.connect(str(self.endpoints.postgres_admin_uri)) as source:
            rows = source.execute("select shop, number, amount from orders").fetchall()
        return sorted(rows)

    @staticmethod
    def _same(table: Table, raw: str) -> str:
        return " and ".join(f'{raw}."{key}" = new."{key}"' for key in table.key)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[tuple[Settings, Endpoints]]:
    settings = make_settings(
        tmp_path_factory.mktemp("paths"),
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
def world(home: tuple[Settings, Endpoints], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """3,000 orders with a composite key, never landed; tables above 10 rows go by cursor, chunks are small."""
    monkeypatch.setattr(reader, "CHUNK_ROWS", 500)
    settings = home[0].model_copy(update={"compare_below_rows": 10, "cursor_lag_seconds": 600})
    with open_warehouse(settings, postgres=True) as connection:
        create_raw_tables(connection)
        connection.execute(f"create or replace table {CATALOG}.raw_oltp.orders ({column_list(ORDERS)})")
        vault.attach_vault(connection, settings)
        boundary.install(connection, token_key(settings))
        world = World(settings, home[1], connection)
        world.sql(
            "drop table if exists orders cascade",
            "create table orders (shop text, number integer, amount numeric(18, 4), updated_at timestamptz)",
            f"""insert into orders
                select 's' || i % 7, i, i * 0.0001, timestamptz '2024-01-01' + i * interval '1 minute'
                from generate_series(1, {ROWS}) as i""",
            "alter table orders add primary key (shop, number)",
            "analyze orders",
        )
        yield world


def blocks(world: World) -> int:
    assert world.plan is not None
    return len(world.plan.bounds.get("blocks", ()))


def test_a_first_load_streams_and_a_second_lands_nothing(world: World) -> None:
    counts = world.land()
    assert (counts.landed_rows, counts.source_rows, blocks(world)) == (ROWS, ROWS, 0)
    assert world.current() == world.at_source()
    again = world.land(full=True)
    assert (again.landed_rows, again.unchanged_rows, again.deleted_rows) == (0, ROWS, 0)


def test_a_comparison_in_blocks_meets_every_row_once(world: World) -> None:
    world.land()
    world.sql("update orders set amount = amount + 1 where number % 2 = 0", "delete from orders where number <= 30")
    counts = world.land(full=True)
    assert blocks(world) > 3
    assert counts.read_rows == counts.source_rows == ROWS - 30
    assert (counts.landed_rows, counts.deleted_rows) == (ROWS // 2 - 15, 30)
    assert world.current() == world.at_source()


def test_rows_written_while_the_table_is_read_wait_for_the_next_run(world: World) -> None:
    """The count, the blocks and the rows are of one snapshot, although blocks are added meanwhile."""
    world.land()
    table = ORDERS
    with OltpReader(world.connection, world.settings, str(world.endpoints.postgres_uri)) as source:
        plan = source.plan(table, world.state, full=True)
        world.sql("insert into orders select 'late', i, 1, now() from generate_series(1, 2000) as i")
        world.sql("update orders set amount = -1 where shop = 's1'", "vacuum orders")
        read = [
            row
            for relation in source.chunks(table, plan)
            for row in world.connection.execute(f"select shop, amount from ({relation})").fetchall()
        ]
        assert len(read) == plan.source_rows == ROWS
        assert not [row for row in read if row[0] == "late" or row[1] < 0]
        whole = replace(plan, bounds={})
        (relation,) = source.chunks(table, whole)
        found = world.connection.execute(f"select count(*), min(amount) >= 0 from ({relation})").fetchone()
        assert found == (ROWS, True)
    assert world.land(full=True).landed_rows > 2000
    assert world.current() == world.at_source()


def test_by_cursor_equal_late_and_missing_cursors_are_read(world: World) -> None:
    world.land()
    newest = f"timestamptz '2024-01-01' + {ROWS} * interval '1 minute'"
    world.sql(
        f"insert into orders values ('new', 1, 1, {newest}), ('late', 2, 2, {newest} - interval '9 minutes')",
        "insert into orders values ('undated', 3, 3, null)",
        f"update orders set amount = 5 where number = {ROWS}",
    )
    counts = world.land()
    assert world.plan is not None
    assert world.plan.mode == "incremental"
    assert counts.landed_rows == 4
    assert counts.source_rows == counts.unchanged_rows + 4 == 4 + 10
    world.sql("update orders set amount = 6 where shop = 'undated'")
    assert world.land().landed_rows == 1
    assert world.current() == world.at_source()


def test_where_no_row_is_found_the_cursor_stays(world: World) -> None:
    """Else it would be the clock, and a transaction that was open for longer than the lag would commit behind it."""
    world.land()
    cursor = world.state["cursor"]
    newest = f"timestamptz '2024-01-01' + {ROWS} * interval '1 minute'"
    world.sql(f"delete from orders where updated_at > {newest} - interval '1 hour'")
    assert world.land().source_rows == 0
    assert world.state["cursor"] == cursor
    world.sql(f"insert into orders values ('late', 1, 1, {newest} + interval '1 minute')")
    assert world.land().landed_rows == 1


def test_an_empty_table_has_no_cursor(world: World) -> None:
    world.sql("truncate orders")
    world.land()
    assert world.state["cursor"] is None
    world.sql("insert into orders values ('first', 1, 1, '2020-01-01')")
    assert world.land().landed_rows == 1


def test_a_row_dated_in_the_future_does_not_hide_later_changes(world: World) -> None:
    world.sql("insert into orders values ('future', 1, 1, '2999-01-01')")
    world.land()
    world.sql("insert into orders values ('today', 1, 1, now())")
    assert world.land().landed_rows == 1
    assert datetime.fromisoformat(world.state["cursor"]) <= datetime.now(UTC)
    assert world.current() == world.at_source()


def test_an_infinite_cursor_is_quarantined_and_moves_nothing(world: World) -> None:
    world.sql("insert into orders values ('never', 1, 1, 'infinity')")
    counts = world.land()
    assert (counts.landed_rows, counts.quarantined_rows) == (ROWS, 1)
    assert world.reasons() == [("never|1", "type: updated_at")]
    assert world.state["cursor"].startswith("2024-01-03")
    world.sql("insert into orders values ('later', 1, 1, '2024-02-01')")
    assert world.land().landed_rows == 1


def test_a_deletion_that_the_cursor_cannot_see_is_found_by_its_key(world: World) -> None:
    world.land()
    world.sql("delete from orders where number between 100 and 149")
    assert world.land().deleted_rows == 0
    counts = world.land(keys=True)
    assert (counts.deleted_rows, counts.missing_keys) == (50, 0)
    assert world.current() == world.at_source()
    again = world.land(keys=True)
    assert (again.deleted_rows, again.missing_keys) == (0, 0)


def test_a_row_that_never_landed_is_found_by_its_key(world: World) -> None:
    """Committed behind the lag: no cursor will ever read it."""
    world.land()
    world.sql("insert into orders values ('hidden', 1, 1, '2023-01-01')")
    assert world.land().landed_rows == 0
    assert world.land(keys=True).missing_keys == 1
    assert world.land(full=True).landed_rows == 1
    assert world.land(keys=True).missing_keys == 0


def test_deletions_by_key_stop_at_the_threshold(world: World) -> None:
    world.land()
    world.sql("delete from orders where number > 1000")
    with pytest.raises(LoadIncomplete, match="are gone at the source"):
        world.land(keys=True)
    assert len(world.current()) == ROWS


@pytest.mark.parametrize("first", [True, False], ids=["first load", "comparison"])
def test_of_rows_that_share_a_key_none_is_taken_for_the_true_one(world: World, first: bool) -> None:
    if not first:
        world.land()
    world.sql("alter table orders drop constraint orders_pkey", "insert into orders values ('s1', 1, 7, now())")
    counts = world.land(full=True)
    assert blocks(world) == 0
    assert counts.quarantined_rows == 2
    assert world.reasons() == [("s1|1", "duplicate key")] * 2
    kept = [] if first else [("s1", 1, Decimal("0.0001"))]
    assert [row for row in world.current() if row[:2] == ("s1", 1)] == kept
    assert counts.deleted_rows == 0


def test_a_unique_index_over_some_rows_is_no_promise(world: World) -> None:
    world.sql(
        "alter table orders drop constraint orders_pkey",
        "create unique index on orders (shop, number) where amount > 1",
        "create unique index on orders (shop, number, amount)",
    )
    world.land()
    assert world.plan is not None
    assert not world.plan.unique_keys
    world.sql("create unique index on orders (number) include (amount)")
    world.land(full=True)
    assert world.plan.unique_keys


def test_a_view_and_a_partitioned_table_are_read_too(world: World) -> None:
    world.sql(
        "alter table orders rename to orders_1",
        "create table orders (like orders_1) partition by list (shop)",
        "create table orders_rest partition of orders default",
        "insert into orders select * from orders_1",
    )
    assert world.land().landed_rows == ROWS
    world.sql("update orders set amount = 9 where number = 5")
    assert world.land(full=True).landed_rows == 1
    world.sql("drop table orders cascade", "create view orders as select * from orders_1")
    assert world.land(full=True).landed_rows == 1
    assert world.current() == world.at_source()
    world.sql("drop view orders", "drop table orders_1")


def test_a_table_with_personal_values_is_not_streamed(world: World) -> None:
    name = _leaf("shop", {"type": "text", "class": "personal", "domain": "name"})
    table = replace(ORDERS, name="people", columns=(*ORDERS.columns[1:], name), key=("number",))
    world.connection.execute(f"create or replace table {CATALOG}.raw_oltp.people ({column_list(table)})")
    world.sql("alter table orders add unique (number)")
    assert world.land(table).landed_rows == ROWS
    assert blocks(world) > 3
    kept = world.connection.execute("select count(*), count(distinct value) from pending_vault").fetchone()
    assert kept == (ROWS, 7)


def test_rows_that_are_too_old_are_not_missed_by_their_keys(world: World) -> None:
    """Their source still has them: they are neither lost nor, once dropped, deleted there."""
    dated = replace(ORDERS, retention=Retention("payments", "updated_at"))
    noon = "timestamptz '2024-01-01 12:00:00+00'"  # the 720th order is of this minute
    world.connection.execute("delete from raw_ops.retention_cutoff")
    world.connection.execute(f"insert into raw_ops.retention_cutoff values ('oltp', 'orders', {noon}, now())")
    counts = world.land(dated)
    assert (counts.landed_rows, counts.erased_rows) == (ROWS - 719, 719)
    counts = world.land(dated, keys=True)
    assert (counts.missing_keys, counts.deleted_rows, counts.landed_rows) == (0, 0, 0)
    world.sql("delete from orders where number in (1, 3000)")
    counts = world.land(dated, keys=True)
    assert (counts.missing_keys, counts.deleted_rows) == (0, 1)
    world.connection.execute("delete from raw_ops.retention_cutoff")
    assert world.land(keys=True).missing_keys == 718, "without a cutoff they would be missed"


MEASURED = pin("measured", {"name": "text", "score": "double", "at": "timestamptz"}, ("name",))


def test_a_digest_tells_of_every_change(home: tuple[Settings, Endpoints]) -> None:
    """Also of those that a text of the row would not show, and of none where rows only changed their places."""
    settings, endpoints = home
    changes = (
        "insert into measured values ('b', 0.1, null)",
        "update measured set score = score + 1e-17 * 2 where name = 'b'",
        "update measured set at = '2024-01-01 00:00:00.000001+00' where name = 'b'",
        "update measured set name = '' where name = 'b'",
        "update measured set name = 'a,b' where name = ''",
        "insert into measured values ('c', null, null)",
        "update measured set score = 'NaN' where name = 'c'",
        "delete from measured where name = 'c'",
    )
    with (
        open_warehouse(settings, postgres=True) as connection,
        psycopg.connect(str(endpoints.postgres_admin_uri), autocommit=True) as source,
    ):

        def digest() -> str:
            with OltpReader(connection, settings, str(endpoints.postgres_uri)) as found:
                return found.digest(MEASURED, Plan("compare", 0))

        source.execute("drop table if exists measured")
        source.execute("create table measured (name text primary key, score float8, at timestamptz)")
        source.execute("grant select on measured to public")
        source.execute("alter role warehouse_reader set extra_float_digits = 0")
        seen = [digest()]
        try:
            for change in changes:
                source.execute(change.encode())
                seen.append(digest())
            source.execute("update measured set at = at")  # a new version of the row, elsewhere
            assert digest() == seen[-1]
        finally:
            source.execute("alter role warehouse_reader reset extra_float_digits")
            source.execute("drop table measured")
    assert len(set(seen[:-1])) == len(seen) - 1
    assert seen[-1] == seen[-4]
