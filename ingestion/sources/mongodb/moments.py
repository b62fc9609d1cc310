"""Texts for Arrow, made many at a time: its string views, and moments as ISO 8601."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DAY = 86_400_000
_WHOLE, _PARTED = len("2024-01-01T00:00:00Z"), len("2024-01-01T00:00:00.000000Z")
_CELL = np.dtype([("day", "V10"), ("t", "V1"), ("time", "V8"), ("rest", "V8")])
_INLINE = 12
"""Bytes of a text that stand in its view."""
_FEW_DAYS = 40_000
_KEPT = np.array(
    [[(1 << 8 * min(max(length - 4 * word, 0), 4)) - 1 for word in range(3)] for length in range(_INLINE + 1)], "<u4"
)
"""Length of a short text → which bits of the three words after it are its own."""


def string_views(views: NDArray[np.uint32], offsets: NDArray[np.uint32], buffer: pa.Buffer) -> pa.Array:
    """Arrow's string views, over texts in one buffer.

    Args:
        views: a row for each: its length in bytes, and the first 12 bytes from its beginning on, whose ever they are.
        offsets: where each begins.
    """
    lengths = views[:, 0]
    short = lengths <= _INLINE
    if short.all():
        views[:, 1:] &= _KEPT[lengths]
    else:
        views[:, 1:] &= _KEPT[np.minimum(lengths, _INLINE)]
        views[:, 2] = np.where(short, views[:, 2], 0)
        views[:, 3] = np.where(short, views[:, 3], offsets)
    return pa.Array.from_buffers(pa.string_view(), len(views), [None, pa.py_buffer(views), buffer])


def iso_texts(milliseconds: NDArray[np.int64]) -> pa.Array:
    """Moments of the years 1000 to 9999 as `datetime.isoformat` writes them in UTC, with a Z for the zone.

    Args:
        milliseconds: since 1970.
    """
    days, in_day = np.divmod(milliseconds, _DAY)
    seconds, fraction = np.divmod(in_day, 1000)
    cells = np.empty(len(milliseconds), _CELL)
    cells["day"] = _day_texts(days)
    cells["t"] = np.frombuffer(b"T", "V1")[0]
    cells["time"] = _times()[seconds]
    cells["rest"] = _rests()[fraction]
    views = np.empty((len(cells), 4), "<u4")
    views[:, 0] = np.where(fraction == 0, _WHOLE, _PARTED)
    views[:, 1:] = _bytes(cells)[:, :_INLINE].copy().view("<u4")
    offsets = np.arange(0, _CELL.itemsize * len(cells), _CELL.itemsize, dtype="<u4")
    return string_views(views, offsets, pa.py_buffer(cells))


def _bytes(cells: NDArray[Any]) -> NDArray[np.uint8]:
    return cells.view("u1").reshape(len(cells), _CELL.itemsize)


def _day_texts(days: NDArray[np.int64]) -> NDArray[Any]:
    if not len(days):
        return np.empty(0, "V10")
    first, last = int(days.min()), int(days.max())
    if last - first < _FEW_DAYS:
        names, places = np.arange(first, last + 1), days - first
    else:
        names, places = np.unique(days, return_inverse=True)
    texts = np.datetime_as_string(names.astype("M8[D]")).astype("S10").view("V10")
    return np.asarray(texts[places])


@cache
def _times() -> NDArray[Any]:
    """Second of a day → `12:34:56`."""
    texts = [f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}".encode() for second in range(86_400)]
    return np.array(texts, "S8").view("V8")


@cache
def _rests() -> NDArray[Any]:
    """Milliseconds → what ends the text; behind a whole second, seven bytes that are not its own."""
    texts = [b"Z.......", *(f".{fraction:03}000Z".encode() for fraction in range(1, 1000))]
    return np.array(texts, "S8").view("V8")
