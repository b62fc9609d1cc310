"""BSON into Arrow columns, many documents at a time.

Documents of one collection have few distinct structures. All documents of a block are walked in step: one numpy
operation reads the same stretch of every document, which goes from the end of one text to the beginning of the next,
because in between everything has its place. It is compared with that of the first document under a mask that leaves
the values out, and the block is divided where the documents differ in a key, a type or the length of an array. What
remains together has one *shape*, and each of its values is a column. Text is not copied: a column of text is a column
of views into the batch as MongoDB sent it.

Nothing is guessed. A document that the walk cannot read exactly (a rare type, a date that has no year of four
digits, a NaN, text that is not UTF-8, a length that does not add up, a shape of its own) is left to the reader's
one-at-a-time path, which has a rule for each.

BSON: https://bsonspec.org/spec.html (1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestion.shapes import Kind, Path, Shape, date_text_column
from ingestion.sources.mongodb.batches import PADDING, Batch
from ingestion.sources.mongodb.moments import iso_texts, string_views

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
_ENOUGH = PADDING // 2
"""A stretch of so many bytes goes no further: the next step does."""
_HEX = np.array([f"{first:02x}{second:02x}".encode() for second in range(256) for first in range(256)], dtype="V4")
"""Two bytes, as a little-endian number → their hexadecimal digits."""


@dataclass(frozen=True)
class Columns:
    """The documents of one shape: column `c<n>` holds the value of the shape's n-th leaf.

    A date is a moment there, and a text in the column that `ingestion.shapes.date_text_column` names.
    """

    shape: Shape
    table: pa.Table


@dataclass(frozen=True)
class Walked:
    """What became of a block: columns by shape, and the documents (by number) that go one at a time."""

    columns: tuple[Columns, ...]
    left: tuple[int, ...]


@dataclass(frozen=True)
class _Read:
    """Bytes that were read of every document of a group, a row of them each; `picked` are those that are left."""

    rows: NDArray[Any]
    picked: Positions | None = None

    def only(self, chosen: Positions) -> _Read:
        return replace(self, picked=chosen if self.picked is None else self.picked[chosen])

    def column(self, begin: int, end: int) -> NDArray[Any]:
        """These of the columns of the rows, contiguous."""
        part = self.rows[:, begin:end]
        return np.ascontiguousarray(part if self.picked is None else part[self.picked])


@dataclass(frozen=True)
class _Leaf:
    """One value: the row it stands in (number of a `_Read`), and where in it."""

    path: Path
    bson_type: int
    read: int = 0
    offset: int = 0
    scale: int = 0


@dataclass(frozen=True)
class _Group:
    """Documents that were equal in structure so far: numbers, where each stands, what was met on the way."""

    documents: Positions
    at: Positions
    open: tuple[tuple[Path, bool], ...]
    """Containers not closed yet: path, whether it is an array."""
    leaves: tuple[_Leaf, ...] = ()
    reads: tuple[_Read, ...] = ()
    after_text: bool = False
    """Whether they stand at the NUL that ends a text."""

    def only(self, chosen: NDArray[np.bool_]) -> _Group:
        if chosen.all():
            return self
        places = np.flatnonzero(chosen)
        return replace(
            self,
            documents=self.documents[places],
            at=self.at[places],
            reads=tuple(read.only(places) for read in self.reads),
        )


@dataclass
class _Stretch:
    """What the first document of a group has up to its next text: its bytes, which of them are structure, its values.

    `is_readable` is false of an element that the walk has no rule for; the stretch is then that element's beginning.
    """

    open: list[tuple[Path, bool]]
    leaves: list[_Leaf]
    expected: bytearray = field(default_factory=bytearray)
    mask: bytearray = field(default_factory=bytearray)
    text: Path | None = None
    is_readable: bool = True

    def structure(self, data: bytes) -> None:
        self.expected += data
        self.mask += b"\xff" * len(data)

    def value(self, size: int) -> None:
        self.expected += bytes(size)
        self.mask += bytes(size)


class Block:
    """A batch of documents."""

    def __init__(self, batch: Batch) -> None:
        self._bytes = batch.data
        self._buffer = pa.py_buffer(self._bytes)
        self.starts = np.array(batch.starts, dtype=np.int64)
        self._ends = self.starts + self._rows(self.starts, 4).view("<i4").ravel()

    def __len__(self) -> int:
        return len(self.starts)

    def document(self, number: int) -> bytes:
        """The n-th document, as it came."""
        return self._bytes[self.starts[number] : self._ends[number]]

    def walk(self, wanted: Callable[[Shape], bool]) -> Walked:
        """Divide the documents by shape and read the values of those whose shape is wanted."""
        columns: list[Columns] = []
        left: list[Positions] = []
        groups = [_Group(np.arange(len(self)), self.starts + 4, (((), False),))] if len(self) else []
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
        """One stretch further: the group, what parted from it, and documents that cannot be walked."""
        others: list[_Group] = []
        lost: list[Positions] = []
        inside = group.at < self._ends[group.documents]
        if not inside.all():
            lost.append(group.documents[~inside])
            group = group.only(inside)
            if not len(group.documents):
                return group, others, lost
        stretch = self._stretch(group)
        if len(stretch.expected) > PADDING - 16:  # a very long name
            return group.only(np.zeros(len(group.documents), bool)), others, [*lost, group.documents]
        rows, same = self._compared(group.at, stretch)
        if same is not None:
            others.append(group.only(~same))
            group, rows = group.only(same), rows[same]
        if not stretch.is_readable:
            return group.only(np.zeros(len(group.documents), bool)), others, [*lost, group.documents]
        size = len(stretch.expected)
        group = replace(
            group,
            at=group.at + size,
            open=tuple(stretch.open),
            leaves=(*group.leaves, *(replace(leaf, read=len(group.reads)) for leaf in stretch.leaves)),
            reads=(*group.reads, _Read(rows)),
            after_text=False,
        )
        group = self._regular(group, stretch.leaves, others, lost)
        if stretch.text is None or not len(group.documents):
            return group, others, lost
        views = self._rows(group.at, 16)
        length = views[:, :4].copy().view("<i4").ravel().astype(np.int64)
        fits = (length >= 1) & (group.at + 4 + length < self._ends[group.documents])
        group = replace(
            group,
            at=group.at + 3 + np.maximum(length, 0),
            leaves=(*group.leaves, _Leaf(stretch.text, _STRING, len(group.reads))),
            reads=(*group.reads, _Read(np.column_stack((views.view("<u4"), (group.at + 4).astype("<u4"))))),
            after_text=True,
        )
        if not fits.all():
            lost.append(group.documents[~fits])
            group = group.only(fits)
        return group, others, lost

    def _stretch(self, group: _Group) -> _Stretch:
        """What comes next in the group's first document."""
        at, end = int(group.at[0]), int(self._ends[group.documents[0]])
        found = _Stretch(list(group.open), [])
        before = len(group.leaves)
        last = group.leaves[-1] if group.leaves else None
        if group.after_text:
            found.structure(self._bytes[at : at + 1])
            if self._bytes[at]:
                found.is_readable = False
                return found
            at += 1
        while found.open and len(found.expected) < _ENOUGH and before + len(found.leaves) <= MAX_LEAVES and at < end:
            header = self._header(at, end)
            path, in_array = found.open[-1]
            if header == b"\0":
                found.structure(header)
                at += 1
                del found.open[-1]
                # an empty container leaves a trace in the shape, others are seen by what they hold
                if path and not (last and last.path[: len(path)] == path):
                    last = _Leaf(path, _ARRAY if in_array else _OBJECT)
                    found.leaves.append(last)
                continue
            kind = header[0]
            size = 4 if kind in (_STRING, _OBJECT, _ARRAY) else _FIXED[kind][1] if kind in _FIXED else None
            if size is None or header[-1] != 0 or at + len(header) + size > end:
                if len(found.expected) == group.after_text:  # nothing before it
                    found.structure(header)
                    found.is_readable = False
                return found
            name = header[1:-1].decode("utf-8", "surrogateescape")
            element = (*path, int(name) if in_array and name.isascii() and name.isdigit() else name)
            found.structure(header)
            if kind == _STRING:
                found.text = element
                return found
            if kind in (_OBJECT, _ARRAY):
                found.open.append((element, kind == _ARRAY))
            else:
                last = _Leaf(element, kind, offset=len(found.expected))
                found.leaves.append(last)
            found.value(size)
            at += len(header) + size
            if kind == _DECIMAL:  # here documents part by the scale
                return found
        return found

    def _compared(self, at: Positions, stretch: _Stretch) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """The bytes of a stretch of every document, and which have the same structure; None: all have."""
        size = -len(stretch.expected) % 8
        expected = np.frombuffer(bytes(stretch.expected) + bytes(size), "<u8")
        mask = np.frombuffer(bytes(stretch.mask) + bytes(size), "<u8")
        rows = self._rows(at, 8 * len(expected))
        differences = rows.view("<u8") ^ expected
        differences &= mask
        return rows, ~differences.any(axis=1) if differences.any() else None

    def _regular(self, group: _Group, leaves: Sequence[_Leaf], others: list[_Group], lost: list[Positions]) -> _Group:
        """Values for which the one-at-a-time path has a rule of its own leave; decimals part by their scale."""
        rows = group.reads[-1]
        regular: NDArray[np.bool_] | None = None
        scale: Positions | None = None
        for leaf in leaves:
            match leaf.bson_type:
                case 0x01:
                    fits = np.isfinite(rows.column(leaf.offset, leaf.offset + 8).view("<f8").ravel())
                case 0x09:
                    moment = rows.column(leaf.offset, leaf.offset + 8).view("<i8").ravel()
                    fits = (moment >= _YEAR_1000) & (moment < _YEAR_10000)
                case 0x13:
                    words = rows.column(leaf.offset, leaf.offset + 16).view("<u8")
                    coefficient, high = words[:, 0], words[:, 1]
                    scale = _DECIMAL_BIAS - ((high >> np.uint64(49)) & np.uint64(0x3FFF)).astype(np.int64)
                    negative_zero = (coefficient == 0) & (high >> np.uint64(63) == 1)
                    fits = (
                        (high & np.uint64((1 << 49) - 1) == 0)
                        & (coefficient < np.uint64(10**18))
                        & (scale >= 0)
                        & (scale <= _MAX_SCALE)
                        & ~negative_zero
                    )
                case _:
                    continue
            regular = fits if regular is None else regular & fits
        if regular is None:
            return group
        if not regular.all():
            lost.append(group.documents[~regular])
            group = group.only(regular)
            scale = None if scale is None else scale[regular]
        if scale is None or not len(scale):
            return group
        *kept, last = group.leaves  # a decimal ends its stretch
        scales = np.unique(scale)
        parted = [
            replace(group.only(scale == value), leaves=(*kept, replace(last, scale=int(value)))) for value in scales
        ]
        others.extend(parted[1:])
        return parted[0]

    def _header(self, at: int, end: int) -> bytes:
        """Type, name and the name's NUL; or the single NUL that ends a container."""
        if self._bytes[at] == 0:
            return b"\0"
        name_end = self._bytes.find(b"\0", at + 1, end)
        return self._bytes[at : name_end + 1] if name_end > 0 else self._bytes[at:end]

    def _rows(self, at: Positions, size: int) -> NDArray[np.uint8]:
        """`size` bytes from each position on, a row each. As items of that size: numpy then copies them whole."""
        items = np.ndarray((max(len(self._bytes) - size + 1, 0),), f"V{size}", self._bytes, strides=(1,))
        return items[at].view("u1").reshape(len(at), size)

    def _columns(self, group: _Group, wanted: Callable[[Shape], bool]) -> Columns | None:
        """Arrow columns of a finished group; None when it is not wanted or a text is not UTF-8."""
        shape = tuple((leaf.path, _kind(leaf.bson_type)) for leaf in group.leaves)
        if not wanted(shape):
            return None
        arrays: dict[str, pa.Array] = {}
        try:
            for number, leaf in enumerate(group.leaves):
                name = f"c{number}"
                arrays[name] = self._array(group, leaf)
                if leaf.bson_type == _STRING:
                    arrays[name].validate(full=True)
                if leaf.bson_type == _DATE:
                    milliseconds = self._value(group, leaf, 8, "<i8")
                    arrays[date_text_column(name)] = iso_texts(milliseconds)
        except pa.ArrowInvalid:
            return None
        return Columns(shape, pa.table(arrays))

    def _array(self, group: _Group, leaf: _Leaf) -> pa.Array:
        match leaf.bson_type:
            case 0x02:
                return self._views(group.reads[leaf.read])
            case 0x07:
                return _hex(self._value(group, leaf, 12, "<u2"))
            case 0x01:
                return pa.array(self._value(group, leaf, 8, "<f8"))
            case 0x08:
                return pa.array(self._value(group, leaf, 1, "u1") != 0)
            case 0x09:
                return pa.array(self._value(group, leaf, 8, "<i8") * 1000).view(pa.timestamp("us", tz="UTC"))
            case 0x10:
                return pa.array(self._value(group, leaf, 4, "<i4"))
            case 0x12:
                return pa.array(self._value(group, leaf, 8, "<i8"))
            case 0x13:
                return _decimals(self._value(group, leaf, 16, "<u8"), leaf.scale)
            case _:
                return pa.nulls(len(group.documents), pa.string())

    def _value(self, group: _Group, leaf: _Leaf, size: int, dtype: str) -> NDArray[Any]:
        return group.reads[leaf.read].column(leaf.offset, leaf.offset + size).view(dtype).ravel()

    def _views(self, read: _Read) -> pa.Array:
        """BSON's texts as Arrow's: length, then up to 12 bytes, or the first four, a buffer and an offset."""
        found = read.column(0, 5)
        views = np.ascontiguousarray(found[:, :4])
        views[:, 0] -= 1
        return string_views(views, found[:, 4], self._buffer)


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


def _decimals(words: NDArray[np.uint64], scale: int) -> pa.Array:
    low = words[::2].astype(np.int64)
    numbers = np.empty((len(low), 2), dtype="<i8")
    numbers[:, 0] = np.where(words[1::2] >> np.uint64(63) == 1, -low, low)
    numbers[:, 1] = np.where(numbers[:, 0] < 0, -1, 0)
    return pa.Array.from_buffers(pa.decimal128(18, scale), len(low), [None, pa.py_buffer(numbers)])


def _hex(pairs: NDArray[np.uint16]) -> pa.Array:
    text = _HEX[pairs]
    offsets = np.arange(0, 4 * len(pairs) + 1, 24, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(pairs) // 6, [None, pa.py_buffer(offsets), pa.py_buffer(text)])
