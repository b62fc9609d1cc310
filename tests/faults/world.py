"""One warehouse over the shared source systems: change the sources, break the run, ask whether anything was lost."""

from __future__ import annotations

import importlib
import itertools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, wraps
from typing import Any

import bson
import psycopg
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from pymongo import MongoClient
from pymongo.database import Database

from ingestion.load import read_state
from ingestion.reconcile import Reconciliation, reconcile
from ingestion.run import LIVE_SOURCES, IngestReport, ingest
from ingestion.schema import SourceName, tables
from tests.faults.naive import PAGE, NaiveLoader, Row
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.settings import Settings

TOPIC = "payments.transactions"
_numbers = itertools.count(1)

Point = tuple[str, str, str, int]
"""Module, class or "" and function, "before" or "after", which call of it."""

KILL_POINTS: dict[str, Point] = {
    "before the first row": ("ingestion.landing", "TableLanding.add", "before", 1),
    "mid-extract": ("ingestion.landing", "TableLanding.add", "after", 1),  # one table has changed, perhaps no other
    "after the last row": ("ingestion.landing", "TableLanding.finish", "after", 2),
    "half sealed": ("ingestion.lake", "Lake.seal", "before", 1),
    "sealed": ("ingestion.lake", "Lake.seal", "after", 1),
    "after the vault": ("warehouse.privacy.vault", "store_entries", "after", 1),
    "before it is a package": ("dlt.pipeline.pipeline", "Pipeline.extract", "before", 1),
    "before normalize": ("dlt.pipeline.pipeline", "Pipeline.normalize", "before", 1),
    "mid-normalize": ("dlt.normalize.normalize", "Normalize.spool_files", "before", 1),
    "after normalize": ("dlt.pipeline.pipeline", "Pipeline.load", "before", 1),
    "after COPY, before dlt's marker": ("dlt.destinations.job_client_impl", "ModelLoadJob.run", "after", 1),
    # nothing is staged and merged: a table's rows are replaced in one statement, so that this is all there is between
    "between one table's rows and the next": ("dlt.destinations.job_client_impl", "ModelLoadJob.run", "before", 2),
    "after merge, before the commit": (
        "dlt.destinations.job_client_impl",
        "SqlJobClientBase.complete_load",
        "before",
        1,
    ),
    "after the commit": ("dlt.destinations.job_client_impl", "SqlJobClientBase.complete_load", "after", 1),
    "before the manifest": ("ingestion.manifest", "record", "before", 1),
    "after completion, before return": ("ingestion.manifest", "record", "after", 1),
}


@contextmanager
def at_point(point: Point, fault: Callable[[], None]) -> Iterator[None]:
    """Call `fault` at this point of a run, once."""
    module, name, when, wanted = point
    owner: Any = importlib.import_module(module)
    *path, attribute = name.split(".")
    for step in path:
        owner = getattr(owner, step)
    original = getattr(owner, attribute)
    calls = itertools.count(1)

    @wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        number = next(calls)
        if number == wanted and when == "before":
            fault()
        result = original(*args, **kwargs)
        if number == wanted and when == "after":
            fault()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, attribute, hooked)
        yield


