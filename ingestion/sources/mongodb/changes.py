"""Change streams: which documents have changed since a resume token.

An event tells *which* document changed; the document itself is read anew, with the others of its batch, from one
snapshot. So events may come twice, late or in any order: what lands is always the newest state, and several changes
of a document within one batch are one version. A document that is gone at the time of reading is a deletion.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import bson
import duckdb
import pyarrow as pa
from pymongo.change_stream import DatabaseChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from ingestion.schema import Table
from ingestion.sources import Plan
from ingestion.sources.mongodb.reader import DATABASE, MongoReader, connect
from warehouse.core.errors import LoadIncomplete, SchemaDrift, SourceUnavailable, WarehouseError
from warehouse.core.settings import Settings

MAX_DOCUMENTS = 10_000
"""Changed documents per batch."""

_KEYS = "mongodb_changed_keys"
_WAIT_MS = 200
_LOST = frozenset({280, 286})
"""ChangeStreamFatalError, ChangeStreamHistoryLost."""
_GONE = frozenset({"drop", "rename", "dropDatabase", "invalidate"})


@dataclass
class Batch:
    """Documents to read again, by collection: encoded id → id; and the token that comes after them."""

    changed: dict[str, dict[bytes, Any]] = field(default_factory=dict)
    token: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return sum(len(ids) for ids in self.changed.values())

    @property
    def origins(self) -> set[str]:
        """The collections that it says something of."""
        return set(self.changed)


class Changes:
    """An open change stream over the pinned collections. A context manager.

    Args:
        token: where to go on; None from now.

    Raises:
        LoadIncomplete: on entering or reading: the server no longer holds what comes after the token.
        SourceUnavailable: MongoDB does not answer.
    """

    def __init__(self, uri: str, tables: Sequence[Table], token: Mapping[str, Any] | None) -> None:
        self._uri = uri
        self._collections = [table.origin for table in tables]
        self._token = token

    def __enter__(self) -> Changes:
        self._client = connect(self._uri)
        events: list[dict[str, Any]] = [
            {
                "$match": {
                    "$or": [
                        {"ns.coll": {"$in": self._collections}},
                        {"operationType": {"$in": ["dropDatabase", "invalidate"]}},
                    ]
                }
            },
            {"$project": {"operationType": 1, "ns.coll": 1, "documentKey": 1}},
        ]
        try:
            self._stream: DatabaseChangeStream[dict[str, Any]] = self._client[DATABASE].watch(
                events, resume_after=self._token, max_await_time_ms=_WAIT_MS
            )
        except PyMongoError as error:
            self._client.close()
            raise _failure(error) from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()
        self._client.close()

    @property
    def token(self) -> Mapping[str, Any] | None:
        """The place in the stream, also when nothing has happened."""
        return self._stream.resume_token

    def gather(self, seconds: float) -> Batch:
        """What changes within `seconds`, or the first MAX_DOCUMENTS documents of it; returns at once when idle."""
        batch = Batch()
        deadline = time.monotonic() + seconds
        try:
            while len(batch) < MAX_DOCUMENTS and (event := self._stream.try_next()) is not None:
                if event["operationType"] in _GONE:
                    raise SchemaDrift(
                        f"MongoDB: {event.get('ns', {}).get('coll', DATABASE)} was dropped or renamed",
                        kept="everything landed before; the change stream stays where it was",
                        todo="if it is meant, `warehouse ingest mongodb --follow --full` compares what there is now",
                    )
                identifier = event["documentKey"]["_id"]
                found = batch.changed.setdefault(event["ns"]["coll"], {})
                found[bson.encode({"_id": identifier})] = identifier
                if time.monotonic() > deadline:
                    break
        except PyMongoError as error:
            raise _failure(error) from None
        batch.token = self._stream.resume_token
        return batch


class ChangedReader(MongoReader):
    """Reads the documents of one batch."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: Settings, uri: str, batch: Batch) -> None:
        super().__init__(connection, settings, uri)
        self._batch = batch

    def check_shape(self, tables: list[Table]) -> list[str]:
        """The stream itself tells when a collection goes."""
        return []

    def plan(self, table: Table, state: dict[str, Any], *, full: bool) -> Plan:
        """Exactly the changed documents, from a snapshot of now."""
        ids = list(self._batch.changed.get(table.origin, {}).values())
        self._state = state
        self.open_snapshot()
        self.connection.register(_KEYS, pa.table({"_id": pa.array([str(each) for each in ids], pa.string())}))
        query = {"_id": {"$in": ids}}
        return Plan("changes", source_rows=self._count(table, query), bounds={"query": query, "keys": _KEYS})

    def advanced(self, table: Table, plan: Plan) -> dict[str, Any]:
        """The cursor stays: what a cursor run reads again, it finds unchanged."""
        return self._state


def _failure(error: PyMongoError) -> WarehouseError:
    if isinstance(error, OperationFailure) and error.code in _LOST:
        return LoadIncomplete(
            "MongoDB's log no longer holds the changes since the last batch",
            kept="everything landed before",
            todo="`warehouse ingest mongodb --follow --full` compares every document, then follows from there",
        )
    return SourceUnavailable(
        f"MongoDB's change stream stopped ({type(error).__name__})",
        kept="everything landed before; the stream goes on from the last batch",
        todo="check that MongoDB runs as a replica set, then run this again",
    )
