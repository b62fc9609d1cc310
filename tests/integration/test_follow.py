"""`ingest --follow`: changes land in micro-batches, it stops cleanly, goes on where it was, loses nothing silently."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pymongo import MongoClient
from pymongo.database import Database

from ingestion import follow as follow_module
from ingestion.follow import STATE, FollowReport, follow
from ingestion.load import read_state
from ingestion.run import ingest
from ingestion.schema import SourceName, tables
from ingestion.sources.mongodb import Changes
from tests.conftest import MakeSettings
from warehouse import servers
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import ConfigurationError, LoadIncomplete, SchemaDrift
from warehouse.core.locks import writer_lock
from warehouse.core.settings import Settings

TOPIC = "payments.transactions"
PATIENCE = 60.0


class World:
    """Both servers, empty collections and topic, an empty warehouse."""

    def __init__(self, settings: Settings, endpoints: Endpoints, database: Database[dict[str, Any]]) -> None:
        self.settings = settings
        self.endpoints = endpoints
        self.database = database
        self._producer = Producer({"bootstrap.servers": endpoints.kafka_bootstrap, "log_level": 0})
        self.lines: list[str] = []

    def produce(self, *names: str) -> None:
        for name in names:
            self._producer.produce(TOPIC, json.dumps({"event_id": name}), "TXN1", partition=0)
        assert self._producer.flush(30) == 0

    def follow(self, *sources: SourceName, batches: int | None = 1, **options: Any) -> FollowReport:
        return follow(
            self.settings,
            self.endpoints,
            new_run_id=lambda: "test",
            sources=sources or ("mongodb",),
            max_batches=batches,
            progress=self.lines.append,
            **options,
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with open_warehouse(self.settings, read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def batches(self) -> list[str]:
        """What was told, without alerts: an event of these tests is of no known type."""
        return [line for line in self.lines if ": batch " in line]

    def current(self) -> dict[str, str]:
        return dict(
            self.rows("select _id, document ->> 'status' from raw_mongodb.transactions where _deleted_at is null")
        )

    def state(self, source: SourceName = "mongodb") -> dict[str, Any]:
        with open_warehouse(self.settings) as connection:
            return read_state(connection, self.settings, source)


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Endpoints]:
    settings = make_settings(tmp_path_factory.mktemp("followed"))
    try:
        yield servers.up(settings)
    except servers.ServerMissing as error:
        pytest.skip(error.what)
    finally:
        servers.down(settings)


@pytest.fixture
def world(
    endpoints: Endpoints, tmp_path: Any, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setattr(follow_module, "INTERVAL_SECONDS", 0.2)
    admin = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap, "log_level": 0})
    if TOPIC in admin.list_topics(timeout=10).topics:
        admin.delete_topics([TOPIC])[TOPIC].result()
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result()
    with MongoClient[dict[str, Any]](endpoints.mongodb_admin_uri) as client:
        client.drop_database("stripe_nosql")
        database = client["stripe_nosql"]
        for table in tables("mongodb").values():
            database.create_collection(table.origin)
        yield World(make_settings(tmp_path / "home"), endpoints, database)


def payment(identifier: Any, status: str = "approved") -> dict[str, Any]:
    return {"_id": identifier, "transaction_id": f"TX{identifier}", "status": status}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_insert_update_replace_and_delete_land(world: World) -> None:
    collection = world.database.Transactions
    collection.insert_many([payment(number) for number in range(5)])
    assert world.follow().landed == {"mongodb": 5}
    collection.insert_one(payment(5))
    collection.update_one({"_id": 1}, {"$set": {"status": "review"}})
    collection.replace_one({"_id": 2}, payment(2, "fraudulent"))
    collection.delete_one({"_id": 3})
    assert world.follow().landed == {"mongodb": 4}
    assert world.current() == {
        "0": "approved", "1": "review", "2": "fraudulent", "4": "approved", "5": "approved",
    }  # fmt: skip
    closed = "select count(*) from raw_mongodb.transactions_history where _id = '3' and _deleted_at is not null"
    assert world.rows(closed) == [(1,)]
    manifest = world.rows("select mode, source_rows, landed_rows, deleted_rows from raw_ops.load_manifest "
                          "where mode = 'changes'")  # fmt: skip
    assert manifest == [("changes", 3, 3, 1)]
    assert ingest(world.settings, world.endpoints, run_id="compare", sources=("mongodb",)).landed_rows == 0


def test_changes_while_nobody_follows_are_caught_up(world: World) -> None:
    world.database.Transactions.insert_many([payment(1), payment(2)])
    world.follow()
    world.database.Transactions.delete_one({"_id": 1})
    world.database.Transactions.insert_one(payment(1, "review"))
    world.database.Transactions.delete_one({"_id": 2})
    ingest(world.settings, world.endpoints, run_id="between", sources=("mongodb",))
    assert STATE in world.state(), "an ordinary run keeps the token"
    world.database.Transactions.insert_one(payment(3))
    assert world.follow().landed == {"mongodb": 1}, "what a run between has landed is unchanged"
    assert world.current() == {"1": "review", "3": "approved"}


def test_a_batch_that_fails_is_landed_by_the_next_follower(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.database.Transactions.insert_one(payment(1))
    world.follow()
    before = world.state()
    world.database.Transactions.insert_one(payment(2))
    with monkeypatch.context() as patch:
        patch.setattr("ingestion.destinations.choice.load_packages", _fail)
        with pytest.raises(LoadIncomplete, match="planted"):
            world.follow()
    assert world.state() == before
    assert world.follow().landed == {"mongodb": 1}
    assert world.current().keys() == {"1", "2"}


def _fail(*_: object, **__: object) -> None:
    raise LoadIncomplete("planted")


def test_kafka_is_followed_in_batches_of_bounded_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "BATCH_MESSAGES", 2)
    world.produce("E1", "E2", "E3")
    assert world.follow("stream").landed == {"stream": 2}
    assert world.state("stream")["payments_transactions"]["offsets"] == {"0": 2}
    assert world.follow("stream").landed == {"stream": 1}
    assert world.rows("select count(*), max(kafka_offset) from raw_stream.payments_transactions") == [(3, 2)]


def test_both_are_followed_together_and_a_stop_ends_it(world: World) -> None:
    stop = threading.Event()
    reports: list[FollowReport] = []
    world.produce("E1")
    thread = threading.Thread(
        target=lambda: reports.append(world.follow("mongodb", "stream", batches=None, stop=stop)), daemon=True
    )
    thread.start()
    wait_until(lambda: len(world.batches()) >= 2)
    world.database.Transactions.insert_one(payment(1))
    wait_until(lambda: len(world.batches()) >= 3)
    world.produce("E2")
    wait_until(lambda: len(world.batches()) >= 4)
    stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert reports[0].landed == {"mongodb": 1, "stream": 2}
    assert world.batches()[2].startswith("mongodb: batch 3: 1 new, 0 deleted, 0 quarantined")


def test_a_refresh_runs_in_between_and_following_waits_for_it(world: World) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=lambda: world.follow(batches=None, stop=stop), daemon=True)
    with writer_lock(world.settings, "refresh"):
        thread.start()
        wait_until(lambda: bool(world.lines))
        assert "waiting" in world.lines[0] and "refresh" in world.lines[0]
    wait_until(lambda: len(world.lines) >= 2)
    with writer_lock(world.settings, "refresh"):
        world.database.Transactions.insert_one(payment(1))
    wait_until(lambda: "1 new" in world.lines[-1])
    stop.set()
    thread.join(PATIENCE)
    assert world.current() == {"1": "approved"}


def test_a_lost_token_fails_loudly_and_full_starts_anew(world: World) -> None:
    """The log rolls over while nobody follows: what it held of us is gone, and only a comparison tells."""
    world.database.Transactions.insert_many([payment(1), payment(2)])
    world.follow()
    world.database.Transactions.delete_one({"_id": 1})
    ballast = world.database.client["elsewhere"]["ballast"]
    local = world.database.client["local"]["oplog.rs"]
    first = local.find_one(sort=[("$natural", 1)])
    assert first is not None
    deadline = time.monotonic() + PATIENCE
    token = world.state()[STATE]["token"]
    while _resumes(world, token):
        assert time.monotonic() < deadline, "the log does not roll over"
        ballast.insert_many([{"filling": os.urandom(2**20) * 8} for _ in range(4)])
        ballast.drop()
    with pytest.raises(LoadIncomplete, match="no longer holds the changes") as caught:
        world.follow()
    assert "--full" in caught.value.todo
    assert world.current().keys() == {"1", "2"}
    assert world.follow(full=True).landed == {"mongodb": 1}
    assert world.current().keys() == {"2"}
    world.database.Transactions.insert_one(payment(3))
    assert world.follow().landed == {"mongodb": 1}


def _resumes(world: World, token: Any) -> bool:
    try:
        with Changes(str(world.endpoints.mongodb_uri), list(tables("mongodb").values()), token) as changes:
            changes.gather(0)
    except LoadIncomplete:
        return False
    return True


def test_a_dropped_collection_fails_loudly(world: World) -> None:
    world.database.Transactions.insert_one(payment(1))
    world.follow()
    world.database.Transactions.drop()
    with pytest.raises(SchemaDrift, match="was dropped or renamed"):
        world.follow()
    assert world.current() == {"1": "approved"}


def test_files_cannot_be_followed(world: World) -> None:
    with pytest.raises(ConfigurationError, match="cannot be followed"):
        world.follow("files")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_batch_in_hand(world: World, number: signal.Signals) -> None:
    world.database.Transactions.insert_one(payment(1))
    key = world.settings.dbt_env_secret_warehouse_key
    assert key is not None
    environment = os.environ | {
        "WAREHOUSE_HOME": str(world.settings.warehouse_home),
        "DBT_ENV_SECRET_WAREHOUSE_KEY": key.get_secret_value(),
        "MONGODB_URI": str(world.endpoints.mongodb_uri),
        "KAFKA_BOOTSTRAP": str(world.endpoints.kafka_bootstrap),
        "POSTGRES_URI": "postgresql://nobody@127.0.0.1:1/none",
    }
    code = "from warehouse.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "ingest", "mongodb", "--follow"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert any("batch 1: 1 new" in line for line in process.stderr), process.stderr.read()
        process.send_signal(number)
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert "1 of mongodb" in out
    finally:
        process.kill()
        process.wait()
    assert world.current() == {"1": "approved"}
    with writer_lock(world.settings, "test"):
        pass
