"""Messages of several partitions, as a broker interleaves them, become rows without losing their place or order."""

from __future__ import annotations

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from ingestion.sources.stream.reader import _arrow, _by_place


def message(topic: str, partition: int, offset: int, value: bytes | None = b"{}") -> Message:
    return Message(
        topic=topic,
        partition=partition,
        offset=offset,
        key=b"k",
        value=value,
        timestamp=(1, 1_700_000_000_000 + offset),
    )


def test_messages_are_parted_by_place_in_their_order() -> None:
    delivered = [("a", 0, 5), ("a", 1, 2), ("a", 0, 6), ("b", 0, 9), ("a", 1, 3)]
    found = _by_place([message(*each) for each in delivered])
    assert {place: [each.offset() for each in messages] for place, messages in found.items()} == {
        ("a", 0): [5, 6],
        ("a", 1): [2, 3],
        ("b", 0): [9],
    }


def test_every_row_says_where_its_message_stood() -> None:
    rows = _arrow(("b", 7), [message("b", 7, 3), message("b", 7, 4, None), message("b", 7, 5, b"\xff")]).to_pylist()
    assert [(row["kafka_topic"], row["kafka_partition"], row["kafka_offset"]) for row in rows] == [
        ("b", 7, 3),
        ("b", 7, 4),
        ("b", 7, 5),
    ]
    assert [(row["doc"], row["problem"]) for row in rows] == [("{}", None), (None, None), (None, "not UTF-8")]


def test_a_message_without_a_timestamp_has_none() -> None:
    bare = Message(topic="a", partition=0, offset=1, timestamp=(TIMESTAMP_NOT_AVAILABLE, 0))
    assert _arrow(("a", 0), [bare]).to_pylist()[0]["produced_at"] is None
