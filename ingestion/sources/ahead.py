"""Read the next chunk while the last one is landed: the source and DuckDB then work at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class _End:
    pass


class ReadAhead(Generic[T]):
    """Iterates over `items` in a thread of its own, at most one item ahead. A context manager: leaving it stops it.

    What `items` raises is raised here, in its place.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._ready: queue.Queue[T | _Failed | _End] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._take()

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(0.05)

    def _take(self) -> Iterator[T]:
        while True:
            item = self._ready.get()
            if isinstance(item, _End):
                return
            if isinstance(item, _Failed):
                raise item.error
            yield item

    def _run(self) -> None:
        try:
            for item in self._items:
                self._ready.put(item)
                if self._stop.is_set():
                    return
            self._ready.put(_End())
        except BaseException as error:  # noqa: BLE001  # raised again where the items are taken
            self._ready.put(_Failed(error))
