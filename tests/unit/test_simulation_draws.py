"""Draws depend on the thing drawn for, not on the order or the size of the block."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.simulation.draws import Draws
from warehouse.simulation.reality import DAY
from warehouse.simulation.world import Growth, World

START = dt.date(2024, 1, 1)


def test_a_draw_does_not_depend_on_its_neighbours() -> None:
    whole = Draws(7, "payment", np.arange(1_000)).uniform("amount")
    alone = Draws(7, "payment", np.array([617])).uniform("amount")
    assert whole[617] == alone[0]


@pytest.mark.parametrize(
    ("seed", "kind", "name"), [(8, "payment", "amount"), (7, "person", "amount"), (7, "payment", "x")]
)
def test_seed_kind_and_name_all_matter(seed: int, kind: str, name: str) -> None:
    numbers = np.arange(1_000)
    one = Draws(7, "payment", numbers).uniform("amount")
    other = Draws(seed, kind, numbers).uniform(name)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_draws_are_uniform() -> None:
    counts = np.bincount(Draws(1, "die", np.arange(60_000)).between("eyes", 1, 7), minlength=7)[1:]
    assert counts.min() > 9_600
    assert counts.max() < 10_400


def test_weights_are_respected() -> None:
    drawn = Draws(1, "urn", np.arange(40_000)).weighted("ball", np.array([3.0, 0.0, 1.0]))
    shares = np.bincount(drawn, minlength=3) / 40_000
    assert shares == pytest.approx([0.75, 0.0, 0.25], abs=0.01)


@given(
    initial=st.integers(1, 5_000),
    added=st.integers(0, 5_000),
    days=st.integers(1, 400),
    elapsed=st.integers(0, 500 * DAY),
)
def test_the_count_at_a_moment_is_the_number_of_those_who_joined_before(
    initial: int, added: int, days: int, elapsed: int
) -> None:
    growth = Growth(start_ms=0, initial=initial, added=added, span=days * DAY)
    count = growth.count(elapsed)
    if added:
        joined = growth.joined(np.array([max(count - 1, 0), count]))
        assert joined[0] < max(elapsed, 1)
        assert joined[1] >= elapsed
    else:
        assert count == initial
    assert growth.counts(np.array([elapsed]))[0] == count


@given(transactions=st.integers(0, 20_000), days=st.integers(1, 200))
def test_the_first_days_hold_exactly_the_transactions_asked_for(transactions: int, days: int) -> None:
    first = World(1, transactions, days, START).first_payments(days + 30)
    assert first[0] == 0
    assert first[days] == transactions
    assert (np.diff(first) >= 0).all()


def test_payments_are_created_in_order_and_within_their_day() -> None:
    world = World(1, 5_000, 30, START)
    numbers = np.arange(6_000)
    day, created = world.payment_times(numbers)
    assert (np.diff(created) >= 0).all()
    assert ((created - world.start_ms) // DAY == day).all()
    assert day[4_999] == 29
    assert day[5_000] == 30
