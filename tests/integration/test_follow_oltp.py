"""`ingest oltp --follow`: what PostgreSQL's log tells lands within seconds, deletions too; a lost slot fails loudly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from ingestion import follow as follow_module
from ingestion.follow import STATE, FollowReport, follow
from ingestion.load import read_state
from ingestion.reconcile import reconcile
from ingestion.run import ingest
from ingestion.sources.oltp import Batch, Changes
from ingestion.sources.oltp import changes as changes_module
from ingestion.sources.oltp.changes import SlotHealth
from ingestion.sources.oltp.pgoutput import Change
from tests.conftest import MakeSettings
from warehouse import servers
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.settings import Settings
from warehouse.doctor import doctor
from warehouse.servers import postgres
from warehouse.simulation.stores.oltp import OltpStore

SLOT = "payments_warehouse"
LONG = "'" + "x" * 200_000 + "'"
"""Longer than a page holds: PostgreSQL keeps it apart (TOAST), and does not repeat it where it did not change."""


class World:
    """The company's tables, empty, and an empty warehouse."""

    def __init__(self, settings: Settings, endpoints: Endpoints) -> None:
        self.settings = settings
        self.endpoints = endpoints
        self.lines: list[str] = []

    def sql(self, *statements: str, together: bool = False) -> None:
        with psycopg.connect(str(self.endpoints.postgres_admin_uri), autocommit=not together) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def add(self, *codes: str, description: str = "'a status'") -> None:
        self.sql(*(f"insert into status values ('{code}', {description}, true, now())" for code in codes))

    def follow(self, **options: Any) -> FollowReport:
        return follow(
            self.settings,
            self.endpoints,
            new_run_id=lambda: "test",
            sources=("oltp",),
            max_batches=1,
            progress=self.lines.append,
            **options,
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with open_warehouse(self.settings, read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def current(self) -> dict[str, str]:
        return dict(
            self.rows("select status_code, left(description, 9) from raw_oltp.status where _deleted_at is null")
        )

    def token(self) -> str:
        with open_warehouse(self.settings) as connection:
            return str(read_state(connection, self.settings, "oltp")[STATE]["token"])

    def confirmed(self) -> str:
        return str(self.ask(f"select confirmed_flush_lsn from pg_replication_slots where slot_name = '{SLOT}'"))

    def ask(self, query: str) -> Any:
        with psycopg.connect(str(self.endpoints.postgres_admin_uri)) as connection:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            return row[0]

    def differences(self) -> int:
        return sum(each.differences for each in reconcile(self.settings, self.endpoints, sources=("oltp",)).tables)


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Endpoints]:
    settings = make_settings(
        tmp_path_factory.mktemp("followed"),
        mongodb_uri="mongodb://127.0.0.1:1/none",
        kafka_bootstrap="127.0.0.1:1",
    )
    with pytest.MonkeyPatch.context() as patch:
        # given with the command line, no test could change it
        patch.delitem(postgres._SETTINGS, "max_slot_wal_keep_size")
        try:
            found = servers.up(settings)
        except servers.ServerMissing as error:
            pytest.skip(error.what)
    try:
        limit_slots(found, "'1GB'")
        yield found
    finally:
        servers.down(settings)


def limit_slots(endpoints: Endpoints, size: str) -> None:
    with psycopg.connect(str(endpoints.postgres_admin_uri), autocommit=True) as connection:
        connection.execute(f"alter system set max_slot_wal_keep_size = {size}".encode())
        connection.execute(b"select pg_reload_conf()")


@pytest.fixture
def world(
    endpoints: Endpoints, tmp_path: Any, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setattr(follow_module, "INTERVAL_SECONDS", 0.2)
    with OltpStore.open(str(endpoints.postgres_admin_uri)) as store:
        store.rebuild_schema()
        store.add_constraints()
        store.commit()
    found = World(make_settings(tmp_path / "home"), endpoints)
    yield found
    found.sql(f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{SLOT}'")


def test_insert_update_delete_and_a_changed_key_land(world: World) -> None:
    world.add("a", "b", "c", "d")
    assert world.follow().landed == {"oltp": 4}
    world.add("e")
    world.sql("update status set description = 'changed' where status_code = 'b'")
    world.sql("delete from status where status_code = 'c'")
    world.sql("update status set status_code = 'f' where status_code = 'd'")
    assert world.follow().landed == {"oltp": 5}, "e, b and f are new versions, c and d are gone"
    assert world.current() == {"a": "a status", "b": "changed", "e": "a status", "f": "a status"}
    manifest = world.rows(
        "select mode, source_rows, landed_rows, deleted_rows from raw_ops.load_manifest where mode = 'changes'"
    )
    assert manifest == [("changes", 3, 3, 2)]
    assert world.differences() == 0
    assert ingest(world.settings, world.endpoints, run_id="compare", sources=("oltp",)).landed_rows == 0


def test_what_was_rolled_back_never_lands_and_several_changes_are_one_version(world: World) -> None:
    world.add("a")
    world.follow()
    connection = psycopg.connect(str(world.endpoints.postgres_admin_uri))
    connection.execute("insert into status values ('ghost', '', true, now())")
    connection.rollback()
    connection.close()
    world.sql(*(f"update status set description = 'turn {turn}' where status_code = 'a'" for turn in range(5)))
    world.sql("delete from status where status_code = 'a'", "insert into status values ('a', 'again', true, now())")
    assert world.follow().landed == {"oltp": 1}
    assert world.current() == {"a": "again"}


def test_a_transaction_that_commits_late_is_not_stepped_over(world: World) -> None:
    """It began before the position that was confirmed meanwhile, and its cursor is far behind."""
    world.add("a")
    world.follow()
    with psycopg.connect(str(world.endpoints.postgres_admin_uri)) as late:
        late.execute("insert into status values ('late', '', true, '2001-01-01')")
        world.add("b")
        assert world.follow().landed == {"oltp": 1}
        late.commit()
    assert world.follow().landed == {"oltp": 1}
    assert world.current().keys() == {"a", "b", "late"}


def test_a_long_value_that_an_update_left_alone_stays(world: World) -> None:
    world.add("a", description=LONG)
    world.follow()
    world.sql("update status set is_final = false where status_code = 'a'")
    assert world.follow().landed == {"oltp": 1}
    assert world.rows("select length(description), is_final from raw_oltp.status") == [(200_000, False)]


def test_keys_of_rows_with_a_full_identity_are_told(world: World) -> None:
    """REPLICA IDENTITY FULL: a deletion carries the whole old row, and the publication may not leave a column out."""
    world.sql(
        "alter publication payments_warehouse drop table status",
        "alter table status replica identity full",
        "alter publication payments_warehouse add table status",
    )
    world.add("a", "b", description=LONG)
    world.follow()
    world.sql("delete from status where status_code = 'a'", "update status set is_final = false")
    assert world.follow().landed == {"oltp": 2}
    assert world.current().keys() == {"b"}
    assert world.differences() == 0


def test_a_truncated_table_is_compared_and_stops_above_the_threshold(world: World) -> None:
    world.add(*(f"s{number}" for number in range(3)))
    world.follow()
    world.sql("truncate status cascade")
    assert world.follow().landed == {"oltp": 3}, "a few rows: below the threshold"
    world.sql("insert into status select 'n' || n, 'many', true, now() from generate_series(1, 200) as n")
    world.follow()
    world.sql("truncate status cascade")
    with pytest.raises(LoadIncomplete, match="gone at the source"):
        world.follow()
    assert len(world.current()) == 200
    ingest(world.settings, world.endpoints, run_id="accept", sources=("oltp",), full=True, accept_deletes=True)
    world.add("z")
    assert world.follow().landed == {"oltp": 1}
    assert world.current() == {"z": "a status"}


def test_more_rows_than_are_read_by_key_are_compared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "MAX_KEYS", 20)
    world.add("a")
    world.follow()
    world.sql("insert into status select 'n' || n, 'many', true, now() from generate_series(1, 50) as n")
    assert world.follow().landed == {"oltp": 50}
    modes = world.rows(
        "select mode, landed_rows from raw_ops.load_manifest where table_name = 'status' order by started_at"
    )
    assert modes == [("compare", 1), ("compare", 50)]


def test_changes_come_in_batches_and_a_transaction_is_not_parted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "MAX_CHANGES", 3)
    world.add("a")
    world.follow()
    world.sql(*(f"insert into status values ('t{n}', '', true, now())" for n in range(9)), together=True)
    world.add("x", "y")
    assert [world.follow().landed["oltp"] for _ in range(3)] == [9, 1, 1]


def test_changes_while_nobody_follows_are_caught_up(world: World) -> None:
    world.add("a", "b")
    world.follow()
    world.sql("delete from status where status_code = 'a'")
    ingest(world.settings, world.endpoints, run_id="between", sources=("oltp",))
    before = world.token()
    world.add("c")
    assert world.follow().landed == {"oltp": 1}, "what a run between has landed is unchanged"
    assert world.token() != before
    assert world.current().keys() == {"b", "c"}


def test_an_idle_source_may_forget_its_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("a")
    world.follow()
    before = world.confirmed()
    world.sql("create table if not exists ballast (filling text)", "insert into ballast values ('others work')")
    monkeypatch.setattr(follow_module, "TOKEN_SECONDS", 0.0)
    assert world.follow().landed == {"oltp": 0}
    assert world.ask(f"select '{world.confirmed()}'::pg_lsn > '{before}'::pg_lsn")
    assert world.token() == world.confirmed()


def test_killed_between_the_load_and_its_confirmation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("a")
    world.follow()
    world.add("b")
    world.sql("delete from status where status_code = 'a'")
    with monkeypatch.context() as patch:
        patch.setattr(Changes, "confirm", _die)
        with pytest.raises(KeyboardInterrupt):
            follow(world.settings, world.endpoints, new_run_id=lambda: "killed", sources=("oltp",), max_batches=1)
    assert world.current().keys() == {"a"}, "killed before anything: the first confirmation is of the last load"
    monkeypatch.setattr(Changes, "confirm", _die_at_the_second_call())
    with pytest.raises(KeyboardInterrupt):
        world.follow()
    monkeypatch.undo()
    assert world.current().keys() == {"b"}, "landed and committed"
    assert world.token() != world.confirmed()
    world.add("c")
    assert world.follow().landed == {"oltp": 1}
    assert world.token() == world.confirmed()
    assert world.rows("select count(*) from raw_oltp.status") == [(3,)]
    assert world.differences() == 0


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def _die_at_the_second_call() -> Any:
    real, calls = Changes.confirm, iter(range(10))

    def confirm(self: Changes, token: str) -> None:
        if next(calls):
            raise KeyboardInterrupt
        real(self, token)

    return confirm


def test_a_load_that_fails_is_landed_by_the_next_follower(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("a")
    world.follow()
    before, confirmed = world.token(), world.confirmed()
    world.sql("delete from status where status_code = 'a'")
    with monkeypatch.context() as patch:
        patch.setattr("ingestion.destinations.choice.load_packages", _fail)
        with pytest.raises(LoadIncomplete, match="planted"):
            world.follow()
    assert (world.token(), world.confirmed()) == (before, confirmed), "nothing was confirmed that is not committed"
    assert world.follow().landed == {"oltp": 1}
    assert world.current() == {}


def _fail(*_: object, **__: object) -> None:
    raise LoadIncomplete("planted")


def _drop(world: World) -> None:
    world.sql(f"select pg_drop_replication_slot('{SLOT}')")


def _consume(world: World) -> None:
    """Another program has taken what was meant for us, as a second follower on the same slot would."""
    world.sql(f"select pg_replication_slot_advance('{SLOT}', pg_current_wal_flush_lsn())")


def _outgrow(world: World) -> None:
    """The source keeps no more than its limit for a follower that stays away."""
    limit_slots(world.endpoints, "'1MB'")
    try:
        for _ in range(4):
            world.sql(
                "create table if not exists ballast (filling text)",
                "insert into ballast select repeat(md5(n::text), 100) from generate_series(1, 5000) as n",
                "select pg_switch_wal()",
                "checkpoint",
            )
        status = world.ask(f"select wal_status from pg_replication_slots where slot_name = '{SLOT}'")
        assert status == "lost"
    finally:
        limit_slots(world.endpoints, "'1GB'")
        world.sql("drop table ballast")


@pytest.mark.parametrize("lose", [_drop, _consume, _outgrow])
def test_a_lost_slot_fails_loudly_and_full_starts_anew(world: World, lose: Any) -> None:
    world.add("a", "b")
    world.follow()
    world.sql("delete from status where status_code = 'a'")
    lose(world)
    with pytest.raises(LoadIncomplete, match="changes since the last batch are lost") as caught:
        world.follow()
    assert "--full" in caught.value.todo
    assert world.current().keys() == {"a", "b"}
    assert world.follow(full=True).landed == {"oltp": 1}
    assert world.current().keys() == {"b"}
    world.add("c")
    assert world.follow().landed == {"oltp": 1}


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        pytest.param(["drop publication payments_warehouse"], "has no publication", id="no publication"),
        pytest.param(
            ["alter publication payments_warehouse set (publish = 'insert')"], "of inserts, updates", id="no deletes"
        ),
        pytest.param(
            ["alter publication payments_warehouse drop table device"], "does not hold device", id="table left out"
        ),
        pytest.param(
            ["alter table status replica identity nothing"], "replica identity of status", id="identity nothing"
        ),
        pytest.param(
            ["alter publication payments_warehouse set table status where (is_final)"],
            "does not hold currency",
            id="rows left out",
        ),
    ],
)
def test_a_source_that_would_not_tell_all_is_refused(world: World, statements: list[str], says: str) -> None:
    world.sql(*statements)
    with pytest.raises(ConfigurationError, match=says) as caught:
        world.follow()
    assert caught.value.todo
    assert world.ask(f"select count(*) from pg_replication_slots where slot_name = '{SLOT}'") == 0


