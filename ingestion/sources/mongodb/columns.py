"""BSON into Arrow columns, many documents at a time.

Documents of one collection have few distinct structures. All documents of a block are walked in step: one numpy
operation reads the same element of every document, and the block is divided where the documents differ in a key, a
type or the length of an array. What remains together has one *shape*, and each of its values is a column. Text is
not copied: a column of text is a column of views into the batches as MongoDB sent them.

Nothing is guessed. A document that the walk cannot read exactly (a rare type, a date that has no year of four
digits, a NaN, text that is not UTF-8, a length that does not add up, a shape of its own) is left to the reader's
one-at-a-time path, which has a rule for each.

BSON: https://bsonspec.org/spec.html (1.1).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestion.shapes import Kind, Path, Shape

Positions = NDArray[np.int64]

MAX_LEAVES = 96
"""A shape with more values than this is rare and long; its documents go one at a time."""
MIN_DOCUMENTS = 32
"""A shape that fewer documents of a block have is not worth a query of its own."""

_DOUBLE, _STRING, _OBJECT, _ARRAY, _ID, _BOOLEAN, _DATE, _NULL = 0x01, 0x02, 0x03, 0x04, 0x07, 0x08, 0x09, 0x0A
_INT32, _INT64, _DECIMAL = 0x10, 0x12, 0x13
_FIXED: dict[int, tuple[Kind, int]] = {
    _DOUBLE: ("double", 8),
    _ID: ("id", 12),
    _BOOLEAN: ("boolean", 1),
    _DATE: ("date", 8),
    _NULL: ("null", 0),
    _INT32: ("integer", 4),
    _INT64: ("integer", 8),
    _DECIMAL: ("decimal", 16),
}
_YEAR_1000 = -30_610_224_000_000
_YEAR_10000 = 253_402_300_800_000
_DECIMAL_BIAS = 6176
_MAX_SCALE = 6
"""Up to here `str(Decimal)` never turns to scientific notation, whatever the coefficient."""
_PADDING = 8
_HEX = np.array([f"{byte:02x}".encode() for byte in range(256)], dtype="S2")


@dataclass(frozen=True)
class Columns:
    """The documents of one shape: column `c<n>` holds the value of the shape's n-th leaf."""

    shape: Shape
    table: pa.Table


@dataclass(frozen=True)
class Walked:
    """What became of a block: columns by shape, and the documents (by number) that go one at a time."""

    columns: tuple[Columns, ...]
    left: tuple[int, ...]


@dataclass(frozen=True)
class _Leaf:
    path: Path
    bson_type: int
    at: Positions
    scale: int = 0


@dataclass(frozen=True)
class _Group:
    """Documents that were equal in structure so far: numbers, where each stands, what was met on the way."""

    documents: Positions
    at: Positions
    open: tuple[tuple[Path, bool], ...]
    """Containers not closed yet: path, whether it is an array."""
    leaves: tuple[_Leaf, ...]

    def only(self, chosen: NDArray[np.bool_]) -> _Group:
        return replace(
            self,
            documents=self.documents[chosen],
            at=self.at[chosen],
            leaves=tuple(replace(leaf, at=leaf.at[chosen]) for leaf in self.leaves),
        )


