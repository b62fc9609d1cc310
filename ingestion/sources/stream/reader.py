"""Kafka, in bounded batches: from the committed offsets to the high watermarks seen at the start.

Offsets are ours, stored with the load they belong to; the broker's consumer groups are not used, so a crash can
neither skip nor repeat a committed message.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaException, Message, TopicPartition

from ingestion.schema import Table
from ingestion.sources import Plan
from warehouse.core.errors import LoadIncomplete, SchemaDrift, SourceUnavailable
from warehouse.core.kafka import client_config
from warehouse.core.settings import Settings

CHUNK_MESSAGES = 100_000
_BATCH = 10_000
_TIMEOUT = 10.0
_VIEW = "stream_chunk"
_SCHEMA = pa.schema(
    [
        ("kafka_topic", pa.string()),
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
        ("produced_at", pa.timestamp("us", tz="UTC")),
        ("message_key", pa.string()),
        ("doc", pa.string()),
        ("problem", pa.string()),
    ]
)


class StreamReader:
    """Reads topics partition by partition."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: Settings, bootstrap: str) -> None:
        self.connection = connection
        self.settings = settings
        self._config = consumer_config(settings, bootstrap)
        self._positions: dict[str, dict[str, int]] = {}

    def __enter__(self) -> StreamReader:
        self._consumer = Consumer(self._config)
        try:
            self.topics = self._consumer.list_topics(timeout=_TIMEOUT).topics
        except KafkaException as error:
            self._consumer.close()
            raise SourceUnavailable(
                f"Kafka does not answer ({error.args[0].name()})",
                kept="everything landed before; the published warehouse stays readable",
                todo="start it (`warehouse sources up` for the embedded one) or correct KAFKA_BOOTSTRAP",
            ) from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._consumer.close()

    def check_shape(self, tables: list[Table]) -> list[str]:
        """Every pinned topic must exist."""
        missing = [table.origin for table in tables if table.origin not in self.topics]
        if missing:
            raise SchemaDrift(
                f"Kafka has no topic {', '.join(missing)}",
                kept="everything landed before",
                todo="create the topic (empty is fine) or take it out of ingestion/sources/stream/schema.yml",
            )
        return []

    def plan(self, table: Table, state: dict[str, Any], *, full: bool) -> Plan:
        """Fix, per partition, where to start and where to stop. A gap left by retention fails loudly."""
        committed: dict[str, int] = {} if full else dict(state.get("offsets", {}))
        start, stop = {}, {}
        for partition in sorted(self.topics[table.origin].partitions):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(table.origin, partition), timeout=_TIMEOUT)
            position = committed.get(str(partition), low)
            if position < low and str(partition) in committed:
                raise LoadIncomplete(
                    f"Kafka dropped messages {position} to {low - 1} of {table.origin} partition {partition} unread",
                    kept="everything landed before",
                    todo="recover them elsewhere; `warehouse ingest stream --full` goes on from what is left",
                )
            if position > high:
                raise LoadIncomplete(
                    f"{table.origin} partition {partition} ends at {high}, before the committed {position}: "
                    "the topic was made anew",
                    kept="everything landed before",
                    todo="`warehouse ingest stream --full` reads the new topic from its beginning",
                )
            start[str(partition)], stop[str(partition)] = max(position, low), high
        self._positions[table.name] = dict(start)
        rows = sum(stop[partition] - start[partition] for partition in start)
        return Plan(
            "offsets",
            source_rows=rows,
            cursor_from=_text(committed) or None,
            bounds={"start": start, "stop": stop},
        )

    def chunks(self, table: Table, plan: Plan) -> Iterator[str]:
        """Arrow relations of at most CHUNK_MESSAGES messages."""
        stop = plan.bounds["stop"]
        positions = self._positions[table.name]
        wanted = [TopicPartition(table.origin, int(p), offset) for p, offset in positions.items() if offset < stop[p]]
        if not wanted:
            return
        self._consumer.assign(wanted)
        pending: list[Message] = []
        while any(positions[partition] < stop[partition] for partition in positions):
            # asking for more than there is would wait out the timeout
            left = sum(stop[partition] - positions[partition] for partition in positions)
            messages = self._consumer.consume(min(_BATCH, left), timeout=_TIMEOUT)
            if not messages and self._only_markers_left(table.origin, positions, stop):
                break
            if not messages:
                raise SourceUnavailable(
                    f"Kafka stopped delivering {table.origin} before the end seen at the start",
                    kept="everything landed before; no offset was committed",
                    todo="check the broker, then run `warehouse ingest stream` again",
                )
            for message in messages:
                if (problem := message.error()) is not None:
                    raise SourceUnavailable(
                        f"Kafka reports {problem.name()} on {table.origin}",
                        kept="everything landed before; no offset was committed",
                        todo="check the broker, then run `warehouse ingest stream` again",
                    )
                partition, offset = str(message.partition()), message.offset()
                if offset is not None and offset < stop[partition]:
                    pending.append(message)
                    positions[partition] = offset + 1
            if len(pending) >= CHUNK_MESSAGES:
                yield self._relation(pending)
                pending = []
        self._consumer.unassign()
        if pending:
            yield self._relation(pending)

    def _only_markers_left(self, topic: str, positions: dict[str, int], stop: dict[str, int]) -> bool:
        """Markers of transactions and compacted messages have offsets but are never delivered."""
        for reached in self._consumer.position([TopicPartition(topic, int(partition)) for partition in positions]):
            partition = str(reached.partition)
            positions[partition] = max(positions[partition], min(reached.offset, stop[partition]))
        return all(positions[partition] >= stop[partition] for partition in positions)

    def advanced(self, table: Table, plan: Plan) -> dict[str, Any]:
        """The offsets after what was read."""
        return {"offsets": self._positions[table.name]}

    def _relation(self, messages: list[Message]) -> str:
        decoded = [_decode(message.value()) for message in messages]
        keys = [_decode(message.key())[0] for message in messages]
        table = pa.Table.from_arrays(
            [
                pa.array([message.topic() for message in messages], pa.string()),
                pa.array([message.partition() for message in messages], pa.int32()),
                pa.array([message.offset() for message in messages], pa.int64()),
                pa.array([_produced_at(message) for message in messages], pa.timestamp("us", tz="UTC")),
                pa.array(keys, pa.string()),
                pa.array([text for text, _ in decoded], pa.string()),
                pa.array([problem for _, problem in decoded], pa.string()),
            ],
            schema=_SCHEMA,
        )
        self.connection.register(_VIEW, table)
        # a value that is not JSON must not reach the boundary's JSON functions: their errors would print it
        return f"""
            select * replace (
                case when doc is null or json_valid(doc) then doc end as doc,
                case when doc is not null and not json_valid(doc) then 'not JSON' else problem end as problem
            ) from {_VIEW}
        """


def consumer_config(settings: Settings, bootstrap: str) -> dict[str, str | int | bool]:
    """A consumer that commits nothing and resets nothing: positions are ours."""
    return client_config(settings, bootstrap) | {
        "group.id": "payments-warehouse",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
    }


def _decode(value: bytes | str | None) -> tuple[str | None, str | None]:
    if value is None or isinstance(value, str):
        return value, None
    try:
        return value.decode("utf-8"), None
    except UnicodeDecodeError:
        return None, "not UTF-8"


def _produced_at(message: Message) -> datetime | None:
    kind, milliseconds = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _text(offsets: dict[str, int]) -> str:
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(offsets.items()))
