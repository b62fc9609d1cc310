"""Formats of dropped files: bytes → Arrow tables, in bounded memory, before anything is believed.

| name ends in | is | for |
| --- | --- | --- |
| `.csv` | PostgreSQL's `COPY … (FORMAT csv, HEADER)` | flat tables |
| `.parquet` | Parquet with the pinned columns | flat tables |
| `.bson` | mongodump | documents of MongoDB |
| `.json`, `.jsonl`, `.ndjson` | mongoexport: extended JSON, a document per line | documents of MongoDB |
| the same | `kcat -J`: topic, partition, offset, ts, key and payload, a message per line | topics |

All but Parquet may be compressed: `.gz`, `.zst`. Every table given here has `line` (1-based place among the rows) and
`problem` (null, or why the row cannot be read), beside the columns that the boundary of its pinned table expects.
"""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, cast

import bson
import orjson
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from bson import json_util

from ingestion.schema import Table
from ingestion.sources.files.drops import RefusedDrop
from ingestion.sources.mongodb.text import document_row

Note = Callable[[str], None]

BATCH_ROWS = 20_000
BATCH_BYTES = 32 * 2**20
LONGEST_LINE = 64 * 2**20
LONGEST_DOCUMENT = 17 * 2**20
"""MongoDB's 16 MB, and some room for what mongodump adds."""
_BLOCK = 16 * 2**20
_LONGEST_HEADER = 2**16
_CODECS = {".gz": "gzip", ".zst": "zstd"}
_EXPANSION = 200
_EXPANSION_FREE = 64 * 2**20
"""A file may decompress to this many bytes, and to this many times its size beyond; a bomb does to more."""
_ROWS_PER_BYTE = 100

_MONGODB = pa.schema([(name, pa.string()) for name in ("_id", "cursor_at", "doc", "problem")])
_STREAM = pa.schema(
    [
        ("kafka_topic", pa.string()),
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
        ("produced_at", pa.timestamp("ms", tz="UTC")),
        ("message_key", pa.string()),
        ("doc", pa.string()),
        ("problem", pa.string()),
    ]
)
_EXTENDED = json_util.JSONOptions(tz_aware=True, json_mode=json_util.JSONMode.RELAXED)
_TYPES: dict[str, Callable[[pa.DataType], bool]] = {
    "varchar": lambda kind: False,
    "smallint": pa.types.is_integer,
    "integer": pa.types.is_integer,
    "bigint": pa.types.is_integer,
    "boolean": pa.types.is_boolean,
    "date": pa.types.is_date,
    "timestamp with time zone": lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None,
    "json": lambda kind: False,
}
"""Pinned type → which types of a Parquet column fit it without loss; text fits all and is checked row by row."""


def read_drop(file: BinaryIO, name: str, size: int, table: Table, note: Note) -> Iterator[pa.Table]:
    """The rows of a dropped file.

    Args:
        note: told what a person should know about the file's shape.

    Raises:
        RefusedDrop: the file as a whole cannot be read as what its name says.
    """
    lower = name.lower()
    suffix = next((ending for ending in _CODECS if lower.endswith(ending)), "")
    kind = lower.removesuffix(suffix).rpartition(".")[2]
    json_lines = kind in {"json", "jsonl", "ndjson"}
    if kind == "parquet" and not table.is_document and not suffix:
        rows = _parquet(file, size, table, note)
    elif kind == "csv" and not table.is_document:
        rows = _csv(_Content(file, size, suffix), table, note)
    elif kind == "bson" and table.source == "mongodb":
        rows = _bson(_Content(file, size, suffix), table)
    elif json_lines and table.source == "mongodb":
        rows = _json_documents(_text(_Content(file, size, suffix)), table)
    elif json_lines and table.source == "stream":
        rows = _json_messages(_text(_Content(file, size, suffix)), table)
    else:
        wanted = {"mongodb": ".bson, .json, .jsonl", "stream": ".jsonl of kcat -J"}.get(table.source, ".csv, .parquet")
        raise RefusedDrop(f"has a name that ends in none of {wanted}")
    yield from _as_refusals(rows)


