"""One writer at a time, and its name for whoever comes second."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from warehouse.core.errors import AlreadyRunning
from warehouse.core.keys import refuse_interrupted
from warehouse.core.paths import Home
from warehouse.core.settings import Settings


@contextmanager
def writer_lock(settings: Settings, purpose: str, *, rotates: bool = False) -> Iterator[None]:
    """Hold the home's lock; the operating system frees it when the process dies, however it dies.

    Raises:
        AlreadyRunning: another process holds it.
        ConfigurationError: a key rotation was interrupted, and this is not the rotation (`rotates`) that ends it.
    """
    if not rotates:
        refuse_interrupted(settings)
    path = Home.of(settings).lock
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".holder.json")
    try:
        with FileLock(path, timeout=0):
            holder.write_text(
                json.dumps(
                    {
                        "pid": os.getpid(),
                        "purpose": purpose,
                        "since": datetime.now(UTC).isoformat(timespec="seconds"),
                    }
                )
            )
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout:
        raise AlreadyRunning(
            f"another run holds this warehouse ({describe_holder(settings) or 'it has just started'})",
            kept="everything; the published warehouse stays readable",
            todo="wait for it to end, then run this again",
        ) from None


def describe_holder(settings: Settings) -> str | None:
    """Who holds the lock, for people; None when nobody left a name."""
    holder = Home.of(settings).lock.with_suffix(".holder.json")
    try:
        held = json.loads(holder.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return f"{held['purpose']}, process {held['pid']}, since {held['since']}"