def test_an_account_without_the_right_is_told_what_it_needs(world: World) -> None:
    world.sql("alter role warehouse_reader noreplication")
    try:
        with pytest.raises(ConfigurationError, match="replication slot") as caught:
            world.follow()
    finally:
        world.sql("alter role warehouse_reader replication")
    assert "REPLICATION" in caught.value.todo


def test_another_programs_slot_is_not_taken(world: World) -> None:
    world.sql(f"select pg_create_physical_replication_slot('{SLOT}')")
    with pytest.raises(ConfigurationError, match="another program's") as caught:
        world.follow()
    assert "POSTGRES_SLOT" in caught.value.todo


def test_a_slot_is_judged_by_what_the_source_keeps_for_it() -> None:
    megabyte = 2**20
    assert SlotHealth("reserved", megabyte, 100 * megabyte).alert() is None
    for told in (SlotHealth("reserved", megabyte, None), SlotHealth("extended", 60 * megabyte, 100 * megabyte)):
        assert told.alert() is not None
    assert SlotHealth("unreserved", megabyte, 100 * megabyte).alert() is not None
    assert "--full" in (SlotHealth("lost", 0, 100 * megabyte).alert() or "")


def test_a_slot_without_a_limit_is_an_alert(world: World) -> None:
    limit_slots(world.endpoints, "-1")
    try:
        world.add("a")
        world.follow()
        world.add("b")
        world.follow()
    finally:
        limit_slots(world.endpoints, "'1GB'")
    assert any("max_slot_wal_keep_size" in line for line in world.lines)


