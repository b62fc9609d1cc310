"""Seeded randomness by name and number, not by order.

A draw is a hash of (seed, kind, number, name), so that payment 4,711 has the same story whether it is made in a
block of ten or of a million, at the first fill or again in a later advance, and nothing has to be remembered.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=1024)
def _salt(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little"))


class Draws:
    """Independent draws for an array of numbers; every result has its shape."""

    def __init__(self, seed: int, kind: str, numbers: Integers) -> None:
        self._state = _mix(numbers.astype(np.uint64) * _GOLDEN + _salt(f"{seed}:{kind}"))

    def bits(self, name: str) -> NDArray[np.uint64]:
        """64 random bits."""
        return _mix(self._state ^ _salt(name))

    def uniform(self, name: str) -> Floats:
        """In [0, 1)."""
        return (self.bits(name) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, name: str, share: float | Floats) -> Booleans:
        """True with probability `share`."""
        result: Booleans = self.uniform(name) < share
        return result

    def between(self, name: str, low: int, high: int | Integers) -> Integers:
        """Integers in [low, high)."""
        steps: Integers = np.floor(self.uniform(name) * (np.asarray(high) - low)).astype(np.int64)
        return low + steps

    def weighted(self, name: str, weights: Floats) -> Integers:
        """Indices into `weights`, which need not add up to one."""
        cumulative = np.cumsum(weights) / np.sum(weights)
        return np.minimum(np.searchsorted(cumulative, self.uniform(name), side="right"), len(weights) - 1).astype(
            np.int64
        )
