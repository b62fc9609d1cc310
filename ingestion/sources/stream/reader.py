"""Kafka, in bounded batches: from the committed offsets to the high watermarks seen at the start.

Offsets are ours, stored with the load they belong to; the broker's consumer groups are not used, so a crash can
neither skip nor repeat a committed message, and what other members of a group do is of no account. A partition that is
new, and a topic that is new and matches a pinned pattern (a name that begins with `^`), is read from its beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Self

import duckdb
import pyarrow as pa
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaException, Message, TopicPartition

from ingestion.lake import sql_text
from ingestion.schema import Table
from ingestion.sources import Plan
from ingestion.sources.ahead import ReadAhead
from ingestion.sources.stream.identity import Mark, Place, changed, mark_of
from warehouse.core.errors import LoadIncomplete, SchemaDrift, SourceUnavailable
from warehouse.core.kafka import client_config
from warehouse.core.settings import CATALOG, Settings

CHUNK_MESSAGES = 100_000
FIRST_MESSAGES = 25_000
"""The first chunk; each next one is twice as large. DuckDB has work while the rest is read."""
CHUNK_BYTES = 64 * 2**20
_BATCH = 10_000
"""Messages asked for at once, and rows of an Arrow batch: DuckDB gives each of its threads whole ones."""
_TIMEOUT = 10.0
_LARGEST_ANSWER = 2**31 - 1
_SILENCES = 9
"""So many time-outs in a row, then a broker that still answers has stopped delivering."""
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

Offsets = dict[tuple[str, int], int]
"""(topic, partition) → offset of the next message."""


class Topics:
    """What the broker has: topics, partitions, watermarks. A context manager."""

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self._config = consumer_config(settings, bootstrap)

    def __enter__(self) -> Self:
        self._consumer = Consumer(self._config)
        try:
            self.topics = self._consumer.list_topics(timeout=_TIMEOUT).topics
        except KafkaException as error:
            self._consumer.close()
            raise _unavailable(error) from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._consumer.close()

    def check_shape(self, tables: list[Table]) -> list[str]:
        """Every pinned topic must exist; a pattern may match nothing yet."""
        missing = [t.origin for t in tables if not t.origin.startswith("^") and t.origin not in self.topics]
        if missing:
            raise SchemaDrift(
                f"Kafka has no topic {', '.join(missing)}",
                kept="everything landed before",
                todo="create the topic (empty is fine) or take it out of ingestion/sources/stream/schema.yml",
            )
        return []

    def unread(self, table: Table, state: dict[str, Any]) -> int:
        """How many messages lie beyond the committed offsets, as far as the watermarks tell."""
        committed = offsets_of(table, state)
        waiting = 0
        for topic, partition in self._partitions(table, committed):
            low, high = self._watermarks(topic, partition)
            waiting += abs(high - committed.get((topic, partition), low))  # behind as well: the plan will refuse it
        return waiting

    def _partitions(self, table: Table, committed: Offsets) -> list[tuple[str, int]]:
        """Every partition of every topic of the table. Raises LoadIncomplete when one that was read is gone."""
        found = [
            (name, partition)
            for name, topic in self.topics.items()
            if (re.match(table.origin, name) if table.origin.startswith("^") else name == table.origin)
            for partition in topic.partitions
        ]
        if gone := sorted(committed.keys() - set(found)):
            topic, partition = gone[0]
            raise LoadIncomplete(
                f"{topic} partition {partition} is gone: the topic was removed, or made anew with fewer partitions",
                kept="everything landed before",
                todo="if it is meant, `warehouse ingest stream --full` reads what there is from its beginning",
            )
        return sorted(found)

    def _watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT)
        except KafkaException as error:
            raise _unavailable(error) from None
        return low, high


class StreamReader(Topics):
    """Reads topics partition by partition.

    Args:
        limit: at most so many offsets per partition and read; None for all there are.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, settings: Settings, bootstrap: str, *, limit: int | None = None
    ) -> None:
        super().__init__(settings, bootstrap)
        self.connection = connection
        self.limit = limit
        self._positions: dict[str, Offsets] = {}
        self._marks: dict[str, dict[tuple[str, int], Mark]] = {}

    def plan(self, table: Table, state: dict[str, Any], *, full: bool) -> Plan:
        """Fix, per partition, where to start and where to stop. A gap left by retention fails loudly."""
        committed: Offsets = {} if full else offsets_of(table, state)
        known = {} if full else _marks_of(table, state)
        start: Offsets = {}
        stop: Offsets = {}
        ends: Offsets = {}
        for topic, partition in self._partitions(table, committed):
            low, high = self._watermarks(topic, partition)
            position = committed.get((topic, partition), low)
            if position < low:
                raise LoadIncomplete(
                    f"Kafka dropped messages {position} to {low - 1} of {topic} partition {partition} unread",
                    kept="everything landed before",
                    todo="recover them elsewhere; `warehouse ingest stream --full` goes on from what is left",
                )
            if position > high:
                raise _made_anew(f"{topic} partition {partition} ends at {high}, before the committed {position}")
            if (mark := known.get((topic, partition))) is not None and not low <= mark[0] < high:
                del known[topic, partition]  # retention took the message: only the offset is left to go by
            start[topic, partition], ends[topic, partition] = position, high
            stop[topic, partition] = high if self.limit is None else min(high, position + self.limit)
        for topic, partition in self._changed(known):
            raise _made_anew(f"{topic} partition {partition} holds another message where the last one landed stood")
        self._positions[table.name] = dict(start)
        self._marks[table.name] = known
        return Plan(
            "offsets",
            source_rows=sum(stop[each] - start[each] for each in start),
            cursor_from=_text(table, committed) or None,
            bounds={"start": start, "stop": stop, "ends": ends},
        )

    def at(self, table: Table, positions: Sequence[str]) -> Plan:
        """Messages by partition and offset, those that retention has left."""
        there = self.plan(table, {}, full=True).bounds
        runs: list[tuple[tuple[str, int], int, int]] = []
        for each, offset in sorted(_place_of(position) for position in positions):
            if each not in there["start"] or not there["start"][each] <= offset < there["stop"][each]:
                continue
            if runs and runs[-1][0] == each and runs[-1][2] == offset:
                runs[-1] = (each, runs[-1][1], offset + 1)
            else:
                runs.append((each, offset, offset + 1))
        return Plan("retry", source_rows=sum(stop - start for _, start, stop in runs), bounds={"runs": runs})

    def chunks(self, table: Table, plan: Plan) -> Iterator[str]:
        """Arrow relations of at most CHUNK_MESSAGES messages, or about CHUNK_BYTES."""
        for each, start, stop in plan.bounds.get("runs", ()):
            self._positions[table.name] = {each: start}
            yield from self._relations(table, {each: stop})
        if "stop" in plan.bounds:
            yield from self._relations(table, plan.bounds["stop"])

    def _relations(self, table: Table, stop: Offsets) -> Iterator[str]:
        with ReadAhead(self._read(table, stop)) as read:
            for messages in read:
                self.connection.register(_VIEW, messages)
                yield f"select * from {_VIEW}"

    def beyond(self, table: Table, plan: Plan) -> str:
        """SQL: keys of landed messages that the topic, read from its beginning, cannot hold: it was made anew."""
        there = " or ".join(
            f"(kafka_topic = {sql_text(topic)} and kafka_partition = {partition} and kafka_offset < {end})"
            for (topic, partition), end in plan.bounds["ends"].items()
        )
        keys = ", ".join(table.key)
        return f"(select {keys} from {CATALOG}.{table.qualified} where not ({there or 'false'}))"

    def advanced(self, table: Table, plan: Plan) -> dict[str, Any]:
        """The offsets after what was read, and a mark of the last message before each."""
        return {
            "offsets": {_name(table, each): offset for each, offset in self._positions[table.name].items()},
            "last": {_name(table, each): list(mark) for each, mark in sorted(self._marks[table.name].items())},
        }

    def _changed(self, known: dict[tuple[str, int], Mark]) -> list[tuple[str, int]]:
        try:
            return changed(self._consumer, known)
        except KafkaException as error:
            raise _unavailable(error) from None

    def _read(self, table: Table, stop: Offsets) -> Iterator[pa.Table]:
        positions = self._positions[table.name]
        starts = [TopicPartition(*each, offset) for each, offset in positions.items() if offset < stop[each]]
        if not starts:
            return
        self._consumer.assign(starts)
        pending: list[pa.RecordBatch] = []
        last: dict[Place, Message] = {}
        size = 0
        enough, silences = FIRST_MESSAGES, 0
        while (left := sum(stop[each] - positions[each] for each in positions)) > 0:
            # asking for more than there is would wait out the timeout
            messages = self._consumer.consume(min(_BATCH, left), timeout=_TIMEOUT)
            if not messages and self._only_markers_left(positions, stop):
                break
            silences = 0 if messages else silences + 1
            if not messages and silences < _SILENCES and self._answers():
                continue
            if not messages:
                raise SourceUnavailable(
                    f"Kafka stopped delivering {table.origin} before the end seen at the start",
                    kept="everything landed before; no offset was committed",
                    todo="check the broker, then run `warehouse ingest stream` again",
                )
            for problem in filter(None, map(Message.error, messages)):
                raise SourceUnavailable(
                    f"Kafka reports {problem.name()} on {table.origin}",
                    kept="everything landed before; no offset was committed",
                    todo="check the broker, then run `warehouse ingest stream` again",
                )
            for each, found in _by_place(messages).items():
                while found and _offset(found[-1]) >= stop[each]:  # offsets only grow within a partition
                    found.pop()
                if found:
                    last[each] = found[-1]
                    positions[each] = _offset(found[-1]) + 1
                    pending.append(_arrow(each, found))
                    size += pending[-1].nbytes
            if sum(batch.num_rows for batch in pending) >= enough or size >= CHUNK_BYTES:
                yield pa.Table.from_batches(pending)
                pending, size = [], 0
                enough = min(2 * enough, CHUNK_MESSAGES)
        self._consumer.unassign()
        self._marks.setdefault(table.name, {}).update({each: mark_of(message) for each, message in last.items()})
        if pending:
            yield pa.Table.from_batches(pending)

    def _answers(self) -> bool:
        """Whether the broker is there: then it may be slow."""
        try:
            return bool(self._consumer.list_topics(timeout=_TIMEOUT).brokers)
        except KafkaException:
            return False

    def _only_markers_left(self, positions: Offsets, stop: Offsets) -> bool:
        """Markers of transactions and compacted messages have offsets but are never delivered."""
        for reached in self._consumer.position([TopicPartition(*each) for each in positions]):
            each = (reached.topic, reached.partition)
            positions[each] = max(positions[each], min(reached.offset, stop[each]))
        return all(positions[each] >= stop[each] for each in positions)


