"""What the source systems say: rows of PostgreSQL, documents of MongoDB, messages of Kafka, as they are read there."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from bson import Decimal128
from confluent_kafka import Consumer, TopicPartition
from psycopg.rows import dict_row
from pymongo import MongoClient

Row = dict[str, Any]

TOPIC = "payments.transactions"
TABLES = ("currency", "location", "merchant", "payment_method", "transaction")
COLLECTIONS = ("Transactions", "currency_exchange_rates")


@dataclass(frozen=True)
class Sources:
    """Everything the reports rest on.

    Attributes:
        tables: rows of PostgreSQL by table, with numbers as `Decimal`.
        documents: documents of MongoDB by collection.
        messages: values of the stream, with `_partition`, `_offset` and `_produced_at` beside their own keys.
        merchant_readings: rows of `merchant` as they were found before each later change, oldest first. PostgreSQL
            keeps only the last one: who wants to know what was true at a sale has to have looked.
    """

    tables: dict[str, list[Row]]
    documents: dict[str, list[Row]]
    messages: list[Row]
    merchant_readings: list[list[Row]] = field(default_factory=list)


def read_merchants(postgres_uri: str) -> list[Row]:
    """The merchants as they are now."""
    return _read_table(postgres_uri, "merchant")


def read(
    postgres_uri: str, mongodb_uri: str, kafka_bootstrap: str, merchant_readings: Iterable[list[Row]] = ()
) -> Sources:
    """Read all three systems whole."""
    tables = {name: _read_table(postgres_uri, name) for name in TABLES}
    with MongoClient[Row](mongodb_uri, tz_aware=True) as client:
        documents = {name: [_plain(found) for found in client["stripe_nosql"][name].find({})] for name in COLLECTIONS}
    return Sources(tables, documents, _read_topic(kafka_bootstrap), [*merchant_readings, tables["merchant"]])


def _read_table(uri: str, table: str) -> list[Row]:
    with psycopg.connect(uri, row_factory=dict_row, options="-c timezone=UTC") as connection:
        return connection.execute(f"select * from {table}".encode()).fetchall()


def _read_topic(bootstrap: str) -> list[Row]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "recompute", "enable.auto.commit": False})
    messages: list[Row] = []
    try:
        for partition in consumer.list_topics(TOPIC, timeout=20).topics[TOPIC].partitions:
            start, end = consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=20)
            consumer.assign([TopicPartition(TOPIC, partition, start)])
            position = start
            while position < end:
                # waits for so many messages or so long: neither may be much
                for message in consumer.consume(500, timeout=0.5):
                    assert message.error() is None
                    produced = dt.datetime.fromtimestamp(message.timestamp()[1] / 1000, dt.UTC)
                    value = json.loads(message.value() or b"")
                    place = {"_partition": partition, "_offset": message.offset(), "_produced_at": produced}
                    messages.append(value | place)
                    position = int(message.offset() or 0) + 1
    finally:
        consumer.close()
    return messages


def _plain(value: Any) -> Any:
    """A document with Decimal128 as Decimal."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.to_decimal() if isinstance(value, Decimal128) else value
