"""The reference data set: every row of it is written out in the files beside this one.

`oltp/<table>.csv`, `mongodb/<collection>.jsonl` (MongoDB Extended JSON, one document per line) and
`stream.jsonl` (one event per line, in the order they were sent). It is part of every data set.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import orjson
from bson import json_util

from warehouse.simulation.stores.stream import Message

CURRENT_DATE = dt.date(2023, 12, 31)
"""The reference company has lived through every day before this one."""

_FOLDER = files(__name__)
_JSON_OPTIONS = json_util.JSONOptions(tz_aware=True, tzinfo=dt.UTC, json_mode=json_util.JSONMode.RELAXED)


def oltp_csv(table: str) -> bytes:
    """The rows of one PostgreSQL table as CSV with a header."""
    return _FOLDER.joinpath("oltp", f"{table}.csv").read_bytes()


def documents(collection: str) -> list[dict[str, Any]]:
    """The documents of one collection, with BSON types."""
    text = _FOLDER.joinpath("mongodb", f"{collection}.jsonl").read_text(encoding="utf-8")
    return [json_util.loads(line, json_options=_JSON_OPTIONS) for line in text.splitlines()]


def messages() -> Iterator[Message]:
    """The events of the reference payments and payouts."""
    for line in _FOLDER.joinpath("stream.jsonl").read_bytes().splitlines():
        event = orjson.loads(line)
        key = event["transaction_id"] or event["attributes"]["payout_id"]
        yield key, line, int(dt.datetime.fromisoformat(event["occurred_at"]).timestamp() * 1000)