class Block:
    """Whole BSON documents, one after the other."""

    def __init__(self, batches: Sequence[bytes]) -> None:
        self._bytes = b"".join((*batches, bytes(_PADDING)))
        self._end_of_documents = len(self._bytes) - _PADDING
        self.starts = _starts(self._bytes, self._end_of_documents)
        self._buffer = pa.py_buffer(self._bytes)
        self._u8 = self._unaligned("u1")
        self._u64 = self._unaligned("<u8")
        self._ends = np.append(self.starts[1:], self._end_of_documents)

    def __len__(self) -> int:
        return len(self.starts)

    def document(self, number: int) -> bytes:
        """The n-th document, as it came."""
        return self._bytes[self.starts[number] : self._ends[number]]

    def walk(self, wanted: Callable[[Shape], bool]) -> Walked:
        """Divide the documents by shape and read the values of those whose shape is wanted."""
        columns: list[Columns] = []
        left: list[Positions] = []
        groups = [_Group(np.arange(len(self)), self.starts + 4, (((), False),), ())] if len(self) else []
        while groups:
            group = groups.pop()
            while group.open:
                if len(group.documents) < MIN_DOCUMENTS or len(group.leaves) > MAX_LEAVES:
                    left.append(group.documents)
                    break
                group, others, lost = self._step(group)
                groups.extend(others)
                left.extend(lost)
            else:
                whole = group.at == self._ends[group.documents]
                left.append(group.documents[~whole])
                if whole.any() and (found := self._columns(group.only(whole), wanted)) is not None:
                    columns.append(found)
                else:
                    left.append(group.documents[whole])
        numbers = np.sort(np.concatenate(left)) if left else np.array([], dtype=np.int64)
        return Walked(tuple(columns), tuple(numbers.tolist()))

    def _step(self, group: _Group) -> tuple[_Group, list[_Group], list[Positions]]:
        """One element further: the group, what parted from it, and documents that cannot be walked."""
        others: list[_Group] = []
        lost: list[Positions] = []
        inside = group.at < self._ends[group.documents]
        if not inside.all():
            lost.append(group.documents[~inside])
            group = group.only(inside)
            if not len(group.documents):
                return group, others, lost
        header = self._header(int(group.at[0]), int(self._ends[group.documents[0]]))
        same = self._starts_with(group.at, header)
        if not same.all():
            others.append(group.only(~same))
            group = group.only(same)
        group = replace(group, at=group.at + len(header))
        path, in_array = group.open[-1]
        if header == b"\0":
            return self._closed(group), others, lost
        name = header[1:-1].decode("utf-8", "surrogateescape")
        element = (*path, int(name) if in_array and name.isascii() and name.isdigit() else name)
        match header[0]:
            case 0x03 | 0x04:
                opened = (element, header[0] == _ARRAY)
                return replace(group, at=group.at + 4, open=(*group.open, opened)), others, lost
            case 0x02:
                length = self._unaligned("<i4")[self._within(group.at, 4)].astype(np.int64)
                leaf = _Leaf(element, _STRING, group.at)
                fits = (length >= 1) & (group.at + 4 + length < self._ends[group.documents])
                group = replace(group, at=group.at + 4 + np.maximum(length, 0), leaves=(*group.leaves, leaf))
                if not fits.all():
                    lost.append(group.documents[~fits])
                    group = group.only(fits)
                return group, others, lost
            case kind if kind in _FIXED:
                size = _FIXED[kind][1]
                leaf = _Leaf(element, kind, group.at)
                group = replace(group, at=group.at + size, leaves=(*group.leaves, leaf))
                return self._regular(group, others, lost)
            case _:
                lost.append(group.documents)
                return group.only(np.zeros(len(group.documents), bool)), others, lost

    def _closed(self, group: _Group) -> _Group:
        """The end of a container. An empty one leaves a trace in the shape, others are seen by what they hold."""
        path, in_array = group.open[-1]
        leaves = group.leaves
        if path and not (leaves and leaves[-1].path[: len(path)] == path):
            leaves = (*leaves, _Leaf(path, _ARRAY if in_array else _OBJECT, group.at))
        return replace(group, open=group.open[:-1], leaves=leaves)

    def _regular(
        self, group: _Group, others: list[_Group], lost: list[Positions]
    ) -> tuple[_Group, list[_Group], list[Positions]]:
        """Values for which the one-at-a-time path has a rule of its own leave; decimals part by their scale."""
        *before, leaf = group.leaves
        match leaf.bson_type:
            case 0x01:
                regular = np.isfinite(self._unaligned("<f8")[self._within(leaf.at, 8)])
            case 0x09:
                moment = self._unaligned("<i8")[self._within(leaf.at, 8)]
                regular = (moment >= _YEAR_1000) & (moment < _YEAR_10000)
            case 0x13:
                coefficient = self._u64[self._within(leaf.at, 8)]
                high = self._u64[self._within(leaf.at + 8, 8)]
                scale = _DECIMAL_BIAS - ((high >> np.uint64(49)) & np.uint64(0x3FFF)).astype(np.int64)
                negative_zero = (coefficient == 0) & (high >> np.uint64(63) == 1)
                regular = (
                    (high & np.uint64((1 << 49) - 1) == 0)
                    & (coefficient < np.uint64(10**18))
                    & (scale >= 0)
                    & (scale <= _MAX_SCALE)
                    & ~negative_zero
                )
                if regular.any():
                    chosen = scale[regular][0]
                    other = regular & (scale != chosen)
                    if other.any():
                        # back to where this element's value begins would need its header: the scale decides alone
                        for value in np.unique(scale[other]):
                            parted = group.only(other & (scale == value))
                            *kept, last = parted.leaves
                            others.append(replace(parted, leaves=(*kept, replace(last, scale=int(value)))))
                    group = replace(group, leaves=(*before, replace(leaf, scale=int(chosen))))
                    lost.append(group.documents[~regular])
                    return group.only(regular & (scale == chosen)), others, lost
            case _:
                return group, others, lost
        if not regular.all():
            lost.append(group.documents[~regular])
            group = group.only(regular)
        return group, others, lost

    def _header(self, at: int, end: int) -> bytes:
        """Type, name and the name's NUL; or the single NUL that ends a container."""
        if self._bytes[at] == 0:
            return b"\0"
        name_end = self._bytes.find(b"\0", at + 1, end)
        return self._bytes[at : name_end + 1] if name_end > 0 else self._bytes[at:end]

    def _starts_with(self, at: Positions, header: bytes) -> NDArray[np.bool_]:
        same = np.ones(len(at), dtype=bool)
        for offset in range(0, len(header), 8):
            word = header[offset : offset + 8]
            expected = np.uint64(int.from_bytes(word, "little"))
            mask = np.uint64((1 << (8 * len(word))) - 1)
            same &= (self._u64[self._within(at + offset, 8)] & mask) == expected
        return same

    def _within(self, at: Positions, size: int) -> Positions:
        """Positions from which `size` bytes can be read; a document cut short is found out by its end."""
        return np.minimum(at, len(self._bytes) - size)

    def _unaligned(self, dtype: str) -> NDArray[Any]:
        kind = np.dtype(dtype)
        return np.ndarray((len(self._bytes) - kind.itemsize + 1,), kind, self._bytes, strides=(1,))

    def _columns(self, group: _Group, wanted: Callable[[Shape], bool]) -> Columns | None:
        """Arrow columns of a finished group; None when it is not wanted or a text is not UTF-8."""
        shape = tuple((leaf.path, _kind(leaf.bson_type)) for leaf in group.leaves)
        if not wanted(shape):
            return None
        arrays = [self._array(leaf) for leaf in group.leaves]
        try:
            for (_, kind), array in zip(shape, arrays, strict=True):
                if kind == "text":
                    array.validate(full=True)
        except pa.ArrowInvalid:
            return None
        return Columns(shape, pa.Table.from_arrays(arrays, [f"c{number}" for number in range(len(arrays))]))

    def _array(self, leaf: _Leaf) -> pa.Array:
        match leaf.bson_type:
            case 0x02:
                return self._views(leaf.at + 4, self._unaligned("<i4")[leaf.at].astype(np.int64) - 1)
            case 0x07:
                return _hex(self._u8[leaf.at[:, None] + np.arange(12)])
            case 0x01:
                return pa.array(self._unaligned("<f8")[leaf.at])
            case 0x08:
                return pa.array(self._u8[leaf.at] != 0)
            case 0x09:
                return (
                    pa.array(self._unaligned("<i8")[leaf.at], pa.int64())
                    .cast(pa.timestamp("ms"))
                    .cast(pa.timestamp("us"))
                )
            case 0x10:
                return pa.array(self._unaligned("<i4")[leaf.at])
            case 0x12:
                return pa.array(self._unaligned("<i8")[leaf.at])
            case 0x13:
                return self._decimals(leaf)
            case _:
                return pa.nulls(len(leaf.at), pa.string())

    def _views(self, offsets: Positions, lengths: Positions) -> pa.Array:
        """Arrow's string views: up to 12 bytes inside the view, longer ones as prefix, buffer and offset."""
        views = np.zeros((len(offsets), 4), dtype="<u4")
        views[:, 0] = lengths
        short = lengths <= 12
        for word in range(3):
            start = 4 * word
            value = self._unaligned("<u4")[self._within(offsets + start, 4)].copy()
            kept = np.clip(lengths - start, 0, 4)
            value &= ((np.uint64(1) << (kept.astype(np.uint64) * np.uint64(8))) - np.uint64(1)).astype("<u4")
            views[:, 1 + word] = value
        views[~short, 2] = 0
        views[~short, 3] = offsets[~short]
        return pa.Array.from_buffers(pa.string_view(), len(offsets), [None, pa.py_buffer(views), self._buffer])

    def _decimals(self, leaf: _Leaf) -> pa.Array:
        negative = (self._u64[leaf.at + 8] >> np.uint64(63)) == 1
        low = self._u64[leaf.at].astype(np.int64)
        words = np.empty((len(low), 2), dtype="<i8")
        words[:, 0] = np.where(negative, -low, low)
        words[:, 1] = np.where(words[:, 0] < 0, -1, 0)
        return pa.Array.from_buffers(pa.decimal128(18, leaf.scale), len(low), [None, pa.py_buffer(words)])


def _kind(bson_type: int) -> Kind:
    match bson_type:
        case 0x02:
            return "text"
        case 0x03:
            return "object"
        case 0x04:
            return "array"
        case _:
            return _FIXED[bson_type][0]


def _starts(data: bytes, end: int) -> Positions:
    """Where each document begins, from their lengths. Raises ValueError when they do not add up."""
    starts: list[int] = []
    at = 0
    length = struct.Struct("<i").unpack_from
    while at < end:
        starts.append(at)
        (size,) = length(data, at)
        if size < 5 or at + size > end:
            raise ValueError("a batch of MongoDB does not consist of whole documents")
        at += size
    return np.array(starts, dtype=np.int64)


def _hex(rows: NDArray[np.uint8]) -> pa.Array:
    text = np.ascontiguousarray(_HEX[rows])
    offsets = np.arange(0, 24 * (len(rows) + 1), 24, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