def _as_refusals(rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
    try:
        yield from rows
    except (pa.ArrowException, OSError, EOFError):  # whose messages may quote the file
        raise RefusedDrop("is cut off, damaged, or not what its name says") from None


class _Content(io.RawIOBase):
    """The decompressed bytes, counted, so that a bomb is stopped before it fills anything."""

    def __init__(self, file: BinaryIO, size: int, suffix: str) -> None:
        self._stream = pa.PythonFile(file, mode="r")
        if suffix:
            self._stream = pa.CompressedInputStream(self._stream, _CODECS[suffix])
        self._left = _EXPANSION_FREE + _EXPANSION * size if suffix else size
        self.last = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise RefusedDrop("decompresses to far more than a file of its size should")
        buffer[: len(block)] = block
        self.last = block[-1:] or self.last
        return len(block)


def _text(content: _Content) -> io.BufferedReader:
    """UTF-8 text without its byte order mark. Raises RefusedDrop for another encoding."""
    reader: io.BufferedReader = io.BufferedReader(cast(Any, content), buffer_size=_BLOCK)
    start = reader.peek(4)[:4]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
        raise RefusedDrop("is UTF-16 or UTF-32; export it as UTF-8")
    if start.startswith(b"\xef\xbb\xbf"):
        reader.read(3)
    return reader


def _csv(content: _Content, table: Table, note: Note) -> Iterator[pa.Table]:
    """COPY's CSV: an empty field is null, a quoted empty one is empty text; a value may hold line ends."""
    skipped: set[int] = set()

    def skip(row: Any) -> str:
        skipped.add(row.number)
        return "skip"

    text = _text(content)
    header = _header(text)
    pinned = [leaf.name for leaf in table.columns if leaf.name in header]
    if missing := [leaf.name for leaf in table.columns if leaf.data_class != "forbidden" and leaf.name not in header]:
        raise RefusedDrop(f"lacks the columns {', '.join(missing)}")
    if extra := sorted(set(header) - set(pinned)):
        note(f"{len(extra)} columns are not pinned and do not land")
    line = 1
    for batch in _csv_batches(text, header, pinned, skip):
        columns, problem = _decoded(batch, pinned)
        absent = {leaf.name: pa.nulls(batch.num_rows, pa.string()) for leaf in table.columns}
        places = _places(line, batch.num_rows, skipped)
        line = places[-1] + 1 if places else line
        yield _numbered(absent | columns, problem, places)
    if content.last not in (b"\n", b""):
        raise RefusedDrop("does not end with a line end: it is cut off")
    if skipped:
        empty = {leaf.name: pa.nulls(len(skipped), pa.string()) for leaf in table.columns}
        yield _numbered(empty, pa.array(["number of columns"] * len(skipped)), sorted(skipped))


def _csv_batches(text: io.BufferedReader, header: list[str], pinned: list[str], skip: Callable[[Any], str]) -> Any:
    if not text.peek(1):
        return iter(())
    return pc.open_csv(
        pa.PythonFile(text, mode="r"),
        read_options=pc.ReadOptions(block_size=_BLOCK, use_threads=False, column_names=header),
        parse_options=pc.ParseOptions(newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip),
        convert_options=pc.ConvertOptions(
            # as bytes: one value that is not UTF-8 must cost its row, not the file
            column_types={name: pa.binary() for name in header},
            include_columns=pinned,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )


def _header(text: io.BufferedReader) -> list[str]:
    line = text.readline(_LONGEST_HEADER)
    try:
        names = next(csv.reader([line.decode("utf-8")]), [])
    except (UnicodeDecodeError, csv.Error):
        names = []
    if not line.endswith(b"\n") or not names or len(set(names)) < len(names):
        raise RefusedDrop("does not begin with a line of column names, each once")
    return names


def _places(first: int, count: int, skipped: set[int]) -> Sequence[int]:
    """The numbers of `count` rows from `first` on, without those that were skipped."""
    if max(skipped, default=0) < first:
        return range(first, first + count)
    places: list[int] = []
    while len(places) < count:
        if first not in skipped:
            places.append(first)
        first += 1
    return places


def _decoded(batch: pa.RecordBatch, names: list[str]) -> tuple[dict[str, pa.Array], pa.Array]:
    """Columns as text; a value that is not UTF-8 becomes null and the problem of its row."""
    columns: dict[str, pa.Array] = {}
    problems: list[str | None] | None = None
    for name in names:
        values = batch.column(name)
        try:
            columns[name] = values.cast(pa.string())
        except pa.ArrowInvalid:
            problems = problems or [None] * batch.num_rows
            texts: list[str | None] = []
            for place, value in enumerate(values.to_pylist()):
                try:
                    texts.append(None if value is None else value.decode("utf-8"))
                except UnicodeDecodeError:
                    texts.append(None)
                    problems[place] = f"not UTF-8: {name}"
            columns[name] = pa.array(texts, pa.string())
    return columns, pa.array(problems or [None] * batch.num_rows, pa.string())


def _parquet(file: BinaryIO, size: int, table: Table, note: Note) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(file)
    facts = parquet.metadata
    expanded = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
    if expanded > _EXPANSION_FREE + _EXPANSION * size or facts.num_rows > _ROWS_PER_BYTE * size:
        raise RefusedDrop("decompresses to far more than a file of its size should")
    schema = parquet.schema_arrow
    pinned = []
    for leaf in table.columns:
        if leaf.name not in schema.names:
            if leaf.data_class != "forbidden":
                raise RefusedDrop(f"lacks the column {leaf.name}")
            continue
        pinned.append(leaf.name)
        if not _fits(schema.field(leaf.name).type, leaf.sql_type, leaf.data_class):
            raise RefusedDrop(f"holds column {leaf.name} as {schema.field(leaf.name).type}, not {leaf.sql_type}")
    if extra := set(schema.names) - set(pinned):
        note(f"{len(extra)} columns are not pinned and do not land")
    line = 1
    for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=pinned):
        columns = {leaf.name: pa.nulls(batch.num_rows, pa.string()) for leaf in table.columns}
        columns |= {name: batch.column(name) for name in pinned}
        yield _numbered(columns, pa.nulls(batch.num_rows, pa.string()), range(line, line + batch.num_rows))
        line += batch.num_rows


def _fits(kind: pa.DataType, sql_type: str, data_class: str) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return True
    if data_class in {"personal", "sensitive", "pan", "forbidden"}:
        return not bool(pa.types.is_nested(kind))  # lands as a token of its text
    if sql_type.startswith("decimal("):
        scale = int(sql_type.removesuffix(")").rpartition(",")[2])
        return bool(pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale <= scale))
    return bool(_TYPES[sql_type](kind))


