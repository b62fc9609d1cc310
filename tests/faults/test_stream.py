"""What a broker does to a consumer: rebalances, topics and partitions that come and go, messages that are no events.

Each test has a topic of its own, pinned in place of the real one, and a home that has read nothing yet.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # no __all__

import ingestion.load
import ingestion.reconcile
import ingestion.run
from ingestion.raw import create_raw_tables
from ingestion.reconcile import reconcile
from ingestion.run import SourceReport, ingest
from ingestion.schema import tables
from ingestion.sources.stream import reader as reader_module
from ingestion.sources.stream.reader import Topics
from tests.faults.naive import NaiveLoader, Row, shows
from tests.faults.world import World, at_point, event_text, messages
from warehouse.core.database import open_warehouse
from warehouse.core.errors import LoadIncomplete

_numbers = itertools.count(1)


@dataclass
class Stream:
    """A topic, and a warehouse that lands it."""

    world: World
    topic: str
    admin: AdminClient
    keys: set[bytes] = field(default_factory=set)

    @property
    def bootstrap(self) -> str:
        return str(self.world.endpoints.kafka_bootstrap)

    def make(self, partitions: int) -> None:
        self.admin.create_topics([NewTopic(self.topic, partitions, 1)])[self.topic].result(30)

    def make_anew(self, partitions: int = 1) -> None:
        self.admin.delete_topics([self.topic])[self.topic].result(30)
        self.make(partitions)

    def produce(
        self, count: int, *, partition: int = 0, name: str = "E", extra: Mapping[str, Any] | None = None
    ) -> None:
        event = {"schema_version": 1, "event_type": "payment.captured", "amount": "1.2500"} | dict(extra or {})
        self.produce_raw(
            *(json.dumps(event | {"event_id": f"{name}{n}"}).encode() for n in range(count)), partition=partition
        )

    def produce_raw(self, *values: bytes | None, partition: int = 0) -> None:
        # a producer of its own each time: one that is kept knows the partitions of its beginning
        producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})
        for value in values:
            producer.produce(self.topic, value, b"TXN1", partition=partition)
        assert producer.flush(30) == 0

    def ingest(self, **options: Any) -> SourceReport:
        run = f"stream-{next(_numbers)}"
        return ingest(self.world.settings, self.world.endpoints, run_id=run, sources=("stream",), **options).sources[0]

    def naive(self, **habits: Any) -> NaiveLoader:
        return self.world.naive_events(self.topic, **habits)

    def assert_whole(self, *, quarantined: int = 0) -> None:
        """Row count, distinct keys, amount sum and cursor, asked of the broker and of the warehouse."""
        there = list(messages(self.bootstrap, self.topic))
        amount = Decimal(0)
        ends: dict[str, int] = {}
        for message in there:
            with suppress(ValueError, TypeError):
                amount += Decimal(json.loads(message.value() or b"")["amount"])
            partition = str(message.partition())
            ends[partition] = max(ends.get(partition, 0), (message.offset() or 0) + 1)
        landed = self.world.row(
            "select count(*), count(distinct (kafka_topic, kafka_partition, kafka_offset)),"
            " coalesce(sum((document ->> 'amount')::decimal(18, 4)), 0) from raw_stream.payments_transactions"
            " where _deleted_at is null"
        )
        assert landed == (len(there) - quarantined, len(there) - quarantined, amount)
        offsets = self.world.state("stream")["payments_transactions"]["offsets"]
        assert {partition: offset for partition, offset in offsets.items() if offset} == ends
        found = reconcile(self.world.settings, self.world.endpoints, sources=("stream",))
        assert found.differences == 0, found.tables


@pytest.fixture
def stream(landed: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stream:
    home = tmp_path / "home"
    for folder in ("keys", "extensions"):
        shutil.copytree(landed.settings.warehouse_home / folder, home / folder)
    world = World(landed.settings.model_copy(update={"warehouse_home": home}), landed.endpoints)
    with open_warehouse(world.settings) as connection:
        create_raw_tables(connection)
    topic = f"own-{next(_numbers)}-{tmp_path.parent.name}"
    pinned = {"payments_transactions": replace(tables("stream")["payments_transactions"], origin=topic)}
    for module in (ingestion.run, ingestion.load, ingestion.reconcile):
        monkeypatch.setattr(module, "tables", lambda source: pinned if source == "stream" else tables(source))
    return Stream(
        world, topic, AdminClient({"bootstrap.servers": str(landed.endpoints.kafka_bootstrap), "log_level": 0})
    )


def member(stream: Stream, group: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": stream.bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([stream.topic])
    return consumer


def taken(consumer: Consumer, count: int) -> Iterator[Row]:
    left = count
    while left:
        found = consumer.consume(left, timeout=20)
        assert found, "the group was given nothing"
        left -= len(found)
        for message in found:
            yield f"{message.partition()}|{message.offset()}", message.offset(), message.value()


def test_a_rebalance_in_the_middle(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another member joins our group while we read, is given the partitions, commits to their ends, and leaves."""
    stream.make(4)
    for partition in range(4):
        stream.produce(100, partition=partition)
    monkeypatch.setattr(reader_module, "CHUNK_MESSAGES", 50)
    monkeypatch.setattr(reader_module, "_BATCH", 50)

    def join_and_leave() -> None:
        other = member(stream, "payments-warehouse")
        try:
            assert len(list(taken(other, 400))) == 400
            other.commit(asynchronous=False)
        finally:
            other.close()

    with at_point(("ingestion.landing", "TableLanding.add", "after", 2), join_and_leave):
        assert stream.ingest().total("landed_rows") == 400
    stream.assert_whole()
    stream.produce(3, partition=2)
    assert stream.ingest().total("landed_rows") == 3
    stream.assert_whole()

    naive = stream.naive()
    naive.rows = []
    first = member(stream, f"naive-{stream.topic}")
    naive.rows += [(key, event_text(value)) for key, _, value in taken(first, 200)]  # stored, and not yet committed
    second = member(stream, f"naive-{stream.topic}")
    try:
        for _ in range(60):  # the second joins; the first hears of it while it polls, and goes on from what it keeps
            for consumer in (first, second):
                naive.rows += [
                    (f"{each.partition()}|{each.offset()}", event_text(each.value()))
                    for each in consumer.consume(100, timeout=0.3)
                    if each.error() is None
                ]
            if second.assignment() and naive.harm.lost == 0:
                break
    finally:
        second.close()
        first.close()
    shows("consumer rebalance", naive)


