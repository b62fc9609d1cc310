"""Kafka: to the right offset, nothing skipped, nothing read twice, nothing lost silently."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from ingestion import run as run_module
from ingestion.run import SourceReport, ingest
from ingestion.schema import Table, tables
from ingestion.sources.stream import reader
from ingestion.sources.stream.reader import Topics
from tests.conftest import MakeSettings
from warehouse import servers
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import LoadIncomplete, SourceUnavailable
from warehouse.core.settings import Settings

TOPIC = "payments.transactions"


class Broker:
    """A broker of the test's own with an empty topic, and a warehouse beside it."""

    def __init__(self, settings: Settings, endpoints: Endpoints) -> None:
        self.settings = settings
        self.endpoints = endpoints
        self.admin = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap, "log_level": 0})
        self._producer = Producer({"bootstrap.servers": endpoints.kafka_bootstrap, "log_level": 0})

    def make(self, topic: str = TOPIC, partitions: int = 2) -> None:
        self.admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result()

    def remove(self, *topics: str) -> None:
        for future in self.admin.delete_topics(list(topics)).values():
            future.result()

    def produce(self, *values: bytes | None, topic: str = TOPIC, partition: int = 0, key: bytes = b"TXN1") -> None:
        for value in values:
            self._producer.produce(topic, value, key, partition=partition)
        assert self._producer.flush(30) == 0

    def ingest(self, **options: Any) -> SourceReport:
        return ingest(self.settings, self.endpoints, run_id="test", sources=("stream",), **options).sources[0]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with open_warehouse(self.settings, read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def landed(self) -> list[tuple[Any, ...]]:
        return self.rows(
            "select kafka_topic, kafka_partition, kafka_offset, document ->> 'event_id' "
            "from raw_stream.payments_transactions order by all"
        )


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Endpoints]:
    settings = make_settings(tmp_path_factory.mktemp("kafka"))
    try:
        yield servers.up(settings)
    except servers.ServerMissing as error:
        pytest.skip(error.what)
    finally:
        servers.down(settings)


@pytest.fixture
def broker(kafka: Endpoints, tmp_path: Any, make_settings: MakeSettings) -> Broker:
    """An empty topic of two partitions, an empty warehouse."""
    broker = Broker(make_settings(tmp_path / "home"), kafka)
    if old := [name for name in broker.admin.list_topics(timeout=10).topics if name.startswith("payments.")]:
        broker.remove(*old)
    broker.make()
    return broker


def event(name: str, **values: Any) -> bytes:
    return json.dumps({"schema_version": 1, "event_id": name, "event_type": "payment.captured", **values}).encode()


def test_a_single_unread_message_is_read(broker: Broker) -> None:
    broker.produce(event("E1"))
    assert broker.ingest().total("landed_rows") == 1
    assert broker.ingest().total("source_rows") == 0
    broker.produce(event("E2"), partition=1)
    assert broker.ingest().total("landed_rows") == 1
    assert broker.landed() == [(TOPIC, 0, 0, "E1"), (TOPIC, 1, 0, "E2")]


