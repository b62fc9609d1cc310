"""Any interleaving of changes at the sources, crashes at any point and runs ends with warehouse = sources.

A table and a topic of a few rows, pinned for the test, on the real servers. A crash is an exception that nothing
catches, raised at one of the kill points; :mod:`tests.faults.test_kills` does the same with SIGKILL.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # no __all__
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import ingestion.load
import ingestion.raw
import ingestion.reconcile
import ingestion.run
from ingestion.reconcile import reconcile
from ingestion.run import ingest
from ingestion.schema import SourceName, Table, tables
from tests.faults.world import KILL_POINTS, World, at_point
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.settings import Settings

DATABASE = "tiny"
LAG = timedelta(seconds=60)
KEYS = st.integers(0, 7)
_examples = itertools.count(1)

# of the points of a run, those that a run with one small table comes by
POINTS = sorted(KILL_POINTS.keys() - {"mid-extract", "after the last row"})


class Crash(BaseException):
    """The process is gone: no `except Exception` sees it."""


def crash() -> None:
    raise Crash


def pinned(topic: str) -> dict[SourceName, dict[str, Table]]:
    """The table `product` and a topic of the example's own."""
    return {
        "oltp": {"product": tables("oltp")["product"]},
        "stream": {"payments_transactions": replace(tables("stream")["payments_transactions"], origin=topic)},
    }


class Interleavings(RuleBasedStateMachine):
    """The model is the source itself: nothing is compared with an expectation of ours."""

    template: ClassVar[Settings]
    endpoints: ClassVar[Endpoints]
    lag: ClassVar[timedelta] = LAG

    def __init__(self) -> None:
        super().__init__()
        number = next(_examples)
        self.folder = Path(tempfile.mkdtemp(prefix="interleaving-"))
        home = self.folder / "home"
        shutil.copytree(self.template.warehouse_home, home)
        self.settings = self.template.model_copy(
            update={"warehouse_home": home, "cursor_lag_seconds": int(self.lag.total_seconds())}
        )
        self.topic = f"tiny-{number}-{home.parent.name}"
        admin = AdminClient({"bootstrap.servers": self.endpoints.kafka_bootstrap})  # held until the topic is there
        admin.create_topics([NewTopic(self.topic, 2, 1)])[self.topic].result(30)
        self.producer = Producer({"bootstrap.servers": self.endpoints.kafka_bootstrap, "linger.ms": 0, "log_level": 0})
        self.source = psycopg.connect(str(self.endpoints.postgres_uri), autocommit=True)
        self.source.execute("truncate product")
        self.clock = datetime(2024, 1, 1, tzinfo=UTC)
        self.runs = 0
        self.patch = pytest.MonkeyPatch()
        chosen = pinned(self.topic)
        for module in (ingestion.run, ingestion.load, ingestion.reconcile):
            self.patch.setattr(module, "tables", chosen.__getitem__)

    # -- the sources change

    @rule(key=KEYS, price=st.integers(1, 10**6))
    def insert_or_update(self, key: int, price: int) -> None:
        """As applications do: with a newer time of change."""
        self.clock += timedelta(seconds=5)
        self._write(key, price, self.clock)

    @rule(key=KEYS, price=st.integers(1, 10**6), age=st.sampled_from([0, 1, 30, 59, 3600]))
    def change_with_an_older_time(self, key: int, price: int, age: int) -> None:
        """The same time as another row's, or one behind the cursor: within the lag or beyond it."""
        self._write(key, price, self.clock - timedelta(seconds=age))

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        self.source.execute("delete from product where product_id = %s", (f"p{key}",))

    @rule(partition=st.integers(0, 1), good=st.booleans(), copies=st.integers(1, 3))
    def produce(self, partition: int, good: bool, copies: int) -> None:
        event = json.dumps({"schema_version": 1, "event_id": "e", "event_type": "x", "amount": "1.10"})
        for _ in range(copies):
            self.producer.produce(self.topic, event.encode() if good else b"{poison", partition=partition)
        assert self.producer.flush(30) == 0

    # -- runs, whole or not

    @rule(by_cursor=st.booleans())
    def run(self, by_cursor: bool) -> None:
        self._ingest(by_cursor=by_cursor)
        self._assert_recent_changes_are_there()

    @rule(by_cursor=st.booleans(), point=st.sampled_from(POINTS))
    def crash_somewhere(self, by_cursor: bool, point: str) -> None:
        """Where the run has nothing to do it does not come by the point, and ends well."""
        with at_point(KILL_POINTS[point], crash), suppress(Crash):
            self._ingest(by_cursor=by_cursor)

    @precondition(lambda self: self.runs)
    @rule()
    def lose_dlts_folder(self) -> None:
        shutil.rmtree(self.settings.warehouse_home / "dlt", ignore_errors=True)

    @rule()
    def retry_the_quarantine(self) -> None:
        self._ingest(by_cursor=True, retry_quarantined=True)

    @invariant()
    def no_key_is_there_twice(self) -> None:
        with open_warehouse(self.settings, read_only=True) as connection:
            for table, key in (
                ("raw_oltp.product", "product_id"),
                ("raw_stream.payments_transactions", "(kafka_partition, kafka_offset)"),
            ):
                found = connection.execute(f"select count(*) = count(distinct {key}) from {table}").fetchone()
                assert found == (True,), table

    def teardown(self) -> None:
        """Whatever happened: after one run by cursor and one comparison, there is no difference."""
        try:
            self._ingest(by_cursor=True)
            self._ingest(by_cursor=True, full=True, accept_deletes=True)
            found = reconcile(self.settings, self.endpoints, sources=("oltp", "stream"))
            assert found.differences == 0, [table for table in found.tables if table.differences]
            self._assert_versions()
            assert self._ingest(by_cursor=False) == 0, "a run after a whole one lands nothing"
        finally:
            self.patch.undo()
            self.source.close()
            shutil.rmtree(self.folder)

    def _assert_recent_changes_are_there(self) -> None:
        """No cursor is ahead of the clock: what changed less than the lag before it must have been read."""
        recent = self.source.execute(
            "select product_id, unit_price from product where updated_at >= %s", (self.clock - LAG,)
        ).fetchall()
        with open_warehouse(self.settings, read_only=True) as connection:
            query = "select product_id, unit_price from raw_oltp.product where _deleted_at is null"
            landed = dict(connection.execute(query).fetchall())
        for key, price in recent:
            assert landed.get(key) == price, key

    def _assert_versions(self) -> None:
        """The history holds every current version, and none that is doubled."""
        with open_warehouse(self.settings, read_only=True) as connection:
            lost, doubled = connection.execute("""
                select
                    (select count(*) from raw_oltp.product as now
                        anti join raw_oltp.product_history as version
                            on now.product_id = version.product_id and now._row_hash = version._row_hash),
                    (select count(*) - count(distinct (product_id, _row_hash, _load_id)) from raw_oltp.product_history)
            """).fetchone() or (None, None)
        assert (lost, doubled) == (0, 0)

    def _write(self, key: int, price: int, at: datetime) -> None:
        self.source.execute(
            "insert into product values (%(id)s, 'm', 'n', 'c', %(price)s / 10000.0, 'EUR', true, now(), %(at)s)"
            " on conflict (product_id) do update"
            " set unit_price = excluded.unit_price, updated_at = excluded.updated_at",
            {"id": f"p{key}", "price": price, "at": at},
        )

    def _ingest(self, *, by_cursor: bool, **options: Any) -> int:
        self.runs += 1
        chosen = self.settings.model_copy(update={"compare_below_rows": 0 if by_cursor else 1000})
        run = f"run-{self.runs}"
        return ingest(chosen, self.endpoints, run_id=run, sources=("oltp", "stream"), **options).landed_rows


