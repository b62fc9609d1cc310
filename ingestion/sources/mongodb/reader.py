"""MongoDB in batches of BSON, each collection from one snapshot of the replica set.

Documents that share their structure with others are read as columns (`columns`); the others become JSON text one at
a time, by the same rules. A value that JSON cannot carry is a problem of that row, not of the run.

| BSON | lands as |
| --- | --- |
| double, int32, int64 | number: a double always has a point or an exponent, an integer never |
| NaN and infinite doubles | text: `NaN`, `Infinity`, `-Infinity` |
| Decimal128, ObjectId | text, every digit kept |
| date | text, ISO 8601 in UTC; outside the years 1 to 9999: text, `<milliseconds since 1970>ms` |
| text, boolean, null | as they are; a NUL stays a NUL |
| binary, regular expression, timestamp, other | canonical extended JSON: an object, of which only a token lands |

One collection is one snapshot. The server keeps what a snapshot needs for `minSnapshotHistoryWindowInSeconds` (300 by
default): a collection that takes longer to read fails with the name of that parameter, and nothing of it lands.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import bson
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure, PyMongoError

from ingestion.schema import Table
from ingestion.shapes import Shape, compile_shape, cursor_column
from ingestion.sources import Chunk, Piece, Plan
from ingestion.sources.ahead import ReadAhead
from ingestion.sources.mongodb.batches import Batch, batches, in_stream
from ingestion.sources.mongodb.columns import MIN_DOCUMENTS, Block, Walked
from ingestion.sources.mongodb.text import Row, document_row
from warehouse.core.errors import SchemaDrift, SourceUnavailable
from warehouse.core.settings import Settings

DATABASE = "stripe_nosql"
CHUNK_BYTES = 32 * 2**20
"""Batches of BSON land together up to about this size."""
FIRST_BYTES = 2**20
"""The first chunk is one batch of the server, and each next one at most twice as large: DuckDB has work at once."""
_VIEW = "mongodb_chunk"
_SCHEMA = pa.schema([("_id", pa.string()), ("cursor_at", pa.string()), ("doc", pa.string()), ("problem", pa.string())])
_ISO_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_SNAPSHOT_GONE = frozenset({239, 246})
"""SnapshotTooOld, SnapshotUnavailable."""


class MongoReader:
    """Reads the collections of `stripe_nosql`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: Settings, uri: str) -> None:
        self.connection = connection
        self.settings = settings
        self._uri = uri
        self._session: ClientSession | None = None
        self._newest: dict[str, datetime] = {}
        self._newest_text: dict[str, str] = {}

    def __enter__(self) -> MongoReader:
        self._client = connect(self._uri)
        self._database = self._client[DATABASE]
        self.collections = set(self._database.list_collection_names())
        return self

    def __exit__(self, *exception: object) -> None:
        if self._session is not None:
            with suppress(PyMongoError):  # a server that is gone cannot end it
                self._session.end_session()
        self._client.close()
        error = exception[1] if len(exception) > 1 else None
        if isinstance(error, PyMongoError):
            raise SourceUnavailable(
                f"MongoDB went away while it was read ({type(error).__name__})",
                kept="everything landed before; nothing of this run's MongoDB load was kept",
                todo="check the server, then run `warehouse ingest mongodb` again",
            ) from None

    def check_shape(self, tables: list[Table]) -> list[str]:
        """Every pinned collection must exist; returns alerts about collections that do not land."""
        missing = [table.origin for table in tables if table.origin not in self.collections]
        if missing:
            raise SchemaDrift(
                f"MongoDB has no collection {', '.join(missing)}",
                kept="everything landed before; nothing of this run's MongoDB load was kept",
                todo="create the collection (empty is fine) or take it out of ingestion/sources/mongodb/schema.yml",
            )
        pinned = {table.origin for table in tables}
        extra = sorted(name for name in self.collections - pinned if not name.startswith("system."))
        return [f"collection {name} is not pinned and does not land" for name in extra]

    def plan(self, table: Table, state: dict[str, Any], *, full: bool) -> Plan:
        """Compare small collections whole; read large ones by cursor. Opens the collection's snapshot."""
        self.open_snapshot()
        rows = self._count(table, {})
        cursor, cursor_text = state.get("cursor"), state.get("cursor_text")
        started = cursor or cursor_text
        if full or started is None or table.cursor is None or rows <= self.settings.compare_below_rows:
            return Plan("compare", source_rows=rows, cursor_from=started)
        query = since_query(table.cursor, cursor, cursor_text, timedelta(seconds=self.settings.cursor_lag_seconds))
        return Plan(
            "incremental",
            source_rows=self._count(table, query),
            cursor_from=started,
            bounds={"query": query, "cursor": cursor, "cursor_text": cursor_text},
        )

    def at(self, table: Table, positions: Sequence[str]) -> Plan:
        """Documents by `_id`, whose text may stand for an ObjectId or a number."""
        self.open_snapshot()
        wanted: list[Any] = list(positions)
        wanted += [bson.ObjectId(position) for position in positions if bson.ObjectId.is_valid(position)]
        wanted += [int(position) for position in positions if re.fullmatch("-?[0-9]{1,18}", position)]
        query = {"_id": {"$in": wanted}}
        return Plan("retry", source_rows=self._count(table, query), bounds={"query": query})

    def open_snapshot(self) -> None:
        """From here on, reads are of one moment: the moment of the first of them."""
        if self._session is not None:
            self._session.end_session()
        self._session = self._client.start_session(snapshot=True)

    def chunks(self, table: Table, plan: Plan) -> Iterator[Chunk]:
        """Chunks of about CHUNK_BYTES of BSON, and at least one batch of the server."""
        with ReadAhead(self._walked(table, plan.bounds.get("query", {}))) as read:
            for walked in read:
                yield self._chunk(table, walked)

    def digest(self, table: Table, plan: Plan) -> str:
        """Of every document that :meth:`chunks` would give, as it is stored."""
        digest = hashlib.sha256()
        for batch in self._batches(table, plan.bounds.get("query", {})):
            digest.update(batch.stored())
        return digest.hexdigest()

    def _walked(self, table: Table, query: Mapping[str, Any]) -> Iterator[list[tuple[Block, Walked]]]:
        read: list[tuple[Block, Walked]] = []
        size = 0
        enough = FIRST_BYTES
        for batch in self._batches(table, query):
            block = Block(batch)
            read.append((block, _walk(table, block)))
            size += len(batch.data)
            if size >= enough:
                yield _rest_together(table, read)
                enough = min(2 * size, CHUNK_BYTES)
                read, size = [], 0
        if read:
            yield _rest_together(table, read)

    def _batches(self, table: Table, query: Mapping[str, Any]) -> Iterator[Batch]:
        if self._session is None:
            raise RuntimeError("a collection is read in a snapshot")
        try:
            yield from batches(self._database, table.origin, query, self._session)
        except OperationFailure as error:
            raise _read_failure(table, error) from None

    def advanced(self, table: Table, plan: Plan) -> dict[str, Any]:
        """The newest cursor values that were read: one for dates, one for texts that begin with a date."""
        newest = self._newest.get(table.name)
        state: dict[str, Any] = {"cursor": newest.isoformat() if newest else plan.bounds.get("cursor")}
        text = self._newest_text.get(table.name, plan.bounds.get("cursor_text"))
        return state if text is None else state | {"cursor_text": text}

    def _chunk(self, table: Table, read: Sequence[tuple[Block, Walked]]) -> Chunk:
        alike: dict[tuple[Shape, pa.Schema], list[pa.Table]] = {}
        for columns in (columns for _, walked in read for columns in walked.columns):
            alike.setdefault((columns.shape, columns.table.schema), []).append(columns.table)
        pieces = []
        for number, ((shape, _), found) in enumerate(alike.items()):
            columns_of_shape = pa.concat_tables(found)
            name = f"{_VIEW}_{number}"
            self.connection.register(name, columns_of_shape)
            self._advance(table, shape, columns_of_shape)
            pieces.append(Piece(f"select * from {name}", shape))
        path = tuple(table.cursor.split(".")) if table.cursor else ()
        rows = [self._row(table.name, block.document(number), path) for block, walked in read for number in walked.left]
        if rows:
            pieces.append(Piece(self._relation(rows)))
        return Chunk(tuple(pieces))

    def _advance(self, table: Table, shape: Shape, columns: pa.Table) -> None:
        found = cursor_column(table, shape)
        if found is None:
            return
        column, kind = found
        if kind == "date":
            self._see(table.name, pc.max(columns[column]).as_py())
        else:
            texts = columns[column].cast(pa.string())
            self._see(table.name, pc.max(texts.filter(pc.match_substring_regex(texts, _ISO_DATE))).as_py())

    def _see(self, table: str, value: object) -> None:
        """Remember the newest cursor."""
        if isinstance(value, datetime):
            self._newest[table] = max(self._newest.get(table, value), value)
        elif isinstance(value, str) and re.match(_ISO_DATE, value):
            self._newest_text[table] = max(self._newest_text.get(table, value), value)

    def _row(self, table: str, raw: bytes, cursor: tuple[str, ...]) -> Row:
        row, value = document_row(raw, cursor)
        self._see(table, value)
        return row

    def _relation(self, rows: list[Row]) -> str:
        columns = list(zip(*rows, strict=True))
        table = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=_SCHEMA)
        self.connection.register(_VIEW, table)
        return f"select * from {_VIEW}"

    def _count(self, table: Table, query: Mapping[str, Any]) -> int:
        pipeline: list[dict[str, Any]] = [{"$match": query}, {"$count": "n"}]
        for found in self._database[table.origin].aggregate(pipeline, session=self._session):
            return int(found["n"])
        return 0