def test_what_arrives_while_reading_is_of_the_next_batch(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.produce(event("E1"))
    plan = run_module.StreamReader.plan

    def then_more(self: Any, table: Table, state: dict[str, Any], *, full: bool) -> Any:
        planned = plan(self, table, state, full=full)
        broker.produce(event("E2"))
        return planned

    with monkeypatch.context() as patch:
        patch.setattr(run_module.StreamReader, "plan", then_more)
        assert broker.ingest().total("landed_rows") == 1
    assert broker.ingest().total("landed_rows") == 1
    assert [row[3] for row in broker.landed()] == ["E1", "E2"]


def test_a_partition_of_more_than_a_hundred_megabytes_is_read(broker: Broker) -> None:
    """The embedded broker answers with all of it at once, which is more than a client takes unless it is told to."""
    broker.produce(*[b"x" * 900_000] * 120, event("E1"))
    report = broker.ingest()
    assert (report.total("source_rows"), report.total("quarantined_rows")) == (121, 120)
    assert [row[3] for row in broker.landed()] == ["E1"]


@pytest.mark.parametrize(("silences", "lands"), [(3, True), (100, False)])
def test_a_broker_that_answers_is_waited_for_and_not_for_ever(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, silences: int, lands: bool
) -> None:
    class Slow(Consumer):
        left = silences

        def consume(self, *arguments: Any, **named: Any) -> list[Any]:
            if Slow.left:
                Slow.left -= 1
                return []
            return super().consume(*arguments, **named)

    broker.produce(event("E1"))
    monkeypatch.setattr(reader, "Consumer", Slow)
    if lands:
        assert broker.ingest().total("landed_rows") == 1
    else:
        with pytest.raises(SourceUnavailable, match="stopped delivering"):
            broker.ingest()
        assert broker.landed() == []


def test_a_tombstone_lands_without_a_document(broker: Broker) -> None:
    broker.produce(event("E1"), None)
    assert broker.ingest().total("quarantined_rows") == 0
    assert broker.rows("select kafka_offset from raw_stream.payments_transactions where document is null") == [(1,)]


def test_unknown_types_and_versions_land_raw(broker: Broker) -> None:
    """They are counted by dbt (`ops_late_or_orphan_events.unknown_type_count`); undeclared keys here."""
    broker.produce(event("E1", event_type="payment.dreamt"), event("E2", schema_version=99, shadow="secret-shadow"))
    report = broker.ingest()
    assert (report.total("landed_rows"), report.total("unknown_keys")) == (2, 1)
    found = broker.rows("select document::varchar from raw_stream.payments_transactions order by kafka_offset")
    assert json.loads(found[0][0])["event_type"] == "payment.dreamt"
    assert "secret-shadow" not in found[1][0]


def test_poison_is_quarantined_with_reason_and_position(broker: Broker) -> None:
    poison = [
        b"\xff\xfe secret",
        b"secret, not JSON",
        b'{"event_id": "a\x00secret"}',
        b"secret" * 150_000,
        b'{"event_id": 1} secret',
        b'["secret"]',
    ]
    broker.produce(*poison, event("E1"), b'{"reason": "' + b"x" * 900_000 + b'"}', key=b"a\xff")
    report = broker.ingest()
    assert (report.total("source_rows"), report.total("landed_rows")) == (8, 2)
    found = broker.rows("select position, reason, payload::varchar from raw_ops.quarantine order by position")
    assert [row[0] for row in found] == [f"{TOPIC}|0|{offset}" for offset in range(6)]
    assert [row[1] for row in found] == ["not UTF-8", *["not JSON"] * 4, "not an object"]
    assert "secret" not in str(found)
    assert broker.ingest().total("quarantined_rows") == 0


def test_new_partitions_are_read_from_their_beginning(broker: Broker) -> None:
    broker.produce(event("E1"))
    broker.ingest()
    try:
        broker.admin.create_partitions([NewPartitions(TOPIC, 3)])[TOPIC].result()
    except Exception as error:  # noqa: BLE001  # whatever this broker says: it cannot
        pytest.skip(f"the embedded broker adds no partitions: {type(error).__name__}")
    fresh = Broker(broker.settings, broker.endpoints)  # a producer that does not know the old number of partitions
    fresh.produce(event("E2"), partition=2)
    assert broker.ingest().total("landed_rows") == 1
    assert broker.landed()[-1] == (TOPIC, 2, 0, "E2")


def test_new_topics_of_a_pattern_are_read_from_their_beginning(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    table = dataclasses.replace(tables("stream")["payments_transactions"], origin=r"^payments\.transactions(\.|$)")
    monkeypatch.setattr(run_module, "tables", lambda source: {"payments_transactions": table})
    broker.produce(event("E1"))
    assert broker.ingest().total("landed_rows") == 1
    broker.make("payments.transactions.eu", 1)
    broker.produce(event("E2"), topic="payments.transactions.eu")
    broker.make("payments.decisions", 1)
    broker.produce(event("E3"), topic="payments.decisions")
    assert broker.ingest().total("landed_rows") == 1
    assert broker.ingest().total("source_rows") == 0
    assert broker.landed() == [(TOPIC, 0, 0, "E1"), ("payments.transactions.eu", 0, 0, "E2")]


def test_other_members_of_the_group_do_not_matter(broker: Broker) -> None:
    """Another consumer takes the same group id, reads everything and commits: our offsets are ours."""
    broker.produce(*[event(f"E{number}") for number in range(5)])
    other = Consumer(
        {
            "bootstrap.servers": broker.endpoints.kafka_bootstrap,
            "group.id": "payments-warehouse",
            "log_level": 0,
            "auto.offset.reset": "earliest",
        }
    )
    other.subscribe([TOPIC])
    try:
        assert len(other.consume(5, timeout=20)) == 5
        other.commit(asynchronous=False)
        assert broker.ingest().total("landed_rows") == 5
        broker.produce(event("E5"))
        assert broker.ingest().total("landed_rows") == 1
    finally:
        other.close()


def test_messages_dropped_by_retention_fail_loudly(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.produce(event("E1"))
    broker.ingest()
    broker.produce(*[event(f"E{number}") for number in range(2, 6)])
    watermarks = Topics._watermarks
    # the embedded broker keeps everything: only what it says of the beginning is changed
    monkeypatch.setattr(Topics, "_watermarks", lambda *of: (max(3, watermarks(*of)[0]), max(3, watermarks(*of)[1])))
    with pytest.raises(LoadIncomplete, match="dropped messages 1 to 2") as caught:
        broker.ingest()
    assert "--full" in caught.value.todo
    assert len(broker.landed()) == 1


def test_a_topic_made_anew_fails_loudly(broker: Broker) -> None:
    broker.produce(event("E1"), event("E2"))
    broker.ingest()
    broker.remove(TOPIC)
    broker.make()
    broker.produce(event("N1"))
    with pytest.raises(LoadIncomplete, match="was made anew"):
        broker.ingest()
    assert [row[3] for row in broker.landed()] == ["E1", "E2"]
    assert broker.ingest(full=True).total("landed_rows") == 1


def test_a_partition_that_is_gone_fails_loudly(broker: Broker) -> None:
    broker.produce(event("E1"), partition=1)
    broker.ingest()
    broker.remove(TOPIC)
    broker.make(partitions=1)
    with pytest.raises(LoadIncomplete, match="partition 1 is gone"):
        broker.ingest()


def test_a_topic_made_anew_with_more_messages_fails_loudly(broker: Broker) -> None:
    """No offset tells: there are more messages than were read. The last one that landed is another one now."""
    broker.produce(event("E1"), event("E2"))
    broker.ingest()
    assert broker.ingest().total("source_rows") == 0
    broker.remove(TOPIC)
    broker.make()
    broker.produce(*[event(f"N{number}") for number in range(5)])
    with pytest.raises(LoadIncomplete, match=r"holds another message .* made anew") as caught:
        broker.ingest()
    assert "--full" in caught.value.todo
    assert [row[3] for row in broker.landed()] == ["E1", "E2"]
    assert broker.ingest(full=True).total("landed_rows") == 5
    assert broker.ingest().total("source_rows") == 0
