"""The company's size and calendar: how many customers, merchants and payments exist at any moment."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from warehouse.simulation.draws import Draws, Integers
from warehouse.simulation.reality import DAY

NEVER = np.int64(2**62)
"""A time that does not come."""

FIRST_NUMBER = 10_001
"""Simulated people, shops and payments are numbered from here: the numbers below belong to the reference rows."""

PRODUCTS_PER_MERCHANT = 6
HISTORY = 365 * DAY
"""The first customers signed up this long before the first simulated day."""

_WEEKDAY_FACTORS = np.array([0.95, 0.93, 0.96, 1.0, 1.16, 1.10, 0.90])
_GROWTH = 0.3
"""Daily volume grows by this share over the first `days`, then stays."""
_DAY_CURVE = np.cumsum(np.r_[0.0, 0.35 + np.sin(np.pi * np.arange(96) / 96) ** 2])


@dataclass(frozen=True)
class World:
    """Everything that does not change while the company lives.

    Attributes:
        seed: of every draw.
        transactions: payments within the first `days`.
        days: simulated days of the first fill.
        start: the first day, UTC.
    """

    seed: int
    transactions: int
    days: int
    start: dt.date

    @cached_property
    def start_ms(self) -> int:
        """Midnight UTC of the first day, in milliseconds since 1970."""
        return int(dt.datetime.combine(self.start, dt.time(), dt.UTC).timestamp() * 1000)

    def moment(self, day: int) -> int:
        """Midnight UTC at which `day` begins, in milliseconds since 1970."""
        return self.start_ms + day * DAY

    def draws(self, kind: str, numbers: Integers) -> Draws:
        """Draws of this world."""
        return Draws(self.seed, kind, numbers)

    # People and shops: a stock from before the first day, then steady growth.

    @cached_property
    def customers(self) -> Growth:
        """A tenth of the transactions, a good half of them from before the first day."""
        total = max(60, self.transactions // 10)
        return Growth(self.start_ms, initial=total * 11 // 20, added=total - total * 11 // 20, span=self.days * DAY)

    @cached_property
    def merchants(self) -> Growth:
        """One per thousand transactions, at least 200."""
        total = max(200, self.transactions // 1000)
        return Growth(self.start_ms, initial=total * 9 // 10, added=total - total * 9 // 10, span=self.days * DAY)

    # Payments: numbered from 0 in order of creation.

    def first_payments(self, days: int) -> Integers:
        """Number of the first payment of each day 0..days; shape (days + 1,)."""
        weekday = self.start.weekday()
        day = np.arange(max(days, self.days))
        weights = _WEEKDAY_FACTORS[(weekday + day) % 7] * (1 + _GROWTH * np.minimum(day / self.days, 1.0))
        cumulative = np.r_[0.0, np.cumsum(weights)]
        per_weight = self.transactions / cumulative[self.days]
        first: Integers = np.rint(cumulative[: days + 1] * per_weight).astype(np.int64)
        return first

    def payment_times(self, numbers: Integers) -> tuple[Integers, Integers]:
        """Day and creation time (ms) of payments; times ascend with the number."""
        if not len(numbers):
            return numbers, numbers
        last = int(numbers.max())
        days = self.days
        first = self.first_payments(days)
        while first[-1] <= last:
            days *= 2
            first = self.first_payments(days)
        day = (np.searchsorted(first, numbers, side="right") - 1).astype(np.int64)
        position = numbers - first[day] + self.draws("payment", numbers).uniform("time of day")
        quantile = position / (first[day + 1] - first[day])
        grid = np.linspace(0, DAY, len(_DAY_CURVE))
        offset = np.interp(quantile, _DAY_CURVE / _DAY_CURVE[-1], grid).astype(np.int64)
        return day, self.start_ms + day * DAY + np.minimum(offset, DAY - 1)


@dataclass(frozen=True)
class Growth:
    """Members numbered from 0 in order of arrival: `initial` before the start, then `added` per `span` ms."""

    start_ms: int
    initial: int
    added: int
    span: int

    def joined(self, numbers: Integers) -> Integers:
        """Arrival of members, ms."""
        before = self.start_ms - HISTORY * (self.initial - numbers) // max(self.initial, 1)
        after = self.start_ms + (numbers - self.initial + 1) * self.span // max(self.added, 1)
        return np.where(numbers < self.initial, before, after)

    def count(self, moment: int) -> int:
        """Members that joined before `moment`, which is not before the start."""
        return int(self.counts(np.array([moment]))[0])

    def counts(self, moments: Integers) -> Integers:
        """`count` for an array of moments; all of `initial` are there before the start."""
        elapsed = np.maximum(moments - self.start_ms, 0)
        return np.asarray(self.initial + np.maximum(elapsed * self.added - 1, 0) // self.span)
