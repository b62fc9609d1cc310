"""A company written to stores that only remember: repeatable, and the same whether it grew in one go or in steps."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pytest

from warehouse.core.progress import silent
from warehouse.simulation.company import Stretch, live
from warehouse.simulation.reality import HUGE_COMMENT_BYTES, MINUTE
from warehouse.simulation.stores import Stores
from warehouse.simulation.stores.oltp import TABLES, to_csv
from warehouse.simulation.stores.overlap import Lane
from warehouse.simulation.stores.stream import MAX_MESSAGE_BYTES, Message
from warehouse.simulation.world import World

WORLD = World(seed=3, transactions=4_000, days=40, start=dt.date(2024, 1, 1))


class RememberedTables:
    """What PostgreSQL would hold, keys enforced on append; every CSV ever written counts in `digest`."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, dict[str, str]]] = {table: {} for table in TABLES}
        self.rows: dict[str, int] = {}
        self.digest = hashlib.sha256()
        self.deleted: Counter[str] = Counter()

    def copy(self, table: str, rows: pa.Table) -> None:
        for row in self._parse(table, rows):
            assert row[TABLES[table]] not in self.tables[table]
            self.tables[table][row[TABLES[table]]] = row

    def upsert(self, table: str, rows: pa.Table) -> None:
        for row in self._parse(table, rows):
            self.tables[table][row[TABLES[table]]] = row

    def delete(self, table: str, keys: list[str]) -> None:
        for key in keys:
            self.deleted[table] += self.tables[table].pop(key, None) is not None

    def _parse(self, table: str, rows: pa.Table) -> list[dict[str, str]]:
        written = to_csv(rows)
        self.digest.update(written)
        return list(csv.DictReader(written.decode().splitlines()))


class RememberedDocuments:
    """What MongoDB would hold."""

    def __init__(self) -> None:
        self.collections: defaultdict[str, dict[object, dict[str, Any]]] = defaultdict(dict)
        self.rows: dict[str, int] = {}
        self.deleted: Counter[str] = Counter()

    def insert(self, collection: str, documents: Sequence[dict[str, Any]]) -> None:
        for document in documents:
            assert document["_id"] not in self.collections[collection]
            self.collections[collection][document["_id"]] = document

    def upsert(self, collection: str, documents: Sequence[dict[str, Any]]) -> None:
        for document in documents:
            self.collections[collection][document["_id"]] = document

    def delete(self, collection: str, ids: Sequence[object]) -> None:
        for identifier in ids:
            self.deleted[collection] += self.collections[collection].pop(identifier, None) is not None


