"""Kafka → lake, beside a drained `consume`. `BENCH_EVENTS` sets the number of messages."""

from __future__ import annotations

import json
import os
import time
from decimal import Decimal

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # no __all__

from benchmarks.harness import Case, Outcome, Row, interleaved, paired
from benchmarks.landing_case import Home, embedded, land
from ingestion.schema import tables
from ingestion.sources.stream import StreamReader

EVENTS = int(os.environ.get("BENCH_EVENTS", "200000"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))
PARTITIONS = 4
TABLE = tables("stream")["payments_transactions"]


def measure() -> list[Row]:
    """Fill an embedded broker and time both ways, interleaved."""
    with embedded() as (home, endpoints):
        total = fill(str(endpoints.kafka_bootstrap))
        cases: dict[str, Case] = {
            "drained": (drained, (str(endpoints.kafka_bootstrap),)),
            "landed": (landed, (home,)),
        }
        found = interleaved(cases, (EVENTS, total), REPEATS)
    ours, drain = found["landed"], found["drained"]
    ratio = paired(ours, drain)
    return [
        Row(
            "Kafka → sealed lake",
            f"{ours.seconds:.2f} s, {ours.rate / 1000:,.0f}k events/s",
            f"drained consume ({drain.seconds:.2f} s, {drain.rate / 1000:,.0f}k events/s)",
            ratio,
            "≥ 0.5",
            ratio >= 0.5,
            ours.peak_mb,
        )
    ]


def fill(bootstrap: str) -> Decimal:
    """Captures and authentications in equal parts; returns the sum of their amounts."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(TABLE.origin, PARTITIONS, 1)])[TABLE.origin].result()
    producer = Producer(
        {"bootstrap.servers": bootstrap, "log_level": 0, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000}
    )
    total = Decimal(0)
    for number in range(EVENTS):
        amount = Decimal(100 + number % 90_000) / 100
        total += amount
        three_ds = {"outcome": "frictionless", "eci": "05", "exemption": None}
        attributes: dict[str, object] = {"attempt_id": "A1", "three_ds": three_ds}
        if number % 2:
            attributes = {"capture_id": f"C{number}"}
        event: dict[str, object] = {
            "schema_version": 1,
            "event_id": f"E{number:09d}",
            "event_type": "payment.captured" if number % 2 else "payment.authenticated",
            "source_system": "oltp",
            "transaction_id": f"TXN{number // 2:08d}",
            "occurred_at": "2024-01-01T00:00:00Z",
            "amount": f"{amount:.2f}",
            "currency_code": "EUR",
            "reason": None,
            "actor": "system",
            "attributes": attributes,
        }
        producer.produce(TABLE.origin, json.dumps(event), f"TXN{number // 2:08d}")
        if number % 10_000 == 0:
            producer.poll(0)
    producer.flush(120)
    return total


def drained(bootstrap: str) -> Outcome:
    """Every message received, none looked at."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "drain",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "log_level": 0,
        }
    )
    started = time.perf_counter()
    places = [TopicPartition(TABLE.origin, number, 0) for number in range(PARTITIONS)]
    expected = sum(consumer.get_watermark_offsets(place)[1] for place in places)
    consumer.assign(places)
    rows = 0
    while rows < expected:
        rows += len(consumer.consume(min(10_000, expected - rows), timeout=10))
    seconds = time.perf_counter() - started
    consumer.close()
    return Outcome(seconds, rows)


def landed(home: Home) -> Outcome:
    """Our way, up to the seal."""
    settings = home.settings()
    return land(settings, TABLE, lambda found, at: StreamReader(found, settings, str(at.kafka_bootstrap)))
