"""Let the company live: write what a stretch of days brings into the three systems.

The same code fills the systems (from nothing) and advances them (from what is there): a row or document is
written when it changed within the stretch, an event when it happened within it.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bson import ObjectId

from warehouse.core.progress import Progress
from warehouse.simulation import documents, people, reference, shops
from warehouse.simulation.bson_values import object_ids
from warehouse.simulation.draws import Integers
from warehouse.simulation.events import payment_events
from warehouse.simulation.payments import Story, tell, transaction_rows
from warehouse.simulation.payouts import RETRY_WITHIN, WEEK, PayoutBook
from warehouse.simulation.rates import LEAD_DAYS, rate_documents
from warehouse.simulation.reality import DAY, LONGEST_STORY
from warehouse.simulation.stores import Stores
from warehouse.simulation.stores.overlap import Lane
from warehouse.simulation.stores.stream import Message
from warehouse.simulation.text import entity_ids
from warehouse.simulation.world import World

BLOCK = 25_000
"""Payments or people made at a time: what bounds the memory."""
_WINDOW_PAYMENTS = 20_000
"""Small companies are told several days at a time, up to a week."""


@dataclass(frozen=True)
class Stretch:
    """Days [first_day, last_day) of a world; `is_fill` when the systems are empty before them."""

    world: World
    first_day: int
    last_day: int
    is_fill: bool

    @property
    def since(self) -> int:
        """Where it begins, ms."""
        return self.world.moment(self.first_day)

    @property
    def until(self) -> int:
        """Where it ends, ms: the new present."""
        return self.world.moment(self.last_day)


def live(stretch: Stretch, stores: Stores, progress: Progress) -> None:
    """Write everything the stretch brings. The caller commits PostgreSQL and flushes the stream."""
    with Lane("oltp") as oltp, Lane("documents") as documents_lane, Lane("stream") as stream:
        writer = _Writer(stretch, stores, oltp, documents_lane, stream)
        progress("people, shops and reference lists")
        _write_people(stretch, writer)
        _write_shops(stretch, writer)
        _write_lists(stretch, writer)
        _write_payments(stretch, writer, progress)


# --- people and shops -----------------------------------------------------------------------------------------------


def _write_people(stretch: Stretch, writer: _Writer) -> None:
    world, until = stretch.world, stretch.until
    if stretch.is_fill:
        writer.put("location", people.location_rows(world))
    for customers in _blocks(0, world.customers.count(until)):
        if not stretch.is_fill:
            for table, prefix in (("device", "DEV"), ("payment_method", "PM")):
                gone = people.spares_deleted(world, table, customers, stretch.since, until)
                writer.delete(table, entity_ids(prefix, gone).to_pylist())
        writer.put_changed("customer", people.customer_rows(world, customers, until))
        writer.put_changed("device", people.device_rows(world, customers, until))
        writer.put_changed("payment_method", people.method_rows(world, customers, until))
    if not stretch.is_fill:
        for customers in _blocks(0, world.customers.count(stretch.since)):
            writer.put("device", people.devices_behind_cursor(world, customers, stretch.since))


def _write_shops(stretch: Stretch, writer: _Writer) -> None:
    world, until = stretch.world, stretch.until
    since = 0 if stretch.is_fill else stretch.since
    for merchants in _blocks(0, world.merchants.count(until)):
        writer.put_changed("merchant", shops.merchant_rows(world, merchants, until))
        writer.put_changed("product", shops.product_rows(world, merchants, until))
        writer.put_documents("merchants", list(shops.merchant_documents(world, merchants, until, since)))
        writer.put_documents("products", list(shops.product_documents(world, merchants, until, since)))


def _write_lists(stretch: Stretch, writer: _Writer) -> None:
    start = stretch.world.start
    if stretch.is_fill:
        known = {str(document["alpha2"]) for document in reference.documents("country_region_codes")}
        writer.put_documents("country_region_codes", documents.country_documents(known))
    first = start - dt.timedelta(days=LEAD_DAYS) if stretch.is_fill else start + dt.timedelta(days=stretch.first_day)
    rates = rate_documents(first, start + dt.timedelta(days=stretch.last_day))
    writer.put_documents("currency_exchange_rates", list(rates))
    for day in range(stretch.first_day, stretch.last_day):
        if day % 7 == 0:
            features = documents.feature_documents(stretch.world, stretch.world.moment(day))
            writer.put_documents("machine_learning_features", list(features))


# --- payments -------------------------------------------------------------------------------------------------------


def _write_payments(stretch: Stretch, writer: _Writer, progress: Progress) -> None:
    world = stretch.world
    first = world.first_payments(stretch.last_day)
    agenda = _Agenda(stretch)
    book = PayoutBook(world)
    if not stretch.is_fill:
        progress("what happens to older payments")
        oldest = max(0, stretch.first_day - LONGEST_STORY // DAY - 1)
        for numbers in _blocks(int(first[oldest]), int(first[stretch.first_day])):
            story = tell(world, numbers)
            book.add(story, stretch.since - WEEK - RETRY_WITHIN - DAY, stretch.since)
            agenda.add(story, stretch.since)
            _write_state(stretch, writer, story)
    per_day = max(1, world.transactions // world.days)
    width = min(max(_WINDOW_PAYMENTS // per_day, 1), 7)
    for day in range(stretch.first_day, stretch.last_day, width):
        end = min(day + width, stretch.last_day)
        since, until = world.moment(day), world.moment(end)
        new = np.arange(first[day], first[end])
        told = np.r_[agenda.take(day, end), new]
        for start in range(0, len(told), BLOCK):
            story = tell(world, told[start : start + BLOCK])
            writer.send(payment_events(world, story, since, until).messages)
            book.add(story, since, until)
            fresh = story.take(np.flatnonzero(story.number >= first[day]))
            agenda.add(fresh, until)
            _write_state(stretch, writer, fresh)
            writer.put_documents("error_logs", documents.error_documents(world, fresh))
            writer.put_documents("user_interactions", documents.interaction_documents(world, fresh))
        payouts = book.due(since, until)
        writer.send(partial(iter, payouts))
        progress(f"{world.start + dt.timedelta(days=end)}: {int(first[end] - first[stretch.first_day]):,} payments")


def _write_state(stretch: Stretch, writer: _Writer, story: Story) -> None:
    """Rows and documents of these payments as they stand at the end, if they changed within the stretch."""
    world, until = stretch.world, stretch.until
    since = 0 if stretch.is_fill else stretch.since
    rows = story.take(
        np.flatnonzero(
            ~story.is_document
            & story.is_committed(until)
            & ((story.state(until)[1] >= since) | ~story.is_committed(since))
        )
    )
    writer.put("transaction", transaction_rows(rows, until))
    changed = story.is_document & (story.created < until) & (story.document_state(until)[1] >= since)
    records = documents.transaction_documents(world, story.take(np.flatnonzero(changed)), until)
    writer.put_documents("Transactions", records)

    written, is_written = documents.feedback_times(world, story)
    if not stretch.is_fill:
        gone = np.flatnonzero(is_written & documents.feedback_deleted(story, written, since, until))
        for kind in documents.FEEDBACK_COPIES:
            writer.delete_documents("customer_feedback", object_ids(written[gone], kind, story.number[gone]))
    present, inserted = documents.feedback_present(story, written, until)
    chosen = np.flatnonzero(is_written & present & (inserted >= since))
    comments = documents.feedback_documents(world, story.take(chosen), written[chosen], inserted[chosen])
    writer.put_documents("customer_feedback", comments)


class _Agenda:
    """Which earlier payments have something to say on which later day: numbers only, a few bytes each."""

    def __init__(self, stretch: Stretch) -> None:
        self._start = stretch.world.start_ms
        self._until = stretch.until
        self._days: defaultdict[int, list[Integers]] = defaultdict(list)

    def add(self, story: Story, after: int) -> None:
        """Note the days from `after` on, up to the end of the stretch, on which something happens."""
        for step in story.steps():
            chosen = (step >= after) & (step < self._until)
            numbers = story.number[chosen]
            days = (step[chosen] - self._start) // DAY
            for day in np.unique(days).tolist():
                self._days[day].append(numbers[days == day])

    def take(self, first_day: int, last_day: int) -> Integers:
        """The payments of these days, each once, in order."""
        parts = [part for day in range(first_day, last_day) for part in self._days.pop(day, [])]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)


# --- writing --------------------------------------------------------------------------------------------------------


class _Writer:
    """What a stretch needs of the stores: append when filling, upsert when advancing, in one lane per system."""

    def __init__(self, stretch: Stretch, stores: Stores, oltp: Lane, documents_lane: Lane, stream: Lane) -> None:
        self._stretch = stretch
        self._stores = stores
        self._oltp = oltp
        self._documents = documents_lane
        self._stream = stream

    def put(self, table: str, rows: pa.Table) -> None:
        """Write these rows."""
        write = self._stores.oltp.copy if self._stretch.is_fill else self._stores.oltp.upsert
        if rows.num_rows:
            self._oltp.submit(partial(write, table, rows))

    def put_changed(self, table: str, rows: pa.Table) -> None:
        """Write those rows that changed within the stretch."""
        if not self._stretch.is_fill:
            since = pa.scalar(self._stretch.since, pa.int64()).cast(pa.timestamp("ms", tz="UTC"))
            rows = rows.filter(pc.greater_equal(rows["updated_at"], since))
        self.put(table, rows)

    def delete(self, table: str, keys: list[str]) -> None:
        """Delete rows by key."""
        if keys:
            self._oltp.submit(partial(self._stores.oltp.delete, table, keys))

    def put_documents(self, collection: str, records: list[dict[str, Any]]) -> None:
        """Write these documents."""
        store = self._stores.documents
        if store is not None and records:
            write = store.insert if self._stretch.is_fill else store.upsert
            self._documents.submit(partial(write, collection, records))

    def delete_documents(self, collection: str, ids: list[ObjectId]) -> None:
        """Delete documents by `_id`."""
        store = self._stores.documents
        if store is not None and ids:
            self._documents.submit(partial(store.delete, collection, ids))

    def send(self, messages: Callable[[], Iterable[Message]]) -> None:
        """Send messages, which are made in the stream's lane."""
        store = self._stores.stream
        if store is not None:
            self._stream.submit(lambda: store.produce(messages()))


def _blocks(start: int, end: int) -> Iterator[Integers]:
    for first in range(start, end, BLOCK):
        yield np.arange(first, min(first + BLOCK, end))
