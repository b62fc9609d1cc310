"""Kafka: the topic `payments.transactions`, produced in batches with the event's own time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # no __all__

from warehouse.core.errors import SourceUnavailable

TOPIC = "payments.transactions"
PARTITIONS = 3
MAX_MESSAGE_BYTES = 1_000_000

Message = tuple[str, bytes, int]
"""Key, value, milliseconds since 1970."""

_POLL_EVERY = 10_000
_TIMEOUT_SECONDS = 60.0


class StreamStore:
    """One idempotent producer; `flush` raises when anything was lost."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,  # failures reach us as errors; librdkafka would print them too
                "linger.ms": 50,
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 131_072,
                "message.max.bytes": MAX_MESSAGE_BYTES,
            },
            on_delivery=self._delivered,
        )
        self._failed: KafkaError | None = None
        self._produced = 0

    @classmethod
    @contextmanager
    def open(cls, bootstrap: str) -> Iterator[StreamStore]:
        """Connect.

        Raises:
            SourceUnavailable: no broker answers.
        """
        store = cls(bootstrap)
        try:
            store._admin.list_topics(timeout=10)
        except KafkaException as error:
            raise _unavailable(error.args[0]) from None
        yield store

    @property
    def rows(self) -> dict[str, int]:
        """Messages produced by this store."""
        return {f"stream.{TOPIC}": self._produced} if self._produced else {}

    def rebuild(self) -> None:
        """Drop the topic with its messages and create it.

        Retention is unlimited: messages carry simulated times, which any limit would take for ancient.
        """
        if TOPIC in self._admin.list_topics(timeout=10).topics:
            self._admin.delete_topics([TOPIC], operation_timeout=30)[TOPIC].result()
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            topic = NewTopic(TOPIC, num_partitions=PARTITIONS, replication_factor=1, config={"retention.ms": "-1"})
            try:
                self._admin.create_topics([topic])[TOPIC].result()
            except KafkaException as error:
                # Deletion is asynchronous on most brokers: the name stays taken for a moment.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                    raise _unavailable(error.args[0]) from None
                time.sleep(0.2)
            else:
                return

    def is_filled(self) -> bool:
        """Whether the topic exists and holds something."""
        topic = self._admin.list_topics(timeout=10).topics.get(TOPIC)
        if topic is None or not topic.partitions:
            return False
        end = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # no types in the client
        latest = self._admin.list_offsets({TopicPartition(TOPIC, number): end for number in topic.partitions})
        return any(future.result().offset > 0 for future in latest.values())

    def produce(self, messages: Iterable[Message]) -> None:
        """Hand messages to the producer, in order per key."""
        produce, poll = self._producer.produce, self._producer.poll
        for number, (key, value, timestamp) in enumerate(messages, 1):
            while True:
                try:
                    produce(TOPIC, value, key, timestamp=timestamp)
                    break
                except BufferError:
                    poll(0.1)
            self._produced += 1
            if not number % _POLL_EVERY:
                poll(0)

    def flush(self) -> None:
        """Wait until the broker has everything.

        Raises:
            SourceUnavailable: a message was refused, or the broker stopped answering.
        """
        left = self._producer.flush(_TIMEOUT_SECONDS)
        if self._failed is not None:
            raise _unavailable(self._failed)
        if left:
            raise SourceUnavailable(
                f"Kafka did not take {left} messages in {_TIMEOUT_SECONDS:.0f} s",
                kept="an unfinished fill or advance is done again next time",
                todo="`warehouse sources status`, then run it again",
            )

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        if error is not None and self._failed is None:
            self._failed = error


def _unavailable(error: KafkaError) -> SourceUnavailable:
    return SourceUnavailable(
        f"Kafka cannot be filled: {error.name()}",
        kept="an unfinished fill or advance is done again next time",
        todo="`warehouse sources status` tells whether it runs",
    )