def test_the_doctor_tells_of_a_slot_that_nobody_reads(world: World) -> None:
    named = world.settings.model_copy(
        update={
            "postgres_uri": world.endpoints.postgres_uri,
            "mongodb_uri": "mongodb://127.0.0.1:1/none",
            "kafka_bootstrap": "127.0.0.1:1",
        }
    )

    def told() -> list[tuple[str, str]]:
        findings = doctor(named, server_statuses=lambda settings: ())
        return [(finding.severity, finding.what) for finding in findings if "log" in finding.what]

    assert told() == [], "nobody has ever followed"
    world.add("a")
    world.follow()
    assert [severity for severity, _ in told()] == ["ok"]
    limit_slots(world.endpoints, "-1")
    try:
        assert [severity for severity, _ in told()] == ["warning"]
    finally:
        limit_slots(world.endpoints, "'1GB'")


def test_a_batch_keeps_no_keys_of_a_table_that_is_compared() -> None:
    batch = Batch()
    batch.add(Change("status", (("a",),)))
    batch.add(Change("status", whole=True))
    batch.add(Change("status", (("b",),)))
    assert (batch.changed, batch.whole, len(batch)) == ({}, {"status"}, 1)


def test_the_log_carries_keys_and_nothing_else(world: World) -> None:
    """The publication names the keys' columns: personal values do not leave PostgreSQL this way at all."""
    world.add("a")
    world.follow()
    world.sql("insert into location values ('L1', 'DE', null, 'Berlin', '10115', 52.5, 13.4, now())")
    with psycopg.connect(str(world.endpoints.postgres_admin_uri)) as connection:
        told = connection.execute(
            "select string_agg(encode(data, 'escape'), '') from pg_logical_slot_peek_binary_changes("
            f"'{SLOT}', null, null, 'proto_version', '1', 'publication_names', 'payments_warehouse')"
        ).fetchone()
    assert told is not None
    assert "L1" in told[0]
    assert "10115" not in told[0]
    assert world.follow().landed == {"oltp": 1}
