"""MongoDB → lake, beside draining the raw batches undecoded and beside a loader that takes one document at a time.

The drain is pymongo's `find_raw_batches`, which makes an object of every document; what the same bytes cost the way we
ask for them is reported as well, and is the stricter limit.

Documents like `Transactions`, with three personal values each, and the same without them: tokens are the larger part of
the work, and the goal is about reading. `BENCH_DOCUMENTS` sets their number. The goal's path ends with the sealed files
of the lake; what the whole landing takes, up to the rows in the warehouse, is reported beside it.
"""

from __future__ import annotations

import dataclasses
import os
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from bson import Decimal128, ObjectId
from pymongo import MongoClient

from benchmarks.harness import Case, Outcome, Row, Stopwatch, Summary, interleaved, paired
from benchmarks.landing_case import Home, embedded, ingested, land, without_landings
from ingestion.schema import Table, tables
from ingestion.sources.mongodb import MongoReader
from ingestion.sources.mongodb.batches import batches
from ingestion.sources.mongodb.reader import DATABASE
from warehouse import servers
from warehouse.privacy.tokens import pseudonym

DOCUMENTS = int(os.environ.get("BENCH_DOCUMENTS", "200000"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))
PERSONAL, PLAIN = "Transactions", "TransactionsWithoutPersons"
_BATCH = 5_000
_START = datetime(2024, 1, 1, tzinfo=UTC)


def measure() -> list[Row]:
    """Fill an embedded MongoDB and time each way, interleaved."""
    rows: list[Row] = []
    with embedded() as (home, endpoints):
        total = fill(str(endpoints.mongodb_admin_uri))
        for collection, label in ((PLAIN, "no personal value"), (PERSONAL, "three personal values each")):
            cases: dict[str, Case] = {
                "drained": (drained, (str(endpoints.mongodb_uri), collection)),
                "read": (read, (str(endpoints.mongodb_uri), collection)),
                "landed": (landed, (home, collection)),
                "whole": (whole, (home, collection)),
                "one": (one_at_a_time, (str(endpoints.mongodb_uri), collection)),
            }
            rows += _rows(interleaved(cases, (DOCUMENTS, total), REPEATS), label, has_goal=collection == PLAIN)
    return rows


def fill(uri: str) -> Decimal:
    """Two collections of equal amounts; returns their sum."""
    draws = random.Random(1)  # noqa: S311  # made-up documents
    total = Decimal(0)
    with MongoClient[dict[str, Any]](uri) as client:
        for start in range(0, DOCUMENTS, _BATCH):
            documents = [_document(number, draws) for number in range(start, min(start + _BATCH, DOCUMENTS))]
            total += sum((Decimal(str(document["amount"])) for document in documents), Decimal(0))
            client[DATABASE][PERSONAL].insert_many(documents)
            for document in documents:
                document["location"] = {"country": "DE", "city": "Berlin"}
            client[DATABASE][PLAIN].insert_many(documents)
    return total


def drained(uri: str, collection: str) -> Outcome:
    """Every batch received, nothing decoded."""
    with MongoClient[dict[str, Any]](uri) as client:
        count = client[DATABASE][collection].estimated_document_count()
        clock = Stopwatch()
        for batch in client[DATABASE][collection].find_raw_batches({}):
            len(batch)
        return clock.outcome(count)


def read(uri: str, collection: str) -> Outcome:
    """Every batch received the way we ask for it, nothing decoded: a stricter limit than pymongo's raw batches."""
    with MongoClient[dict[str, Any]](uri) as client:
        client[DATABASE][collection].estimated_document_count()  # connected before the clock starts, as the peer is
        clock = Stopwatch()
        with client.start_session(snapshot=True) as session:
            client[DATABASE][collection].find_one({}, {"_id": 1}, session=session)  # which fixes the snapshot
            rows = sum(len(batch.starts) for batch in batches(client[DATABASE], collection, {}, session))
        return clock.outcome(rows)