def connect(uri: str) -> MongoClient[dict[str, Any]]:
    """A client that has been let in. Raises SourceUnavailable; messages carry no credentials."""
    client: MongoClient[dict[str, Any]] = MongoClient(uri, serverSelectionTimeoutMS=10_000)
    try:
        client[DATABASE].list_collection_names()
    except OperationFailure:
        client.close()
        raise SourceUnavailable(
            "MongoDB refused the credentials",
            kept="everything landed before; the published warehouse stays readable",
            todo="correct the user, password and authSource in MONGODB_URI",
        ) from None
    except PyMongoError as error:
        client.close()
        raise SourceUnavailable(
            f"MongoDB does not answer ({type(error).__name__})",
            kept="everything landed before; the published warehouse stays readable",
            todo="start it (`warehouse sources up` for the embedded one) or correct MONGODB_URI",
        ) from None
    return client


def _walk(table: Table, block: Block) -> Walked:
    return block.walk(lambda shape: compile_shape(table, shape) is not None)


def _rest_together(table: Table, read: list[tuple[Block, Walked]]) -> list[tuple[Block, Walked]]:
    """What was left of each block, as one more: a shape that is rare in each may not be rare in all of them."""
    left = [block.document(number) for block, walked in read for number in walked.left]
    if len(read) < 2 or len(left) < MIN_DOCUMENTS:
        return read
    rest = Block(in_stream(b"".join(left)))
    return [*((block, replace(walked, left=())) for block, walked in read), (rest, _walk(table, rest))]