@dataclass
class World:
    """A home of its own over the shared servers."""

    settings: Settings
    endpoints: Endpoints

    # -- the sources

    def sql(self, *statements: str) -> None:
        """Change PostgreSQL, each statement committed by itself."""
        with self.postgres() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def postgres(self) -> psycopg.Connection[Any]:
        return psycopg.connect(str(self.endpoints.postgres_admin_uri), autocommit=True)

    def ask(self, query: str) -> tuple[Any, ...]:
        """One row of PostgreSQL."""
        with self.postgres() as connection:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            return tuple(row)

    def add_payments(self, rows: int, updated_at: str = "clock_timestamp()") -> str:
        """Insert payments; returns the prefix of their keys."""
        prefix = f"F{next(_numbers)}x{os.getpid()}-"
        self.sql(f"""
            insert into transaction
            select '{prefix}' || number, merchant_id, customer_id, payment_method_id, product_id, quantity, device_id,
                location_id, currency_code, 100 + number * 0.0001, tax, status_code, created_at, {updated_at}
            from transaction, generate_series(1, {rows}) as number where transaction_id = 'TXN001'
        """)
        return prefix

    @cached_property
    def documents(self) -> Database[dict[str, Any]]:
        return MongoClient(str(self.endpoints.mongodb_admin_uri), tz_aware=True)["stripe_nosql"]

    def produce(self, *messages: bytes, partition: int = 0, times: Sequence[int] = ()) -> None:
        """Events, in this order, on one partition."""
        producer = Producer({"bootstrap.servers": self.endpoints.kafka_bootstrap, "log_level": 0})
        for message, at in itertools.zip_longest(messages, times, fillvalue=0):
            assert isinstance(message, bytes)
            assert isinstance(at, int)
            producer.produce(
                TOPIC, message, key=b"TXN001", partition=partition, timestamp=at or int(time.time() * 1000)
            )
        assert producer.flush(30) == 0

    # -- runs

    def ingest(self, *sources: SourceName, settings: Settings | None = None, **options: Any) -> IngestReport:
        run = f"run-{next(_numbers)}"
        return ingest(settings or self.settings, self.endpoints, run_id=run, sources=sources or LIVE_SOURCES, **options)

    def by_cursor(self) -> Settings:
        """The same home, every table read by its cursor."""
        return self.settings.model_copy(update={"compare_below_rows": 0})

    def killed(self, point: str, *sources: SourceName, settings: Settings | None = None) -> None:
        """Run in another process that is killed with SIGKILL at the point."""
        context = multiprocessing.get_context("forkserver")  # imports once, has no open database to fork
        context.set_forkserver_preload([__name__, "pandas"])
        arguments = (settings or self.settings, self.endpoints, KILL_POINTS[point], sources or LIVE_SOURCES)
        process = context.Process(target=_run_and_die, args=arguments)
        process.start()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL, f"the run did not reach the point: {process.exitcode}"

    # -- what must hold afterwards

    def reconcile(self, *sources: SourceName) -> Reconciliation:
        return reconcile(self.settings, self.endpoints, sources=sources or LIVE_SOURCES)

    def row(self, query: str) -> tuple[Any, ...]:
        """One row of the warehouse."""
        with open_warehouse(self.settings, read_only=True) as connection:
            row = connection.execute(query).fetchone()
            assert row is not None
            return row

    def assert_whole(self, *sources: SourceName) -> None:
        """Row count, distinct keys, amount sum and cursor, asked of both sides; then every row of every table."""
        chosen = sources or LIVE_SOURCES
        if "oltp" in chosen:
            self._assert_payments()
        if "mongodb" in chosen:
            self._assert_documents()
        if "stream" in chosen:
            self._assert_events()
        for source in chosen:
            self._assert_manifest(source)
        found = self.reconcile(*chosen)
        assert found.differences == 0, [table for table in found.tables if table.differences]

    def _assert_payments(self) -> None:
        rows, amount, newest = self.ask("select count(*), sum(amount), max(updated_at) from transaction")
        landed = self.row(
            "select count(*), count(distinct transaction_id), sum(amount) from raw_oltp.transaction"
            " where _deleted_at is null"
        )
        assert landed == (rows, rows, amount)
        assert self.state("oltp")["transaction"]["cursor"] == (newest.isoformat() if newest else None)
        twice = self.row(
            "select count(*) - count(distinct (transaction_id, _row_hash, _load_id)) from raw_oltp.transaction_history"
        )
        assert twice == (0,), "a version is in the history twice"

    def _assert_documents(self) -> None:
        ids = {str(document["_id"]) for document in self.documents.Transactions.find({}, {"_id": 1})}
        landed = self.row(
            "select count(*), count(distinct _id) from raw_mongodb.transactions where _deleted_at is null"
        )
        refused = self.row(
            "select count(distinct position) from raw_ops.quarantine where source = 'mongodb'"
            " and table_name = 'transactions' and resolved_at is null"
        )
        assert landed == (len(ids) - refused[0], len(ids) - refused[0])

    def _assert_events(self) -> None:
        ends = self.ends()
        rows, distinct = self.row(
            "select count(*), count(distinct (kafka_partition, kafka_offset)) from raw_stream.payments_transactions"
        )
        refused = self.row("select count(distinct position) from raw_ops.quarantine where source = 'stream'")
        assert rows == distinct == sum(ends.values()) - refused[0]
        assert self.state("stream")["payments_transactions"]["offsets"] == ends

    def _assert_manifest(self, source: SourceName) -> None:
        """Every load of the raw tables is recorded, once, with the rows that it brought."""
        for table in tables(source).values():
            versions = f"{table.qualified}_history" if table.history else table.qualified
            wrong = self.row(f"""
                select list(load_id) from (
                    select _load_id as load_id, count(*) as rows from {versions} group by _load_id
                ) as landed
                full join (
                    select load_id, sum(landed_rows + deleted_rows) as rows, count(*) as times
                    from raw_ops.load_manifest where source = '{source}' and table_name = '{table.name}'
                    group by load_id having sum(landed_rows + deleted_rows) > 0
                ) as recorded using (load_id)
                where times is distinct from 1 or landed.rows > recorded.rows
                    or {"landed.rows is distinct from recorded.rows" if table.history else "false"}
            """)
            assert wrong == (None,), (table.name, wrong)
        assert self.row(f"select count(*) from raw_ops.prepared_loads where source = '{source}'") == (0,)

    def ends(self) -> dict[str, int]:
        """Partition → high watermark."""
        consumer = Consumer({"bootstrap.servers": self.endpoints.kafka_bootstrap, "group.id": "tests"})
        try:
            partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
            return {str(p): consumer.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=10)[1] for p in partitions}
        finally:
            consumer.close()

    def state(self, source: SourceName) -> dict[str, Any]:
        with open_warehouse(self.settings) as connection:
            return read_state(connection, self.settings, source)

    # -- the naive variants

    def naive(self, table: str = "transaction", **habits: Any) -> NaiveLoader:
        """A naive loader of a table, which has loaded it rightly up to now; without a habit, from its beginning."""

        def read(cursor: Any) -> Iterator[Row]:
            # a server-side cursor, in steps, so that a fault can strike in between
            with (
                psycopg.connect(str(self.endpoints.postgres_admin_uri)) as connection,
                connection.cursor("naive") as found,
            ):
                found.itersize = PAGE
                found.execute(
                    f"select {table}_id, updated_at, to_jsonb({table})::text from {table}"
                    " where updated_at > %s or %s::timestamptz is null order by updated_at".encode(),
                    (cursor, cursor),
                )
                yield from found

        return _ready(NaiveLoader(read, lambda: read(None), column_text, **habits), habits)

    def naive_documents(self, **habits: Any) -> NaiveLoader:
        """The same for the documents `Transactions`, read in pages."""
        client: MongoClient[Any] = MongoClient(
            str(self.endpoints.mongodb_admin_uri), document_class=RawBSONDocument, retryReads=False,
            serverSelectionTimeoutMS=500,
        )  # fmt: skip

        def read(cursor: Any) -> Iterator[Row]:
            query = {} if cursor is None else {"date.updated": {"$gt": cursor}}
            for page in itertools.count():
                found = client["stripe_nosql"]["Transactions"].find(query).sort([("date.updated", 1), ("_id", 1)])
                documents = list(found.skip(page * _DOCUMENTS).limit(_DOCUMENTS))
                for document in documents:
                    date = decoded(document.raw, "replace").get("date")
                    moment = date.get("updated") if isinstance(date, dict) else None
                    key = str(decoded(document.raw, "replace")["_id"])
                    yield key, moment if isinstance(moment, datetime) else None, document.raw
                if len(documents) < _DOCUMENTS:
                    return

        return _ready(NaiveLoader(read, lambda: read(None), document_text, **habits), habits)

    def naive_events(
        self, topic: str = TOPIC, *, by_offset: bool = False, known: Sequence[int] | None = None, **habits: Any
    ) -> NaiveLoader:
        """The same for events, with a cursor on the event's own time, or on the offset of the only partition.

        Args:
            known: the partitions it reads; default: those there are.
        """

        def read(cursor: Any, chosen: Sequence[int] | None = None) -> Iterator[Row]:
            for message in messages(str(self.endpoints.kafka_bootstrap), topic, chosen):
                at = message.offset() if by_offset else message.timestamp()[1]
                if cursor is None or (at is not None and at > cursor):
                    yield f"{message.partition()}|{message.offset()}", at, message.value()

        return _ready(NaiveLoader(lambda cursor: read(cursor, known), lambda: read(None), event_text, **habits), habits)


