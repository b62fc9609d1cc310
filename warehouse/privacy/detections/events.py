"""An OCSF event, as detections look at it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any


@dataclass(frozen=True, eq=False)
class Seen:
    """One event with names for what rules ask."""

    raw: dict[str, Any]

    @cached_property
    def code(self) -> str:
        """What happened, in this platform's words: `query`, `login`, `grant`, …"""
        return str(self.raw["metadata"]["event_code"])

    @property
    def uid(self) -> str:
        """Names this event."""
        return str(self.raw["metadata"]["uid"])

    @cached_property
    def seconds(self) -> float:
        """When, since 1970."""
        return float(self.raw["time"]) / 1000

    @property
    def at(self) -> datetime:
        """When, UTC."""
        return datetime.fromtimestamp(self.seconds, UTC)

    @property
    def user(self) -> str:
        """Who."""
        return str(self.raw["actor"]["user"]["name"])

    @property
    def is_person(self) -> bool:
        """Not a service."""
        return bool(self.raw["actor"]["user"].get("type") != "System")

    @property
    def role(self) -> str | None:
        """As whom."""
        groups = self.raw["actor"]["user"].get("groups") or [{}]
        name: str | None = groups[0].get("name")
        return name

    @property
    def address(self) -> str:
        """From where."""
        return str(self.raw["src_endpoint"]["ip"])

    @property
    def succeeded(self) -> bool:
        """It was done."""
        return bool(self.raw["status_id"] == 1)

    @property
    def failed(self) -> bool:
        """It was tried and refused, or broke."""
        return bool(self.raw["status_id"] == 2)

    @property
    def rows(self) -> int:
        """How many rows were handed out."""
        return int((self.raw.get("unmapped") or {}).get("rows") or 0)

    @property
    def is_mfa(self) -> bool:
        """A login with a second factor."""
        return bool(self.raw.get("is_mfa"))

    @property
    def protocol(self) -> str:
        """Of a login: `password`, `key_pair`, `saml`, …"""
        return str(self.raw.get("auth_protocol", ""))

    @property
    def grantee(self) -> str:
        """Of a grant: who or which role got something."""
        return str((self.raw.get("user") or {}).get("name", ""))

    @property
    def privileges(self) -> list[str]:
        """Of a grant: what was given; a role as `ROLE name`."""
        return list(self.raw.get("privileges") or [])

    @property
    def entity(self) -> str:
        """Of a managed object: its type, such as `masking_policy`."""
        return str((self.raw.get("entity") or {}).get("type", ""))

    @property
    def activity(self) -> int:
        """The OCSF activity within the class."""
        return int(self.raw["activity_id"])

    def names(self, kind: str) -> list[str]:
        """The resources of one type."""
        return [item["name"] for item in self.raw.get("resources", ()) if item["type"] == kind]