def test_a_new_partition_and_a_tombstone(stream: Stream) -> None:
    stream.make(1)
    stream.produce(20)
    stream.ingest()
    fixed = stream.naive(known=[0], by_offset=True)
    parsed = stream.naive(convert=lambda value: str(json.loads(value)) and event_text(value), by_offset=True)
    stream.produce_raw(None, b'{"schema_version": 1, "event_type": "payment.captured", "amount": "3"}', None)
    stream.ingest()
    stream.assert_whole()
    tombstones = "select count(*) from raw_stream.payments_transactions where document is null"
    assert stream.world.row(tombstones) == (2,)
    parsed.run()
    shows("tombstone", parsed, at_least=2)

    stream.admin.create_partitions([NewPartitions(stream.topic, 2)])[stream.topic].result(30)
    stream.produce(15, partition=1)
    stream.ingest()
    stream.assert_whole()
    fixed.run()
    shows("new partition", fixed, at_least=15)


def test_a_poison_message_stops_nothing(stream: Stream) -> None:
    stream.make(1)
    stream.produce(5)
    stream.ingest()
    naive = stream.naive(
        by_offset=True,
        cursor_first=True,
        skips=False,
        convert=lambda value: str(json.loads(value)) and event_text(value),
    )
    stream.produce(3)
    stream.produce_raw(b"{poison")
    stream.produce(20, name="after")
    report = stream.ingest()
    assert (report.total("landed_rows"), report.total("quarantined_rows")) == (23, 1)
    assert [alert for alert in report.alerts if "1 of the 24 rows that were read are in quarantine" in alert]
    stream.assert_whole(quarantined=1)
    with pytest.raises(ValueError):  # json's own; the offsets of the page are committed
        naive.run()
    naive.run()
    shows("poison message", naive, at_least=20)