def since_query(path: str, cursor: str | None, cursor_text: str | None, lag: timedelta) -> dict[str, Any]:
    """Documents whose cursor is at most `lag` older than the newest read.

    A comparison in MongoDB is of one type only, so dates and texts are asked for separately; whatever is neither a
    date nor a text that begins with one is read every time, or it would never be read again.
    """
    wanted: list[dict[str, Any]] = [
        {path: {"$not": {"$type": ["date", "string"]}}},
        {path: {"$type": "string", "$not": {"$regex": _ISO_DATE}}},
    ]
    wanted.append(
        {path: {"$type": "date"}} if cursor is None else {path: {"$gte": datetime.fromisoformat(cursor) - lag}}
    )
    day = _day(cursor_text, lag)
    # texts of one day may be written in several ways: from the beginning of the lagged day on, all are read
    wanted.append({path: {"$type": "string"}} if day is None else {path: {"$gte": day}})
    return {"$or": wanted}


def _day(text: str | None, lag: timedelta) -> str | None:
    """The day `lag` before `text`, and one more for its zone; None when it is no date."""
    try:
        return (datetime.fromisoformat(text[:10]) - lag - timedelta(days=1)).date().isoformat() if text else None
    except (ValueError, OverflowError):
        return None


def _read_failure(table: Table, error: OperationFailure) -> SourceUnavailable:
    kept = "everything landed before; nothing of this run's MongoDB load was kept"
    if error.code in _SNAPSHOT_GONE:
        return SourceUnavailable(
            f"MongoDB gave up the snapshot of {table.origin} before it was read",
            kept=kept,
            todo="raise the server parameter minSnapshotHistoryWindowInSeconds (300 by default), then run this again",
        )
    return SourceUnavailable(
        f"MongoDB stopped delivering {table.origin} (code {error.code})",
        kept=kept,
        todo="check the server, then run `warehouse ingest mongodb` again",
    )