_DOCUMENTS = 250


def messages(bootstrap: str, topic: str, partitions: Sequence[int] | None = None) -> Iterator[Message]:
    """Every message the broker has."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "naive", "log_level": 0})
    try:
        there = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        chosen = [TopicPartition(topic, p) for p in sorted(there) if partitions is None or p in partitions]
        bounds = {each.partition: consumer.get_watermark_offsets(each, timeout=10) for each in chosen}
        left = sum(high - low for low, high in bounds.values())
        consumer.assign([TopicPartition(topic, each.partition, bounds[each.partition][0]) for each in chosen])
        while left > 0:
            found = consumer.consume(min(left, 5000), timeout=10)
            assert found, "the broker stopped delivering"
            left -= len(found)
            yield from found
    finally:
        consumer.close()


def column_text(row: str) -> str:
    """A row of PostgreSQL as canonical JSON, every number as it is written."""
    return json.dumps(json.loads(row, parse_float=str, parse_int=str), sort_keys=True)


def decoded(raw: bytes, errors: str) -> dict[str, Any]:
    """A document; `errors` is what happens to text that is not UTF-8."""
    return bson.decode(raw, codec_options=CodecOptions(tz_aware=True, unicode_decode_error_handler=errors))


def document_text(raw: bytes) -> str:
    """A document as text: every value exactly."""
    return repr(decoded(raw, "backslashreplace"))


def event_text(value: bytes | None) -> str:
    """An event as text: every byte exactly."""
    try:
        return "tombstone" if value is None else value.decode()
    except UnicodeDecodeError:
        return f"bytes {value!r}"


def _ready(naive: NaiveLoader, habits: Mapping[str, Any]) -> NaiveLoader:
    """Without a fault and a habit, the naive loader is right: what breaks it afterwards is the fault."""
    if habits:
        naive.catch_up()
        return naive
    naive.run()
    assert naive.harm.rows == 0
    naive.run()
    assert naive.harm.rows == 0
    return naive


def _run_and_die(settings: Settings, endpoints: Endpoints, point: Point, sources: Sequence[SourceName]) -> None:
    with at_point(point, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        ingest(settings, endpoints, run_id="killed", sources=sources)