class RememberedStream:
    """What the topic would hold."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.rows: dict[str, int] = {}

    def produce(self, messages: Iterable[Message]) -> None:
        self.messages += messages


class Remembered:
    """The three of them."""

    def __init__(self) -> None:
        self.oltp = RememberedTables()
        self.documents = RememberedDocuments()
        self.stream = RememberedStream()

    def live(self, first_day: int, last_day: int, world: World = WORLD) -> Remembered:
        stores = Stores(self.oltp, self.documents, self.stream)  # they quack alike
        live(Stretch(world, first_day, last_day, is_fill=first_day == 0), stores, silent)
        return self

    def events(self) -> set[bytes]:
        return {value for _, value, _ in self.stream.messages}


@pytest.fixture(scope="module")
def filled() -> Remembered:
    return Remembered().live(0, 40)


@pytest.fixture(scope="module")
def advanced() -> Remembered:
    """Filled for 25 days, then moved forward three times."""
    return Remembered().live(0, 25).live(25, 26).live(26, 33).live(33, 40)


def test_the_same_seed_gives_the_same_bytes(filled: Remembered) -> None:
    again = Remembered().live(0, 40)
    assert again.oltp.digest.hexdigest() == filled.oltp.digest.hexdigest()
    assert again.documents.collections == filled.documents.collections
    assert again.stream.messages == filled.stream.messages


def test_another_seed_gives_another_company(filled: Remembered) -> None:
    other = Remembered().live(0, 40, World(4, WORLD.transactions, WORLD.days, WORLD.start))
    assert other.oltp.digest.hexdigest() != filled.oltp.digest.hexdigest()


@pytest.mark.parametrize("table", [table for table in TABLES if table not in ("currency", "status", "device")])
def test_a_company_grown_in_steps_has_the_rows_of_one_grown_in_one_go(
    filled: Remembered, advanced: Remembered, table: str
) -> None:
    assert advanced.oltp.tables[table] == filled.oltp.tables[table]


def test_devices_differ_only_by_what_was_committed_behind_the_cursor(filled: Remembered, advanced: Remembered) -> None:
    one, other = filled.oltp.tables["device"], advanced.oltp.tables["device"]
    assert one.keys() == other.keys()
    different = {key for key in one if one[key] != other[key]}
    stamps = {other[key]["updated_at"] for key in different}
    presents = {WORLD.moment(day) - 2 * MINUTE for day in (25, 26, 33)}
    assert different
    assert {int(dt.datetime.fromisoformat(stamp).timestamp() * 1000) for stamp in stamps} <= presents


def test_a_company_grown_in_steps_has_the_documents_of_one_grown_in_one_go(
    filled: Remembered, advanced: Remembered
) -> None:
    assert advanced.documents.collections.keys() == filled.documents.collections.keys()
    for name, documents in filled.documents.collections.items():
        assert advanced.documents.collections[name] == documents, name


def test_a_company_grown_in_steps_has_sent_the_same_events(filled: Remembered, advanced: Remembered) -> None:
    assert advanced.events() == filled.events()


def test_steps_delete_and_bring_back(advanced: Remembered) -> None:
    assert advanced.oltp.deleted["device"] > 0
    assert advanced.oltp.deleted["payment_method"] > 0
    assert advanced.documents.deleted["customer_feedback"] > 0


def test_keys_between_tables_hold(advanced: Remembered) -> None:
    tables = advanced.oltp.tables
    for payment in tables["transaction"].values():
        for column, parent in [
            ("merchant_id", "merchant"),
            ("customer_id", "customer"),
            ("payment_method_id", "payment_method"),
            ("product_id", "product"),
            ("device_id", "device"),
            ("location_id", "location"),
        ]:
            assert payment[column] in tables[parent], column


def test_nothing_lies_in_the_future(filled: Remembered) -> None:
    now = dt.datetime.fromtimestamp(WORLD.moment(40) / 1000, dt.UTC)
    for rows in filled.oltp.tables.values():
        assert all(dt.datetime.fromisoformat(row["updated_at"]) < now for row in rows.values())
    assert all(orjson.loads(value)["occurred_at"] < now.isoformat() for value in filled.events())


def test_messages_fit_and_one_comment_is_huge(filled: Remembered) -> None:
    assert max(len(value) for value in filled.events()) < MAX_MESSAGE_BYTES
    lengths = [len(d["comment"].encode()) for d in filled.documents.collections["customer_feedback"].values()]
    assert sum(length > HUGE_COMMENT_BYTES * 0.9 for length in lengths) == 1


def test_a_company_without_payments_is_possible() -> None:
    empty = Remembered().live(0, 10, World(3, 0, 10, WORLD.start))
    assert not empty.oltp.tables["transaction"]
    assert empty.oltp.tables["customer"]
    assert not empty.stream.messages


def test_a_failure_in_a_lane_reaches_the_caller_and_stops_the_lane() -> None:
    done: list[int] = []
    started = threading.Event()

    def fail() -> None:
        started.wait(5)
        raise RuntimeError("the server went away")

    with pytest.raises(RuntimeError, match="went away"), Lane("test") as lane:
        lane.submit(fail)
        lane.submit(lambda: done.append(1))
        started.set()
        for _ in range(10):
            lane.submit(lambda: done.append(2))
    assert 2 not in done


def test_a_lane_keeps_its_order() -> None:
    done: list[int] = []
    with Lane("test") as lane:
        for number in range(50):
            lane.submit(lambda number=number: done.append(number))
    assert done == list(range(50))
