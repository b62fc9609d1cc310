"""How long work tells where it is: one line at a time, to whoever started it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes one short line without a line end. Lines never carry a value read from a source."""


def silent(_: str) -> None:
    """For callers who want none."""
