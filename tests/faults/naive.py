"""What many pipelines do, so that each fault can be seen to break it.

Append what is newer than the last cursor, row by row; remember the cursor afterwards, elsewhere. No lag, no hash, no
deletions, no transaction around the rows and the cursor, no quarantine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

Row = tuple[str, Any, str]
"""Key, cursor value, content."""


class Died(Exception):
    """The process is gone: nothing after this happened."""


class NaiveLoader:
    """Appends rows and remembers a cursor. `rows` and `cursor` are what survives its death.

    Args:
        read: the rows of the source after a cursor value (None: all), in its order.
        everything: every row of the source, now.
    """

    def __init__(self, read: Callable[[Any], Iterable[Row]], everything: Callable[[], Iterable[Row]]) -> None:
        self._read = read
        self._everything = everything
        self.rows: list[tuple[str, str]] = []
        self.cursor: Any = None

    def run(self, *, at: int | None = None, fault: Callable[[], None] | None = None) -> None:
        """Load what is new; call `fault` when row `at` is reached."""
        newest = self.cursor
        for number, (key, cursor, content) in enumerate(self._read(self.cursor)):
            if number == at and fault is not None:
                fault()
            self.rows.append((key, content))
            if cursor is not None and (newest is None or cursor > newest):
                newest = cursor
        self.cursor = newest

    @property
    def differences(self) -> int:
        """Rows lost, invented, doubled or stale, against the source as it is now."""
        loaded = Counter(self.rows)
        source = Counter((key, content) for key, _, content in self._everything())
        return sum((loaded - source).values()) + sum((source - loaded).values())


def die() -> None:
    """A fault: the process is killed here."""
    raise Died