def consumer_config(settings: Settings, bootstrap: str) -> dict[str, str | int | bool]:
    """A consumer that commits nothing and resets nothing: positions are ours."""
    return client_config(settings, bootstrap) | {
        "group.id": "payments-warehouse",
        "enable.auto.commit": False,
        # the embedded broker answers with all that a partition holds, whatever is asked for; others keep to our 50 MB
        "receive.message.max.bytes": _LARGEST_ANSWER,
        "auto.offset.reset": "error",
    }


def offsets_of(table: Table, state: dict[str, Any]) -> Offsets:
    """The committed offsets, as a load's state holds them."""
    found: Offsets = {}
    for name, offset in state.get("offsets", {}).items():
        topic, _, partition = name.rpartition("/")
        found[topic or table.origin, int(partition)] = offset
    return found


def _marks_of(table: Table, state: dict[str, Any]) -> dict[tuple[str, int], Mark]:
    found: dict[tuple[str, int], Mark] = {}
    for name, (offset, digest) in state.get("last", {}).items():
        topic, _, partition = name.rpartition("/")
        found[topic or table.origin, int(partition)] = (offset, digest)
    return found


def _made_anew(what: str) -> LoadIncomplete:
    return LoadIncomplete(
        f"{what}: the topic was made anew",
        kept="everything landed before",
        todo="`warehouse ingest stream --full` reads the new topic from its beginning",
    )