def _bson(content: _Content, table: Table) -> Iterator[pa.Table]:
    """mongodump writes document after document, each beginning with its own length."""
    reader = io.BufferedReader(content, buffer_size=_BLOCK)

    def documents() -> Iterator[tuple[int, bytes]]:
        while head := reader.read(4):
            length = struct.unpack("<i", head)[0] if len(head) == 4 else 0
            if not 5 <= length <= LONGEST_DOCUMENT:
                raise RefusedDrop("is cut off or no BSON")
            body = reader.read(length - 4)
            if len(body) != length - 4:
                raise RefusedDrop("is cut off in the middle of a document")
            yield length, head + body

    as_row = _document_rows(table)
    yield from _rows(((size, as_row(raw)) for size, raw in documents()), _MONGODB)


def _json_documents(text: io.BufferedReader, table: Table) -> Iterator[pa.Table]:
    as_row = _document_rows(table)

    def row(line: bytes) -> tuple[Any, ...]:
        try:
            found = json_util.loads(line.decode("utf-8"), json_options=_EXTENDED)
            if not isinstance(found, dict):
                return None, None, None, "not an object"
            return as_row(bson.encode(found))
        except UnicodeDecodeError:
            return None, None, None, "not UTF-8"
        except (ValueError, TypeError, RecursionError):
            return None, None, None, "not extended JSON"
        except (bson.errors.BSONError, OverflowError):
            return None, None, None, "a value has no BSON form"

    yield from _rows(((len(line), row(line)) for line in _lines(text)), _MONGODB)


def _document_rows(table: Table) -> Callable[[bytes], tuple[Any, ...]]:
    path = tuple(table.cursor.split(".")) if table.cursor else ()

    return lambda raw: document_row(raw, path)[0]


def _json_messages(text: io.BufferedReader, table: Table) -> Iterator[pa.Table]:
    nothing = (None,) * (len(_STREAM) - 1)

    def row(line: bytes) -> tuple[Any, ...]:
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            return (*nothing, "not JSON")
        if not isinstance(message, dict):
            return (*nothing, "not an object")
        topic, partition, offset = (message.get(name) for name in ("topic", "partition", "offset"))
        if topic != table.origin:
            return (*nothing, "of another topic, or not written by kcat -J")
        if not (_whole(partition, 2**31) and _whole(offset, 2**63)):
            return (*nothing, "without partition and offset")
        at, key, payload = (message.get(name) for name in ("ts", "key", "payload"))
        if not isinstance(key, str | None) or not isinstance(payload, str | None):
            return (topic, partition, offset, None, None, None, "key or payload is not text")
        return topic, partition, offset, at if _whole(at, 253_402_300_800_000) else None, key, payload, None

    yield from _rows(((len(line), row(line)) for line in _lines(text)), _STREAM)


def _whole(value: object, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def _lines(text: io.BufferedReader) -> Iterator[bytes]:
    first = True
    while line := text.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise RefusedDrop(f"has a line of more than {LONGEST_LINE >> 20} MB")
        if stripped := line.strip():
            if first and stripped.startswith(b"["):
                raise RefusedDrop("is one JSON array; export a document per line (mongoexport without --jsonArray)")
            first = False
            yield stripped


def _rows(sized: Iterator[tuple[int, tuple[Any, ...]]], schema: pa.Schema) -> Iterator[pa.Table]:
    rows: list[tuple[Any, ...]] = []
    size, line = 0, 1
    for length, row in sized:
        rows.append(row)
        size += length
        if len(rows) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield _table(rows, schema, line)
            line += len(rows)
            rows, size = [], 0
    yield _table(rows, schema, line)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema, line: int) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = {field.name: pa.array(values, field.type) for field, values in zip(schema, columns, strict=True)}
    problem = arrays.pop("problem")
    return _numbered(arrays, problem, range(line, line + len(rows)))


def _numbered(columns: dict[str, Any], problem: Any, lines: Sequence[int]) -> pa.Table:
    return pa.table({"line": pa.array(lines, pa.int64()), "problem": problem.cast(pa.string()), **columns})
