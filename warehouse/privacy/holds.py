"""Legal holds: whose records the law keeps (GDPR 17(3)(b)), and who are therefore restricted (18).

A held subject is not revealed and not exported, nor named in a role's export. An erasure that was asked for meanwhile
is noted, and due when the last hold is released. Holds lie in the vault, beside what they protect; who is restricted
stands beside it, as pseudonyms, so that an export can be made while something else holds the vault.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.authorisation import checked_ticket
from warehouse.privacy.pseudonyms import pseudonymiser
from warehouse.privacy.subjects import checked_subject
from warehouse.privacy.vault import ALIAS, open_vault

REASONS = ("aml", "tax", "litigation", "restriction_request")
DUE = "erasure_requested"
"""The reason of the note that an erasure waits."""


class OnHold(WarehouseError):
    """A legal hold restricts the subject."""

    exit_code = 15


@dataclass(frozen=True)
class Hold:
    """One hold, or the note that an erasure waits."""

    subject: str
    ticket: str
    reason: str
    since: str


def add_hold(settings: Settings, subject: str, reason: str, ticket: str) -> Hold:
    """Restrict a subject. Raises ConfigurationError for a reason that is none or a subject already held for it."""
    canonical = checked_subject(subject)
    if reason not in REASONS:
        raise ConfigurationError(f"a hold has one of the reasons {', '.join(REASONS)}", todo="give one of them")
    checked_ticket(ticket)
    if any(hold.reason == reason for hold in holds(settings, canonical)):
        raise ConfigurationError("the subject is already held for this reason", todo="`warehouse privacy hold list`")
    _note_restricted(settings, held_subjects(settings) | {canonical})  # first: killed here, one too many is restricted
    _insert(settings, canonical, ticket, reason)
    return next(hold for hold in holds(settings, canonical) if hold.reason == reason)


def release_hold(settings: Settings, subject: str, reason: str, ticket: str) -> bool:
    """End a hold. Returns whether an erasure is due now: it was asked for, and no hold is left.

    Raises:
        ConfigurationError: there is no such hold.
    """
    canonical = checked_subject(subject)
    checked_ticket(ticket)
    if reason == DUE or not any(hold.reason == reason for hold in holds(settings, canonical)):
        raise ConfigurationError("there is no such hold", todo="`warehouse privacy hold list` shows them")
    with open_vault(settings, read_only=False) as vault:
        vault.execute(
            f"update {ALIAS}.main.hold set released_at = now() "
            "where subject = $1 and reason = $2 and released_at is null",
            [canonical, reason],
        )
    _note_restricted(settings, held_subjects(settings))
    left = {hold.reason for hold in holds(settings, canonical)}
    return left == {DUE}


def holds(settings: Settings, subject: str | None = None) -> list[Hold]:
    """The holds in force, of one subject (canonical id) or of all."""
    with open_vault(settings, read_only=False) as vault:
        rows = vault.execute(
            f"select subject, ticket, reason, since::varchar from {ALIAS}.main.hold "
            "where released_at is null and coalesce(subject = $1, true) order by all",
            [subject],
        ).fetchall()
    return [Hold(*row) for row in rows]


def held_subjects(settings: Settings) -> frozenset[str]:
    """Who is restricted now, by canonical id: a note that an erasure waits restricts nobody.

    Raises ConfigurationError when there is no vault yet.
    """
    return frozenset(hold.subject for hold in holds(settings) if hold.reason != DUE)


def restricted(settings: Settings) -> frozenset[str]:
    """Pseudonyms of who is restricted, without opening the vault where it can be helped.

    Raises:
        AlreadyRunning: they were not noted yet, and another process holds the vault.
    """
    try:
        noted = json.loads(Home.of(settings).restricted.read_text(encoding="utf-8"))
        if noted["made_under"] == _made_under(settings):
            return frozenset(noted["subjects"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        pass
    if not Home.of(settings).vault.exists():
        return frozenset()
    return _note_restricted(settings, held_subjects(settings))


HoldRow = tuple[object, ...]
"""A row of the vault's table of holds, ended ones included."""


def all_holds(settings: Settings) -> list[HoldRow]:
    """Every hold there ever was, for a vault that takes the place of this one."""
    with open_vault(settings, read_only=False) as vault:
        return vault.execute(f"select * from {ALIAS}.main.hold order by all").fetchall()


def take_holds(settings: Settings, rows: list[HoldRow]) -> None:
    """Let these be the holds, whatever the vault says: an older one does not know who was held or released since."""
    with open_vault(settings, read_only=False) as vault:
        vault.execute("begin")
        vault.execute(f"delete from {ALIAS}.main.hold")
        for row in rows:
            vault.execute(f"insert into {ALIAS}.main.hold values ({', '.join('?' for _ in row)})", list(row))
        vault.execute("commit")
    _note_restricted(settings, held_subjects(settings))


def demand_no_hold(settings: Settings, canonical: str, *, wants_erasure: bool = False) -> None:
    """Raise OnHold when the subject is restricted; with `wants_erasure` the request is noted."""
    found = holds(settings, canonical)
    held = sorted({hold.reason for hold in found} - {DUE})
    if not held:
        return
    if wants_erasure and DUE not in {hold.reason for hold in found}:
        _insert(settings, canonical, found[0].ticket, DUE)
    noted = "; the erasure is noted and follows when the hold ends" if wants_erasure else ""
    raise OnHold(
        f"the subject is under a legal hold ({', '.join(held)}){noted}",
        kept="everything of theirs, restricted: it is neither shown nor exported",
        todo="`warehouse privacy hold release` when the hold ends",
    )


def settle_request(settings: Settings, canonical: str) -> None:
    """The erasure that was asked for is done: the note goes."""
    with open_vault(settings, read_only=False) as vault:
        vault.execute(f"delete from {ALIAS}.main.hold where subject = $1", [canonical])


def _insert(settings: Settings, canonical: str, ticket: str, reason: str) -> None:
    with open_vault(settings, read_only=False) as vault:
        vault.execute(f"insert into {ALIAS}.main.hold values ($1, $2, $3, now(), null)", [canonical, ticket, reason])


def _note_restricted(settings: Settings, subjects: frozenset[str]) -> frozenset[str]:
    """Write down who is restricted, whole or not at all; returns their pseudonyms."""
    found = frozenset(map(pseudonymiser(settings), subjects))
    path = Home.of(settings).restricted
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"made_under": _made_under(settings), "subjects": sorted(found)}, file)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
    return found


def _made_under(settings: Settings) -> str:
    """Tells the key of pseudonyms from any other: what was noted under one that was rotated restricts nobody."""
    return pseudonymiser(settings)("nobody")