def landed(home: Home, collection: str) -> Outcome:
    """Our way, up to the seal."""
    settings = home.settings()
    return land(settings, _table(collection), lambda found, at: MongoReader(found, settings, str(at.mongodb_uri)))


def whole(home: Home, collection: str) -> Outcome:
    """All of landing, where nothing has landed before."""
    settings = home.settings()
    without_landings(settings)
    return ingested(settings, servers.resolve(settings), _table(collection))


def one_at_a_time(uri: str, collection: str) -> Outcome:
    """The usual loader: a dictionary per document, its personal values replaced one by one, rows into Parquet."""
    key = bytes(32)
    with MongoClient[dict[str, Any]](uri) as client, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.parquet"
        clock = Stopwatch()
        rows = 0
        schema = pa.schema([("_id", pa.string()), ("document", pa.string())])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in _batched(client[DATABASE][collection].find({})):
                treated = [(str(document["_id"]), _treated(document, key)) for document in batch]
                writer.write_batch(pa.record_batch([*map(list, zip(*treated, strict=True))], schema=schema))
                rows += len(treated)
        return clock.outcome(rows)


def _batched(documents: Any) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for document in documents:
        batch.append(document)
        if len(batch) == 10_000:
            yield batch
            batch = []
    if batch:
        yield batch


def _treated(document: dict[str, Any], key: bytes) -> str:
    location = document["location"]
    if "ip" in location:
        location["ip_token"] = pseudonym(key, "ip", location.pop("ip"))
        geo = location["geo"]
        location["geo"] = {f"{name}_token": pseudonym(key, "geo", str(geo[name])) for name in ("lat", "lon")}
    return orjson.dumps(document, default=str).decode()


def _table(collection: str) -> Table:
    return dataclasses.replace(tables("mongodb")["transactions"], origin=collection)


def _document(number: int, draws: random.Random) -> dict[str, Any]:
    amount = round(draws.uniform(1, 900), 2)
    created = _START + timedelta(seconds=20 * number)
    return {
        "_id": ObjectId(),
        "transaction_id": f"TX{number:07d}",
        "customer_id": f"CUST{draws.randrange(5000):05d}",
        "merchant_id": f"MERCH{draws.randrange(300):04d}",
        "date": {"created": created, "updated": created + timedelta(seconds=draws.randrange(900)), "timezone": "UTC"},
        "amount": Decimal128(str(amount)) if number % 3 == 0 else amount,
        "currency": {"code": "EUR", "rate_to_usd": 1.08},
        "fraud_score": round(draws.random(), 4),
        "status": draws.choice(["approved", "review", "fraudulent"]),
        "signals": [{"rule": "velocity", "weight": 0.4}, {"rule": "new_device", "weight": 0.2}][: number % 3],
        "location": {
            "country": "DE",
            "city": "Berlin",
            "geo": {"lat": round(52 + draws.random(), 6), "lon": round(13 + draws.random(), 6)},
            "ip": ".".join(str(draws.randrange(1, 255)) for _ in range(4)),
        },
    }


def _rows(found: dict[str, Summary], label: str, *, has_goal: bool) -> list[Row]:
    ours, drain, one = found["landed"], found["drained"], found["one"]
    limit, peer, landing = paired(ours, drain), paired(ours, one), paired(found["whole"], drain)

    def told(case: Summary) -> str:
        return case.told("documents")

    return [
        Row(
            f"MongoDB → sealed lake, {label}",
            told(ours),
            f"drained raw batches ({told(drain)})",
            limit,
            "≥ 0.5" if has_goal else "",
            limit >= 0.5 if has_goal else None,
            ours.peak_mb,
        ),
        Row("the same", told(ours), f"one document at a time ({told(one)})", peer, "≥ 3", peer >= 3, one.peak_mb),
        Row("the same", told(ours), f"drained as we read ({told(found['read'])})", paired(ours, found["read"])),
        Row(
            f"MongoDB → sealed lake → raw, {label}",
            told(found["whole"]),
            f"drained raw batches ({told(drain)})",
            landing,
            peak_mb=found["whole"].peak_mb,
        ),
    ]
