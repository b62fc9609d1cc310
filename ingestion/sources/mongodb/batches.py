"""The documents of a query as the server sends them, batch by batch, with nothing made of them.

pymongo's `find_raw_batches` makes an object of every document of an answer before it gives their bytes: three quarters
of what reading costs. Here the answer stays one text of bytes, and the documents in it are found by their lengths. That
takes commands of our own, which know no server but the primary: a deployment where the batches of one query would have
to be asked for elsewhere is read by `find_raw_batches`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ReadPreference
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import PyMongoError

BATCH_BYTES = 4 * 2**20
"""What a batch is to be: the server works on the next one while this one is walked, and it fits into a cache."""
PADDING = 1024
"""Bytes after the last document of a batch, so that a little more can be read of each."""
_FIRST = 2048
"""Documents of the first batch, from which the size of a document is learned."""
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_PINNED = frozenset({"Single", "ReplicaSetWithPrimary"})
"""Topologies in which every command without a preference goes to the same server."""
_DOCUMENT, _ARRAY, _INT64 = 0x03, 0x04, 0x12
_LENGTH = struct.Struct("<i").unpack_from
_CURSOR_ID = struct.Struct("<q").unpack_from


@dataclass(frozen=True)
class Batch:
    """Bytes that hold whole BSON documents and :data:`PADDING`, and where each of the documents begins."""

    data: bytes
    starts: Sequence[int]

    def stored(self) -> memoryview:
        """From the first document's beginning to the last one's end; in between nothing but their numbers, at most."""
        last = self.starts[-1]
        return memoryview(self.data)[self.starts[0] : _after(self.data, last, len(self.data))]


def batches(
    database: Database[dict[str, Any]], collection: str, query: Mapping[str, Any], session: ClientSession
) -> Iterator[Batch]:
    """Every document that the query finds, in batches that are not empty."""
    is_pinned = database.client.topology_description.topology_type_name in _PINNED
    if is_pinned and database.read_preference == ReadPreference.PRIMARY:
        yield from _asked(database, collection, query, session)
        return
    for stream in database[collection].find_raw_batches(query, session=session):
        yield in_stream(cast(bytes, stream))


def _asked(
    database: Database[dict[str, Any]], collection: str, query: Mapping[str, Any], session: ClientSession
) -> Iterator[Batch]:
    command: dict[str, Any] = {"find": collection, "filter": query}
    wanted = _FIRST
    cursor = 0
    try:
        while True:
            answer = database.command({**command, "batchSize": wanted}, session=session, codec_options=_RAW)
            data = b"".join((answer["cursor"].raw, bytes(PADDING)))
            cursor, begin, end = _parts(data)
            batch = _in_array(data, begin, end)
            if batch.starts:
                wanted = max(1, BATCH_BYTES * len(batch.starts) // (end - begin))
                yield batch
            if not cursor:
                return
            command = {"getMore": cursor, "collection": collection}
    except GeneratorExit:  # left before its end; a server that failed is not asked for more
        if cursor:
            with suppress(PyMongoError):
                database.command({"killCursors": collection, "cursors": [cursor]}, session=session)
        raise


def in_stream(data: bytes) -> Batch:
    """Documents that follow one another. Raises ValueError when their lengths do not add up."""
    starts: list[int] = []
    at = 0
    while at < len(data):
        starts.append(at)
        at = _after(data, at, len(data))
    return Batch(data + bytes(PADDING), starts)


def _in_array(data: bytes, begin: int, end: int) -> Batch:
    """The documents of a BSON array, whose elements (type, number, NUL, document) fill `data` from begin to end."""
    starts: list[int] = []
    at, digits, next_digit_at = begin, 1, 10
    while at < end:
        if len(starts) == next_digit_at:
            digits += 1
            next_digit_at *= 10
        at += digits + 2
        starts.append(at)
        at = _after(data, at, end)
    return Batch(data, starts)


def _after(data: bytes, at: int, end: int) -> int:
    """Where the document at `at` ends."""
    size = _LENGTH(data, at)[0] if at + 4 <= end else 0
    if size < 5 or at + size > end:
        raise ValueError("a batch of MongoDB does not consist of whole documents")
    return int(at + size)


def _parts(data: bytes) -> tuple[int, int, int]:
    """Of the `cursor` of an answer: its id, and where the elements of its batch begin and end."""
    cursor, begin, end = 0, 0, 0
    for kind, name, at in _elements(data):
        if kind == _INT64 and name == b"id":
            (cursor,) = _CURSOR_ID(data, at)
        elif kind == _ARRAY and name in (b"firstBatch", b"nextBatch"):
            begin, end = at + 4, at + _LENGTH(data, at)[0] - 1
    return cursor, begin, end


_SIZES = {0x01: 8, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, _INT64: 8}


def _elements(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Type, name and place of the value of each element of a document."""
    at = 4
    while data[at]:
        name_end = data.index(b"\0", at + 1)
        kind, name, value = data[at], data[at + 1 : name_end], name_end + 1
        yield kind, name, value
        if kind in (_DOCUMENT, _ARRAY):
            at = value + _LENGTH(data, value)[0]
        elif kind == 0x02:
            at = value + 4 + _LENGTH(data, value)[0]
        elif kind in _SIZES:
            at = value + _SIZES[kind]
        else:
            raise ValueError("MongoDB answers in a form that is not known")
