"""The card scanner: what it must find, what it must not, and how often it does."""

from __future__ import annotations

import hashlib
import random
import uuid

import pytest

from tests.conftest import RecordFigure
from warehouse.privacy.scanner import ISSUERS, find_cards, holds_card, luhn

SEPARATORS = ("", " ", "-", ".", "\u00a0", "\u2011")
GROUPINGS = {14: (4, 6, 4), 15: (4, 6, 5)}
PLACES = ("{}", "card {} thanks", '{{"pan":"{}"}}', "x{}x", "\\n{}\\t", "2024-03-01 {}", "a,{},12.50", "é{}é", "n°{}")


def check_digit(digits: str) -> str:
    return next(candidate for candidate in (digits + str(last) for last in range(10)) if luhn(candidate))


def card(rng: random.Random, low: str, high: str, length: int) -> str:
    first = str(rng.randint(int(low), int(high))).zfill(len(low))
    return check_digit(first + "".join(rng.choices("0123456789", k=length - len(first) - 1)))


def spelled(digits: str, separator: str) -> str:
    sizes = GROUPINGS.get(len(digits), (4,) * 5)
    groups, start = [], 0
    for size in sizes:
        groups.append(digits[start : start + size])
        start += size
    return separator.join(group for group in groups if group)


def test_recall_over_all_issuers_lengths_and_spellings(record_figure: RecordFigure) -> None:
    rng = random.Random(5)  # noqa: S311  repeatable numbers
    tried = found = 0
    for low, high, lengths in ISSUERS:
        for length in lengths:
            for separator in SEPARATORS:
                for place in PLACES:
                    text = place.format(spelled(card(rng, low, high, length), separator))
                    tried += 1
                    found += holds_card(text)
    record_figure("card scanner: recall", f"{100 * found / tried:.3f} % of {tried:,} numbers", "at least 99.9 %")
    assert found / tried >= 0.999


@pytest.mark.parametrize("length", range(13, 20))
def test_every_length_has_an_issuer(length: int) -> None:
    assert any(length in lengths for _, _, lengths in ISSUERS)


@pytest.mark.parametrize(
    "number",
    # the schemes' published test numbers
    [
        "4111111111111111", "4222222222222", "5555555555554444", "2223003122003222", "378282246310005",
        "30569309025904", "3530111333300000", "6011111111111117", "6200000000000005", "6759649826438453",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    ],
)  # fmt: skip
def test_published_test_numbers(number: str) -> None:
    assert holds_card(number)


def test_digests_tokens_and_uuids_are_no_cards(record_figure: RecordFigure) -> None:
    rng = random.Random(6)  # noqa: S311  repeatable numbers
    count = 100_000
    samples = {
        "md5": lambda text: hashlib.md5(text, usedforsecurity=False).hexdigest(),
        "sha256": lambda text: hashlib.sha256(text).hexdigest(),
        "tokens": lambda text: "v1:" + hashlib.sha256(text).hexdigest(),
        "uuids": lambda _: str(uuid.UUID(int=rng.getrandbits(128))),
        "object ids": lambda text: hashlib.md5(text, usedforsecurity=False).hexdigest()[:24],
        "doubles": lambda _: repr(rng.random()),
    }
    figures = {}
    for name, make in samples.items():
        wrong = sum(holds_card(make(f"{name}{number}".encode())) for number in range(count))
        figures[name] = 100 * wrong / count
    record_figure(
        "card scanner: false positives on digests, tokens, ids",
        ", ".join(f"{name} {rate:.4f} %" for name, rate in figures.items()),
        "at most 0.01 %",
    )
    assert max(figures.values()) <= 0.01


def test_ids_of_sixteen_digits(record_figure: RecordFigure) -> None:
    rng = random.Random(7)  # noqa: S311  repeatable numbers
    count = 100_000
    issued_ids = {
        "microseconds since 1970": [str(1_704_067_200_000_000 + rng.randrange(10**14)) for _ in range(count)],
        "sequences": [str(1_000_000_000_000_000 + number) for number in range(count)],
        "padded": [str(number).zfill(16) for number in range(count)],
    }
    rates = {name: 100 * sum(map(holds_card, ids)) / count for name, ids in issued_ids.items()}
    uniform = 100 * sum(holds_card("".join(rng.choices("0123456789", k=16))) for _ in range(count)) / count
    told = ", ".join(f"{name} {rate:.3f} %" for name, rate in rates.items())
    record_figure("card scanner: ids of 16 digits", f"{told}; uniformly random {uniform:.2f} %", "at most 1 %")
    assert max(rates.values()) <= 1
    assert uniform < 5


def test_positions_are_exact_and_do_not_overlap() -> None:
    text = b"a 4111 1111 1111 1111 4111111111111111, 2024-01-01 5555-5555-5555-4444."
    assert [text[start:end] for start, end in find_cards(text)] == [
        b"4111 1111 1111 1111", b"4111111111111111", b"5555-5555-5555-4444",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "0.4111111111111111",
        "4111111111111112",
        "41111111111111110",
        "1111111111111117",
        "9" * 40,
        "4 11111111 1111111",
        "",
    ],
)
def test_what_only_looks_like_one(text: str) -> None:
    assert not holds_card(text)


def test_long_runs_of_digits_take_no_longer_than_their_length() -> None:
    assert list(find_cards(b"4" * 2_000_000)) == []
