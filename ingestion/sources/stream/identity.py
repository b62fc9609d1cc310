"""Is this still the topic that was read? Offsets alone do not tell: a topic made anew soon has as many messages.

With the offsets, the state keeps a mark of the last message before each: when it was produced, and 32 bits of its
digest, too few to say anything about what it holds. Before reading on, the message is fetched and marked again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, Message, TopicPartition

Place = tuple[str, int]
"""Topic and partition."""
Mark = tuple[int, str]
"""Offset of a message, and what tells it from another one at that offset."""

_TIMEOUT = 5.0


def mark_of(message: Message) -> Mark:
    """The mark of a message that was read."""
    _, produced = message.timestamp()
    content = b"\0".join(_bytes(part) for part in (message.key(), message.value()))
    return int(message.offset() or 0), f"{produced}-{hashlib.sha256(content).hexdigest()[:8]}"


def changed(consumer: Consumer, kept: Mapping[Place, Mark]) -> list[Place]:
    """Partitions where another message stands at the offset of the mark.

    A message that is not there any more (retention, compaction) tells nothing.
    """
    now = _marks_at(consumer, {place: offset for place, (offset, _) in kept.items()})
    return sorted(place for place, mark in now.items() if mark[0] == kept[place][0] and mark != kept[place])


def _marks_at(consumer: Consumer, offsets: Mapping[Place, int]) -> dict[Place, Mark]:
    """The mark of the first message at or after each offset, of as many as come in time; ends without assignment."""
    found: dict[Place, Mark] = {}
    waiting = set(offsets)
    deadline = time.monotonic() + _TIMEOUT
    if waiting:
        consumer.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
    while waiting and (left := deadline - time.monotonic()) > 0:
        message = consumer.poll(left)
        if message is None:
            break
        place = (str(message.topic()), int(message.partition() or 0))
        if place in waiting:
            waiting.remove(place)
            if message.error() is None:
                found[place] = mark_of(message)
            consumer.incremental_unassign([TopicPartition(*place)])
    if offsets:
        consumer.unassign()
    return found


def _bytes(part: str | bytes | None) -> bytes:
    return part.encode() if isinstance(part, str) else part or b""
