"""Legal holds: whose records the law keeps (GDPR 17(3)(b)), and who are therefore restricted (18).

A held subject is not revealed and not exported. An erasure that was asked for meanwhile is noted, and due when the last
hold is released. Holds lie in the vault, beside what they protect.
"""

from __future__ import annotations

from dataclasses import dataclass

from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.settings import Settings
from warehouse.privacy.authorisation import checked_ticket
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
