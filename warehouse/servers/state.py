"""What is remembered about one embedded server: its port, its process and the passwords made for it.

The file is written before the server starts (the intent) and again once its process is known. It holds
passwords: 0600, and replaced whole, so that a reader never sees half of it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from warehouse.core.errors import SourceUnavailable


@dataclass(frozen=True)
class ServerState:
    """One server's record.

    Attributes:
        port: the loopback port it has or will have; 0 before the first start.
        pid: its process; None while it is stopped, or between the intent and the start.
        created: when that process began (psutil's create_time, seconds since 1970), so that another
            process which was given the same number later is not taken for it.
        secrets: passwords by account, made once and kept as long as the data.
    """

    port: int = 0
    pid: int | None = None
    created: float | None = None
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


def load(path: Path) -> ServerState | None:
    """The record at `path`; None when there is none or it cannot be understood.

    Raises:
        SourceUnavailable: it belongs to another user.
    """
    try:
        return ServerState(**json.loads(path.read_text(encoding="utf-8")))
    except PermissionError:
        raise SourceUnavailable(
            "the embedded servers of this home belong to another user",
            todo=f"run this as the owner of {path}, or use a WAREHOUSE_HOME of your own",
        ) from None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def save(path: Path, state: ServerState) -> None:
    """Replace the record at `path`."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(state), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
