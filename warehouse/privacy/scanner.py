"""Finds card numbers in bytes: 13 to 19 digits of an issuer's range with a valid check digit (Luhn, ISO/IEC 7812-1).

Digits may stand together or apart, by a space, a dash, a dot or a non-breaking one of these. Digits inside a digest, a
token, a UUID or the fraction of a decimal number are no card. Positions are returned, never digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

_SEPARATOR = rb"(?:[ .-]|\xc2\xa0|\xe2\x80[\x89\x91\x93\xaf])"
_CHAIN = re.compile(rb"(?<![0-9])[0-9](?:" + _SEPARATOR + rb"?[0-9]){12,}")
_GROUP = re.compile(rb"[0-9]+")
_HEX = frozenset(b"0123456789abcdefABCDEF")
_HEX_LETTERS = frozenset(b"abcdefABCDEF")
_DIGEST = 24
"""So many hexadecimal digits in a row, with a letter among them, are an id or a digest (ObjectId, md5, SHA-256)."""
_UUID = re.compile(rb"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}")
_UUID_LENGTH = 36
_SHORTEST, _LONGEST = 13, 19
_DOUBLED = str.maketrans("0123456789", "0246813579")

ISSUERS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("1", "1", (15,)),  # UATP
    ("2200", "2205", (16, 17, 18, 19)),  # Mir, Borica
    ("2221", "2720", (16,)),  # Mastercard
    ("300", "305", (14, 15, 16, 17, 18, 19)),  # Diners Club
    ("3095", "3095", (14, 15, 16, 17, 18, 19)),
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("3528", "3589", (16, 17, 18, 19)),  # JCB, RuPay's part of it
    ("36", "36", (14, 15, 16, 17, 18, 19)),  # Diners Club
    ("38", "39", (14, 15, 16, 17, 18, 19)),
    ("4", "4", (13, 16, 19)),  # Visa
    ("50", "50", (13, 14, 15, 16, 17, 18, 19)),  # Maestro, Dankort, Verve, Elo, RuPay
    ("51", "55", (16,)),  # Mastercard
    ("56", "58", (13, 14, 15, 16, 17, 18, 19)),  # Maestro, Uzcard
    ("60", "60", (13, 14, 15, 16, 17, 18, 19)),  # Discover, RuPay, Hipercard, UkrCard, Maestro
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("63", "63", (13, 14, 15, 16, 17, 18, 19)),  # Maestro, InterPayment, InstaPayment
    ("64", "65", (16, 17, 18, 19)),  # Discover, Troy, Elo, Verve
    ("67", "67", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    ("81", "82", (16, 17, 18, 19)),  # UnionPay, RuPay
    ("8600", "8600", (16,)),  # Uzcard
    ("9704", "9704", (16, 19)),  # Napas
    ("9792", "9792", (16,)),  # Troy
    ("9860", "9860", (16,)),  # Humo
)
"""First digits from, to, and lengths, of every scheme that publishes a range."""


def find_cards(content: bytes) -> Iterator[tuple[int, int]]:
    """(first byte, byte after the last) of every card number, in order. They do not overlap."""
    for chain in _CHAIN.finditer(content):
        groups = [match.span() for match in _GROUP.finditer(content, *chain.span())]
        first = 0
        while first < len(groups):
            last = _card_from(content, groups, first)
            if last is None:
                first += 1
            else:
                yield groups[first][0], groups[last][1]
                first = last + 1


def holds_card(text: str) -> bool:
    """Whether a text holds a card number."""
    return next(find_cards(text.encode("utf-8", "surrogatepass")), None) is not None


def luhn(digits: str) -> bool:
    """Whether the check digit is right."""
    total = sum(map(int, digits[-1::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))
    return total % 10 == 0


def issued(digits: str) -> bool:
    """Whether an issuer numbers its cards like this: first digits and length."""
    return any(
        low <= digits[: len(low)] <= high and len(digits) in lengths
        for low, high, lengths in _BY_FIRST.get(digits[:1], ())
    )


_BY_FIRST = {digit: tuple(rule for rule in ISSUERS if rule[0][0] <= digit <= rule[1][0]) for digit in "0123456789"}


def _card_from(content: bytes, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of a card number that begins with group `first`, or None."""
    digits = ""
    for last in range(first, len(groups)):
        start, end = groups[last]
        digits += content[start:end].decode("ascii")
        if len(digits) > _LONGEST:
            return None
        if len(digits) < _SHORTEST or not luhn(digits) or not issued(digits):
            continue
        taken = groups[first : last + 1]
        if _is_spelled(taken) and not _is_other(content, groups, first, last):
            return last
    return None


def _is_spelled(groups: list[tuple[int, int]]) -> bool:
    """Digits one by one, or in groups of several: `4 111111 1…` is a list of numbers."""
    sizes = [end - start for start, end in groups]
    return len(sizes) == 1 or max(sizes) == 1 or min(sizes[:-1]) > 1


def _is_other(content: bytes, groups: list[tuple[int, int]], first: int, last: int) -> bool:
    start, end = groups[first][0], groups[last][1]
    if _is_in_digest(content, start, end) or _is_fraction(content, groups, first, last):
        return True
    around = content[max(0, start - _UUID_LENGTH) : end + _UUID_LENGTH]
    offset = start - max(0, start - _UUID_LENGTH)
    return any(match.start() <= offset < match.end() for match in _UUID.finditer(around))


def _is_in_digest(content: bytes, start: int, end: int) -> bool:
    left = start
    while left > 0 and content[left - 1] in _HEX:
        left -= 1
    right = end
    while right < len(content) and content[right] in _HEX:
        right += 1
    return right - left >= _DIGEST and not _HEX_LETTERS.isdisjoint(content[left:start] + content[end:right])


def _is_fraction(content: bytes, groups: list[tuple[int, int]], first: int, last: int) -> bool:
    """`0.4111…`: one dot between two groups, and no third group."""
    dotted = [content[a[1] : b[0]] == b"." for a, b in pairwise(groups)]
    if first == last:
        after_dot = first > 0 and dotted[first - 1] and (first < 2 or not dotted[first - 2])
        return after_dot and not (first < len(dotted) and dotted[first])
    return last == first + 1 and dotted[first]