def _name(table: Table, each: tuple[str, int]) -> str:
    """A partition in the state: its number, and its topic where the table is not of one topic."""
    topic, partition = each
    return str(partition) if topic == table.origin else f"{topic}/{partition}"


def _place_of(position: str) -> tuple[tuple[str, int], int]:
    topic, partition, offset = position.rsplit("|", 2)
    return (topic, int(partition)), int(offset)


def _by_place(messages: list[Message]) -> dict[Place, list[Message]]:
    """Messages by partition, in their order there. Most often neighbours are of one."""
    places = zip(map(Message.topic, messages), map(Message.partition, messages), strict=True)
    found: dict[Place, list[Message]] = {}
    begin = 0
    for (topic, partition), run in groupby(places):
        if topic is None or partition is None:
            raise TypeError("a message without a place is an error")
        end = begin + sum(1 for _ in run)
        found.setdefault((topic, partition), []).extend(messages[begin:end])
        begin = end
    return found


def _offset(message: Message) -> int:
    offset = message.offset()
    if offset is None:
        raise TypeError("a message without a place is an error")
    return offset


def _arrow(place: Place, messages: list[Message]) -> pa.RecordBatch:
    """The rows of messages of one partition. Column by column: a method called through `map` costs a third of one
    called in a loop, and every call counts."""
    topic, partition = place
    docs, problems = _decoded(list(map(Message.value, messages)))
    keys, _ = _decoded(list(map(Message.key, messages)))
    moments = [None if kind == TIMESTAMP_NOT_AVAILABLE else at for kind, at in map(Message.timestamp, messages)]
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(pa.scalar(topic, pa.string()), len(messages)),
            pa.repeat(pa.scalar(partition, pa.int32()), len(messages)),
            pa.array(list(map(Message.offset, messages)), pa.int64()),
            pa.array(moments, pa.int64()).cast(pa.timestamp("ms", tz="UTC")).cast(pa.timestamp("us", tz="UTC")),
            keys,
            docs,
            problems,
        ],
        schema=_SCHEMA,
    )


def _decoded(values: list[bytes | str | None]) -> tuple[pa.Array, pa.Array]:
    """Texts, and what is wrong with those that are none: all at once where all are UTF-8, else one at a time."""
    try:
        return pa.array(values, pa.binary()).cast(pa.string()), pa.nulls(len(values), pa.string())
    except pa.ArrowInvalid:
        decoded = [_decode(value) for value in values]
        return pa.array([text for text, _ in decoded], pa.string()), pa.array([it for _, it in decoded], pa.string())


def _decode(value: bytes | str | None) -> tuple[str | None, str | None]:
    if value is None or isinstance(value, str):
        return value, None
    try:
        return value.decode("utf-8"), None
    except UnicodeDecodeError:
        return None, "not UTF-8"


def _unavailable(error: KafkaException) -> SourceUnavailable:
    return SourceUnavailable(
        f"Kafka does not answer ({error.args[0].name()})",
        kept="everything landed before; the published warehouse stays readable",
        todo="start it (`warehouse sources up` for the embedded one) or correct KAFKA_BOOTSTRAP",
    )


def _text(table: Table, offsets: Offsets) -> str:
    return ",".join(f"{_name(table, each)}:{offset}" for each, offset in sorted(offsets.items()))