@contextmanager
def tiny_source(world: World, folder: Path) -> Iterator[type[Interleavings]]:
    """A database with one table, and a home that has nothing yet."""
    with world.postgres() as connection:
        connection.execute(f"create database {DATABASE}".encode())
    uri = str(world.endpoints.postgres_admin_uri).replace("/oltp_strip_project", f"/{DATABASE}")
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(
            "create table product (product_id text primary key, merchant_id text, product_name text, category text,"
            " unit_price numeric(18, 4), currency_code char(3), is_active boolean, created_at timestamptz,"
            " updated_at timestamptz)"
        )
    shutil.copytree(world.settings.warehouse_home / "keys", folder / "keys")
    shutil.copytree(world.settings.warehouse_home / "extensions", folder / "extensions")
    template = world.settings.model_copy(update={"warehouse_home": folder})
    with open_warehouse(template) as connection_:
        ingestion.raw.create_raw_tables(connection_)

    class Machine(Interleavings):
        pass

    Machine.template = template
    Machine.endpoints = replace(world.endpoints, postgres_uri=uri)
    try:
        yield Machine
    finally:
        with world.postgres() as connection:
            connection.execute(f"drop database {DATABASE} with (force)".encode())


def explore(world: World, folder: Path, examples: int, steps: int, lag: timedelta = LAG) -> None:
    with tiny_source(world, folder) as machine:
        machine.lag = lag
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                derandomize=examples < 10,
                phases=[Phase.generate],  # a failure is printed as it is: shrinking would run for an hour
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_any_interleaving_ends_with_the_warehouse_equal_to_its_sources(landed: World, tmp_path: Path) -> None:
    explore(landed, tmp_path / "home", examples=2, steps=10)


@pytest.mark.slow
def test_many_interleavings(landed: World, tmp_path: Path) -> None:
    explore(landed, tmp_path / "home", examples=40, steps=25)


@pytest.mark.slow
def test_a_cursor_without_a_lag_is_caught(landed: World, tmp_path: Path) -> None:
    """The test of the test: read without the lag, as naive loaders do, an interleaving loses a row."""
    with pytest.raises(AssertionError):
        explore(landed, tmp_path / "home", examples=60, steps=25, lag=timedelta(0))
