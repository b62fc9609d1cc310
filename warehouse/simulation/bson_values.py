"""Values as the MongoDB driver wants them, made in bulk."""

from __future__ import annotations

import datetime as dt

import numpy as np
from bson import ObjectId

from warehouse.simulation.draws import Draws, Integers
from warehouse.simulation.reality import SECOND


def object_ids(moments: Integers, kind: str, numbers: Integers) -> list[ObjectId]:
    """The same ObjectId for the same thing, always: four bytes of time, eight of a hash of (kind, number)."""
    packed = np.empty(len(numbers), dtype=[("seconds", ">u4"), ("hash", ">u8")])
    packed["seconds"] = moments // SECOND
    packed["hash"] = Draws(0, kind, numbers).bits("object id")
    raw = packed.tobytes()
    return [ObjectId(raw[start : start + 12]) for start in range(0, len(raw), 12)]


def utc(moment: int | np.int64) -> dt.datetime:
    """Milliseconds since 1970 as a point in time."""
    return dt.datetime.fromtimestamp(int(moment) / 1000, dt.UTC)


def utc_list(moments: Integers) -> list[dt.datetime]:
    """A whole column of points in time, without zone: the driver takes them for UTC."""
    result: list[dt.datetime] = moments.astype("datetime64[ms]").tolist()
    return result
