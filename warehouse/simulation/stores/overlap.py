"""Write to the three systems at the same time, each in order: while one of them works, the next block is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

_DEPTH = 2
"""Blocks that may wait per system: what bounds the memory."""


class Lane:
    """One thread for one system. The first failure is raised by the next `submit` or by `close`."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"simulation-{name}")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, work: Callable[[], None]) -> None:
        """Do `work` after what was submitted before; waits while the lane is full."""
        while len(self._waiting) >= _DEPTH:
            self._waiting.popleft().result()
        self._waiting.append(self._executor.submit(work))

    def wait(self) -> None:
        """Until everything submitted is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> Lane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)
