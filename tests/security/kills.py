"""The end of a process at a chosen place, without one: what it leaves behind is what the next call meets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest

Moment = Literal["before", "after"]


class Killed(BaseException):
    """Stands for the process that ends: no `except Exception` cleans up after it."""


@contextmanager
def killed(module: Any, name: str, moment: Moment = "after", *, call: int = 1) -> Iterator[None]:
    """What runs inside ends before or after call number `call` of a function; the test fails if it never gets there."""
    real, seen = getattr(module, name), 0

    def dies(*given: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == call and moment == "before":
            raise Killed
        result = real(*given, **named)
        if seen == call:
            raise Killed
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, dies)
        try:
            yield
        except Killed:
            return
    pytest.fail(f"nothing was killed {moment} call {call} of {name}: it was called {seen} times")
