"""Who may see a person's data: a role that roles.yml lets, proved by a one-time code, for a purpose, under a ticket."""

from __future__ import annotations

import re
from typing import Literal

from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.settings import Settings
from warehouse.privacy.roles import Power, load_policy
from warehouse.privacy.totp import demand_code

Purpose = Literal["access_request", "incident", "fraud_case", "legal_order", "support"]
PURPOSES: tuple[Purpose, ...] = ("access_request", "incident", "fraud_case", "legal_order", "support")

_TICKET = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,15}-[0-9]{1,9}")


class NotAllowed(WarehouseError):
    """The role, the account or the code does not allow this. It is in the audit log."""

    exit_code = 16


def checked_ticket(ticket: str) -> str:
    """Raises ConfigurationError for what is no ticket's number."""
    if not _TICKET.fullmatch(ticket):
        raise ConfigurationError("a ticket looks like DSR-123", todo="give the number of the request in your tracker")
    return ticket


def checked_purpose(purpose: str) -> str:
    """Raises ConfigurationError for a purpose that is not on the list."""
    if purpose not in PURPOSES:
        raise ConfigurationError(f"a purpose is one of {', '.join(PURPOSES)}", todo="give one of them")
    return purpose


def authorise(settings: Settings, account: str, role: str, power: Power, code: str) -> None:
    """Let the account go on, or raise.

    Raises:
        ConfigurationError: there is no such role, or the account is not enrolled.
        NotAllowed: the role lacks the power, the account was not enrolled for the role, or the code is wrong,
            expired, used before, or asked for too often.
    """
    policy = load_policy()
    if power not in policy.role(role).powers:
        raise NotAllowed(
            f"the role {role} may not {power}",
            kept="nothing was shown",
            todo=f"ask one who holds {', '.join(name for name, one in policy.roles.items() if power in one.powers)}",
        )
    if (problem := demand_code(settings, account, role, code)) is not None:
        raise NotAllowed(problem, kept="nothing was shown", todo="wait for the next code of your authenticator")