@pytest.mark.parametrize(("count", "fault"), [(4, "fewer"), (30, "more")])
def test_a_topic_made_anew(stream: Stream, count: int, fault: str) -> None:
    stream.make(1)
    stream.produce(10)
    stream.ingest()
    stream.assert_whole()
    naive = stream.naive(by_offset=True)
    stream.make_anew()
    stream.produce(count, name="N", extra={"amount": "2.0000"})
    before = stream.world.row(
        "select count(*), sum((document ->> 'amount')::decimal(18, 4)) from raw_stream.payments_transactions"
    )
    with pytest.raises(LoadIncomplete, match="the topic was made anew") as caught:
        stream.ingest()
    assert caught.value.kept and "--full" in caught.value.todo
    now = stream.world.row(
        "select count(*), sum((document ->> 'amount')::decimal(18, 4)) from raw_stream.payments_transactions"
    )
    assert now == before
    if fault == "more":
        naive.run()
        # under the same keys stand the old messages: those of the new topic that came before its offset are lost
        shows(
            "topic made anew, with more messages", naive, harm=replace(naive.harm, lost=naive.harm.wrong), at_least=10
        )
        assert stream.ingest(full=True).total("landed_rows") == count
        stream.assert_whole()
    else:
        naive.rows += reset_to_the_earliest(stream, naive.cursor + 1)
        shows("topic made anew, with fewer messages", naive, at_least=4)
        report = stream.ingest(full=True)
        assert (report.total("landed_rows"), report.total("deleted_rows")) == (count, 10 - count)
        stream.assert_whole()


def test_messages_that_retention_took(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.make(1)
    stream.produce(5)
    stream.ingest()
    stream.assert_whole()
    naive = stream.naive(by_offset=True)
    stream.produce(20, name="late")
    truth = [
        (f"0|{message.offset()}", message.offset(), message.value())
        for message in messages(stream.bootstrap, stream.topic)
    ]
    dropped_below = 15
    if not (really := really_dropped(stream, dropped_below)):
        # the embedded broker keeps everything: what it says of the beginning is changed, for both
        watermarks = Topics._watermarks
        monkeypatch.setattr(
            Topics, "_watermarks", lambda *of: (max(dropped_below, watermarks(*of)[0]), watermarks(*of)[1])
        )
    with pytest.raises(LoadIncomplete, match="dropped messages 5 to 14") as caught:
        stream.ingest()
    assert caught.value.kept and "--full" in caught.value.todo
    assert stream.world.row("select count(*) from raw_stream.payments_transactions") == (5,)
    stream.ingest(full=True)
    landed = stream.world.row("select count(*), max(kafka_offset) from raw_stream.payments_transactions")
    assert landed == (15, 24), "the gap is what the error said, and nothing else is missing"
    assert stream.world.state("stream")["payments_transactions"]["offsets"] == {"0": 25}
    assert reconcile(stream.world.settings, stream.world.endpoints, sources=("stream",)).differences == 0

    if really:
        naive.rows += reset_to_the_earliest(stream, naive.cursor + 1)
    else:
        naive.cursor = dropped_below - 1  # where such a consumer would go on
        naive.run()
    shows("messages dropped by retention", naive, harm=naive.against(truth), at_least=10)


def reset_to_the_earliest(stream: Stream, offset: int) -> list[tuple[str, str]]:
    """What a consumer of that setting is given when it asks for an offset that is not there."""
    consumer = Consumer(
        {
            "bootstrap.servers": stream.bootstrap,
            "group.id": "naive",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(stream.topic, 0, offset)])
        found = [each for each in consumer.consume(100, timeout=5) if each.error() is None]
        return [(f"{each.partition()}|{each.offset()}", event_text(each.value())) for each in found]
    finally:
        consumer.close()


def really_dropped(stream: Stream, below: int) -> bool:
    """Whether this broker deletes records when asked."""
    try:
        for future in stream.admin.delete_records([TopicPartition(stream.topic, 0, below)]).values():
            future.result(10)
    except KafkaException:
        return False
    return next(messages(stream.bootstrap, stream.topic)).offset() == below
