"""Personal values shown to a person: one subject at a time, never under a hold, and audited before they are seen."""

from __future__ import annotations

from warehouse.core.settings import Settings
from warehouse.privacy.authorisation import authorise, checked_purpose, checked_ticket
from warehouse.privacy.holds import demand_no_hold
from warehouse.privacy.subjects import checked_subject
from warehouse.privacy.vault import Entry, subject_entries


def reveal(
    settings: Settings, subject: str, *, account: str, role: str, purpose: str, ticket: str, code: str
) -> list[Entry]:
    """What the vault holds of a subject. The caller records the outcome before it shows anything.

    Raises:
        ConfigurationError: the id, purpose, ticket or role is none, or the account is not enrolled.
        NotAllowed: the role, the account or the code does not allow it.
        OnHold: a legal hold restricts the subject.
        UnknownSubject: the vault holds nothing of them.
        VaultDamaged: a key or a value does not open.
    """
    canonical = checked_subject(subject)
    checked_purpose(purpose)
    checked_ticket(ticket)
    authorise(settings, account, role, "reveal", code)
    demand_no_hold(settings, canonical)
    return subject_entries(settings, canonical)
