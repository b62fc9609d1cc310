"""The breach register (GDPR 33(5)): every personal data breach, its facts, its effects and what was done about it.

Append-only JSON lines below WAREHOUSE_HOME, readable by their owner only. An entry holds counts and names of things;
who was affected stands in the vault, under the incident's id. An exercise is an entry too, and says that it is one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
from pydantic import TypeAdapter

from warehouse.core.database import blank_connection
from warehouse.core.errors import ConfigurationError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.vault import ALIAS, attach_vault

NOTIFY_WITHIN = timedelta(hours=72)
"""From becoming aware of it to the supervisory authority, GDPR 33(1)."""


@dataclass(frozen=True)
class Breach:
    """One entry of the register."""

    incident: str
    exercise: bool
    nature: str
    """What happened (33(3)(a))."""
    detected_at: str
    """When the controller became aware, from which the 72 hours count."""
    deadline: str
    subjects: int
    """How many people are affected; who they are stands in the vault."""
    records: int
    categories: tuple[str, ...]
    """Kinds of personal data."""
    consequences: str
    """Likely ones (33(3)(c))."""
    measures: tuple[str, ...]
    """Taken or proposed (33(3)(d))."""
    audit_head: str
    """Head of the audit log when the entry was written: the log that holds it holds the timeline."""
    notified_at: str | None = None
    """When the authority was told; null while it was not, or need not be (then `reason` says why)."""
    reason: str | None = None
    timeline: tuple[dict[str, Any], ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For `--json` and the register."""
        return asdict(self)


_READ = TypeAdapter(Breach)


def deadline_of(detected_at: datetime) -> datetime:
    """When the supervisory authority must know at the latest."""
    return detected_at + NOTIFY_WITHIN


def register(settings: Settings, breach: Breach) -> None:
    """Append an entry; on return it is on disk."""
    path = Home.of(settings).breaches
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (json.dumps(breach.to_dict(), sort_keys=True) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def breaches(settings: Settings) -> list[Breach]:
    """Every entry, oldest first.

    Raises:
        ConfigurationError: a line is no entry.
    """
    path = Home.of(settings).breaches
    if not path.exists():
        return []
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [_READ.validate_python(entry) for entry in entries]
    except (ValueError, TypeError):
        raise ConfigurationError(
            f"{path.name} holds a line that is no entry of the register",
            kept="the file as it is",
            todo="restore it from your backup; the audit log names every entry",
        ) from None


def overdue(breach: Breach, now: datetime | None = None) -> bool:
    """Whether the authority was not told in time and no reason is given."""
    told = breach.notified_at is not None or breach.reason is not None or breach.exercise
    return not told and (now or datetime.now(UTC)) > datetime.fromisoformat(breach.deadline)


def store_affected(settings: Settings, incident: str, subjects: Iterable[str]) -> int:
    """Keep who is affected, in the vault and nowhere else; returns how many they are."""
    connection = blank_connection(settings)
    try:
        attach_vault(connection, settings)
        rows: Sequence[tuple[str, str]] = sorted({(incident, subject) for subject in subjects})
        _insert(connection, rows)
    finally:
        connection.close()
    return len(rows)


def _insert(connection: duckdb.DuckDBPyConnection, rows: Sequence[tuple[str, str]]) -> None:
    connection.execute(
        f"insert into {ALIAS}.main.incident_subject select unnest($incidents::varchar[]), unnest($subjects::varchar[])",
        {"incidents": [incident for incident, _ in rows], "subjects": [subject for _, subject in rows]},
    )
