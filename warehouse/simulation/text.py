"""Columns of text made in bulk: numbers, times, amounts and identifiers as Arrow strings."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.simulation.draws import Integers
from warehouse.simulation.reality import DAY, SECOND
from warehouse.simulation.world import FIRST_NUMBER

Strings: TypeAlias = Any
"""A pyarrow StringArray."""


def pick(values: list[str] | list[str | None], indices: Integers) -> Strings:
    """`values[i]` for every index."""
    return pa.array(values, pa.string()).take(pa.array(indices))


def join(*parts: Strings | str) -> Strings:
    """The parts of each row, one after the other. A null part makes the row null."""
    return pc.binary_join_element_wise(*parts, "")


def padded(numbers: Integers, width: int) -> Strings:
    """Decimal digits with leading zeros."""
    return pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")


def customer_ids(numbers: Integers, prefix: str = "CUSTOMER") -> Strings:
    """`CUSTOMER0010001` for member 0; `prefix` CUST for the document store's spelling."""
    return join(prefix, padded(numbers + FIRST_NUMBER, 7))


def merchant_ids(numbers: Integers, prefix: str = "MERCHANT") -> Strings:
    """`MERCHANT0010001` for member 0; `prefix` MERCH for the document store's spelling."""
    return join(prefix, padded(numbers + FIRST_NUMBER, 7))


def entity_ids(prefix: str, numbers: Integers) -> Strings:
    """`<prefix>0010001` for member 0."""
    return join(prefix, padded(numbers + FIRST_NUMBER, 8))


def iso_times(moments: Integers) -> Strings:
    """`2024-01-31T23:59:59.123Z` for milliseconds since 1970, by look-up: ten times faster than formatting."""
    day = moments // DAY
    first = int(day.min(initial=0 if not len(day) else int(day[0])))
    dates = [
        (dt.date(1970, 1, 1) + dt.timedelta(days=number)).isoformat()
        for number in range(first, int(day.max(initial=first)) + 1)
    ]
    clock, fraction = _clock_tables()
    within = moments - day * DAY
    return join(
        pa.array(dates, pa.string()).take(pa.array(day - first)),
        clock.take(pa.array(within // SECOND)),
        fraction.take(pa.array(within % SECOND)),
    )


@lru_cache(maxsize=1)
def _clock_tables() -> tuple[Strings, Strings]:
    clock = [f"T{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in range(86_400)]
    return pa.array(clock), pa.array([f".{ms:03d}Z" for ms in range(1000)])


def amounts(minor: Integers, exponent: Integers) -> Strings:
    """Decimal text with exactly the currency's decimals: 12050 with exponent 2 is `120.50`."""
    scale = 10**exponent
    absolute = np.abs(minor)
    fractions, offsets = _fraction_table()
    return join(
        pick(["", "-"], (minor < 0).astype(np.int64)),
        pc.cast(pa.array(absolute // scale), pa.string()),
        fractions.take(pa.array(offsets[exponent] + absolute % scale)),
    )


@lru_cache(maxsize=1)
def _fraction_table() -> tuple[Strings, Integers]:
    texts = [""]
    offsets = [0]
    for exponent in range(1, 5):
        offsets.append(len(texts))
        texts += [f".{number:0{exponent}d}" for number in range(10**exponent)]
    return pa.array(texts), np.array(offsets, dtype=np.int64)


def timestamps(moments: Integers) -> Any:
    """UTC timestamps; `NEVER` becomes null."""
    return pa.array(moments, pa.timestamp("ms", tz="UTC"), mask=moments >= 2**62)


def numeric(minor: Integers, exponent: Integers) -> Strings:
    """The same amounts with four decimals, as the columns numeric(18,4) hold them."""
    return amounts(minor * 10 ** (4 - exponent), np.full(len(minor), 4))
