"""Kafka → lake, beside a drained `consume`. `BENCH_EVENTS` sets the number of messages.

The goal's path ends with the sealed files of the lake; what the whole landing takes, up to the rows in the warehouse,
is reported beside it. The embedded broker heeds no limit of a fetch: it answers with all that is unread in a partition,
and a consumer stalls on answers beyond 100 MB. So a partition gets at most 100,000 messages here, about 35 MB.
"""

from __future__ import annotations

import json
import os
from decimal import Decimal

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # no __all__

from benchmarks.harness import Case, Outcome, Row, Stopwatch, interleaved, paired
from benchmarks.landing_case import Home, embedded, ingested, land, without_landings
from ingestion.schema import tables
from ingestion.sources.stream import StreamReader
from warehouse import servers

EVENTS = int(os.environ.get("BENCH_EVENTS", "200000"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))
PARTITIONS = max(4, -(-EVENTS // 100_000))
TABLE = tables("stream")["payments_transactions"]


def measure() -> list[Row]:
    """Fill an embedded broker and time both ways, interleaved."""
    with embedded() as (home, endpoints):
        total = fill(str(endpoints.kafka_bootstrap))
        cases: dict[str, Case] = {
            "drained": (drained, (str(endpoints.kafka_bootstrap),)),
            "landed": (landed, (home,)),
            "whole": (whole, (home,)),
        }
        found = interleaved(cases, (EVENTS, total), REPEATS)
    ours, drain = found["landed"], found["drained"]
    ratio = paired(ours, drain)
    against = f"drained consume ({drain.told('events')})"
    return [
        Row("Kafka → sealed lake", ours.told("events"), against, ratio, "≥ 0.5", ratio >= 0.5, ours.peak_mb),
        Row(
            "Kafka → sealed lake → raw",
            found["whole"].told("events"),
            against,
            paired(found["whole"], drain),
            peak_mb=found["whole"].peak_mb,
        ),
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
    clock = Stopwatch()
    places = [TopicPartition(TABLE.origin, number, 0) for number in range(PARTITIONS)]
    expected = sum(consumer.get_watermark_offsets(place)[1] for place in places)
    consumer.assign(places)
    rows = 0
    while rows < expected:
        rows += len(consumer.consume(min(10_000, expected - rows), timeout=10))
    clock.stop()
    consumer.close()
    return clock.outcome(rows)


def landed(home: Home) -> Outcome:
    """Our way, up to the seal."""
    settings = home.settings()
    return land(settings, TABLE, lambda found, at: StreamReader(found, settings, str(at.kafka_bootstrap)))


def whole(home: Home) -> Outcome:
    """All of landing, where nothing has landed before."""
    settings = home.settings()
    without_landings(settings)
    return ingested(settings, servers.resolve(settings), TABLE)
