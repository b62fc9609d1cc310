"""MongoDB in raw batches, from one snapshot of the replica set.

A document becomes JSON text once, without loss that matters downstream: ObjectId, Decimal128 and dates as text,
numbers as numbers. A value that JSON cannot carry exactly is a problem of that row, not of the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import bson
import duckdb
import orjson
import pyarrow as pa
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure, PyMongoError

from ingestion.schema import Table
from ingestion.sources import Plan
from warehouse.core.errors import SchemaDrift, SourceUnavailable
from warehouse.core.settings import Settings

DATABASE = "stripe_nosql"
CHUNK_DOCUMENTS = 50_000
CHUNK_BYTES = 64 * 2**20
_VIEW = "mongodb_chunk"
_SCHEMA = pa.schema([("_id", pa.string()), ("cursor_at", pa.string()), ("doc", pa.string()), ("problem", pa.string())])
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC, unicode_decode_error_handler="strict")


class MongoReader:
    """Reads the collections of `stripe_nosql`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: Settings, uri: str) -> None:
        self.connection = connection
        self.settings = settings
        self._uri = uri
        self._newest: dict[str, datetime] = {}

    def __enter__(self) -> MongoReader:
        self._client: MongoClient[dict[str, Any]] = MongoClient(self._uri, serverSelectionTimeoutMS=10_000)
        try:
            self._database = self._client[DATABASE]
            self.collections = set(self._database.list_collection_names())
            self._session: ClientSession = self._client.start_session(snapshot=True)
        except OperationFailure:
            self._client.close()
            raise SourceUnavailable(
                "MongoDB refused the credentials",
                kept="everything landed before; the published warehouse stays readable",
                todo="correct the user, password and authSource in MONGODB_URI",
            ) from None
        except PyMongoError as error:
            self._client.close()
            raise SourceUnavailable(
                f"MongoDB does not answer ({type(error).__name__})",
                kept="everything landed before; the published warehouse stays readable",
                todo="start it (`warehouse sources up` for the embedded one) or correct MONGODB_URI",
            ) from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.end_session()
        self._client.close()

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
        """Compare small collections whole; read large ones by cursor."""
        rows = self._count(table, {})
        cursor = state.get("cursor")
        if full or cursor is None or table.cursor is None or rows <= self.settings.compare_below_rows:
            return Plan("compare", source_rows=rows, cursor_from=cursor)
        since = datetime.fromisoformat(cursor) - timedelta(seconds=self.settings.cursor_lag_seconds)
        # a comparison in MongoDB is of one type only: a cursor that is text or missing would never be read again
        query = {"$or": [{table.cursor: {"$gte": since}}, {table.cursor: {"$not": {"$type": "date"}}}]}
        return Plan("incremental", source_rows=self._count(table, query), cursor_from=cursor, bounds={"query": query})

    def chunks(self, table: Table, plan: Plan) -> Iterator[str]:
        """Arrow relations of at most CHUNK_DOCUMENTS documents or about CHUNK_BYTES of JSON."""
        path = tuple(table.cursor.split(".")) if table.cursor else ()
        rows: list[tuple[str | None, str | None, str | None, str | None]] = []
        size = 0
        for batch in self._database[table.origin].find_raw_batches(plan.bounds.get("query", {}), session=self._session):
            for raw in bson.decode_iter(cast(bytes, batch), codec_options=_RAW):
                row = self._row(table.name, raw, path)
                rows.append(row)
                size += len(row[2] or "")
                if len(rows) >= CHUNK_DOCUMENTS or size >= CHUNK_BYTES:
                    yield self._relation(rows)
                    rows, size = [], 0
        if rows:
            yield self._relation(rows)

    def advanced(self, table: Table, plan: Plan) -> dict[str, Any]:
        """The newest cursor value that was read."""
        newest = self._newest.get(table.name)
        return {"cursor": newest.isoformat() if newest else plan.cursor_from}

    def _row(
        self, table: str, raw: RawBSONDocument, cursor: tuple[str, ...]
    ) -> tuple[str | None, str | None, str | None, str | None]:
        try:
            document = bson.decode(raw.raw, codec_options=_CODEC)
        except (bson.errors.InvalidBSON, ValueError):
            return str(raw.get("_id")), None, None, "undecodable document"
        value: Any = document
        for step in cursor:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, datetime) and value > self._newest.get(table, datetime.min.replace(tzinfo=UTC)):
            self._newest[table] = value
        cursor_at = _json_text(value) if isinstance(value, datetime) else (value if isinstance(value, str) else None)
        try:
            text = orjson.dumps(
                _exact(document), default=_json_text, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
            ).decode()
        except (TypeError, ValueError, orjson.JSONEncodeError):
            return str(document.get("_id")), cursor_at, None, "a value has no JSON form"
        return str(document.get("_id")), cursor_at, text, None

    def _relation(self, rows: list[tuple[str | None, str | None, str | None, str | None]]) -> str:
        columns = list(zip(*rows, strict=True))
        table = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=_SCHEMA)
        self.connection.register(_VIEW, table)
        return f"select * from {_VIEW}"

    def _count(self, table: Table, query: dict[str, Any]) -> int:
        pipeline: list[dict[str, Any]] = [{"$match": query}, {"$count": "n"}]
        for found in self._database[table.origin].aggregate(pipeline, session=self._session):
            return int(found["n"])
        return 0


def _exact(value: Any) -> Any:
    """Floats that JSON has no number for keep their name: a silent null would be a lost value."""
    if isinstance(value, dict):
        return {key: _exact(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_exact(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _json_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, bson.ObjectId | bson.Decimal128 | bson.Int64):
        return str(value)
    raise TypeError(type(value).__name__)
