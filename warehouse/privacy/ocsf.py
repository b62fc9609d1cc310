"""Security events in the Open Cybersecurity Schema Framework (OCSF 1.6): one shape for our own and Snowflake's.

An event says who, what, when, from where, with which outcome, and what it affected (PCI DSS 10.2.2). It carries names
of things and counts, never a value of a row and never the text of a statement.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal

OCSF_VERSION = "1.6.0"
PRODUCT = "payments-warehouse"
AUTHENTICATION, ACCOUNT_CHANGE, ENTITY, ACCESS, DATASTORE = 3002, 3001, 3004, 3005, 6005
"""Classes: logins; users; policies and other managed objects; privileges and roles; data."""

Outcome = Literal["success", "failure", "started"]
_STATUS: dict[Outcome, int] = {"success": 1, "failure": 2, "started": 0}

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:$/-]{0,127}", re.ASCII)
_LONG_NUMBER = re.compile(r"\d{12}")


class Activity(Enum):
    """What this platform does that an auditor asks for: event code, OCSF class, OCSF activity."""

    QUERY = ("query", DATASTORE, 4)
    EXPORT = ("export", DATASTORE, 1)
    PUBLISH = ("publish", DATASTORE, 6)
    ROLE_EXPORT = ("role_export", DATASTORE, 6)
    REFRESH = ("refresh", DATASTORE, 5)
    INGEST = ("ingest", DATASTORE, 5)
    BUILD = ("build", DATASTORE, 5)
    CHECK = ("check", DATASTORE, 4)
    RECONCILE = ("reconcile", DATASTORE, 4)
    SITE = ("site", DATASTORE, 4)
    SCAN = ("scan", DATASTORE, 4)
    REPLAY = ("replay", DATASTORE, 5)
    BACKUP = ("backup", DATASTORE, 6)
    RESTORE = ("restore", DATASTORE, 5)
    HOUSEKEEPING = ("housekeeping", DATASTORE, 7)
    REVEAL = ("reveal", DATASTORE, 1)
    ERASE = ("erase", DATASTORE, 7)
    RETENTION = ("retention", DATASTORE, 7)
    HOLD = ("hold", ENTITY, 3)
    ENROL = ("enrol", ACCOUNT_CHANGE, 1)
    KEY_USE = ("key_use", DATASTORE, 10)
    KEY_CREATE = ("key_create", DATASTORE, 6)
    KEY_ROTATE = ("key_rotate", DATASTORE, 2)
    DRILL = ("drill", DATASTORE, 4)
    LOGIN = ("login", AUTHENTICATION, 1)
    GRANT = ("grant", ACCESS, 1)

    @property
    def code(self) -> str:
        """The name in records, `metadata.event_code`."""
        return self.value[0]

    @property
    def class_uid(self) -> int:
        """The OCSF class."""
        return self.value[1]

    @property
    def activity_id(self) -> int:
        """The OCSF activity within the class."""
        return self.value[2]


@dataclass(frozen=True)
class Actor:
    """Who acts, and from where."""

    name: str
    uid: str
    host: str
    address: str
    process: int
    role: str | None = None
    kind: Literal["User", "System"] = "User"
    """A person, or a service."""

    @classmethod
    def current(cls, role: str | None = None) -> Actor:
        """The operating system's account of this process: environment variables such as USER do not count."""
        uid = os.getuid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:  # a container's numeric user
            name = f"uid-{uid}"
        remote = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
        address = remote if re.fullmatch(r"[0-9a-fA-F.:]{2,45}", remote) else "127.0.0.1"
        return cls(name, str(uid), socket.gethostname(), address, os.getpid(), role)


@dataclass(frozen=True)
class Resource:
    """What an activity concerned, by name: `table public.fct_sales`, `key vault`."""

    type: Literal["database", "table", "key", "file", "role", "subject", "policy", "ticket", "purpose"]
    name: str

    def __post_init__(self) -> None:
        """Names only.

        Raises:
            ValueError: it is no name of a thing of ours, or holds what could be a card number.
        """
        if not _NAME.fullmatch(self.name) or _LONG_NUMBER.search(self.name):
            raise ValueError(f"a {self.type} is named by letters, digits and _.:$/- without long numbers")


def file_resource(label: str) -> Resource:
    """A file that somebody else has named; what no name of ours may hold becomes `_`."""
    name = re.sub(r"\d{6,}", "_", re.sub(r"[^A-Za-z0-9_./-]", "_", label, flags=re.ASCII))[:120]
    return Resource("file", name if _NAME.fullmatch(name) else "unnamed")


def event(
    activity: Activity,
    *,
    actor: Actor,
    outcome: Outcome,
    resources: Sequence[Resource],
    statement_digest: str | None = None,
    rows: int | None = None,
    error: str | None = None,
    at: datetime | None = None,
) -> dict[str, Any]:
    """One OCSF event.

    Args:
        activity: what was done.
        actor: who, from where, in which role.
        outcome: how it ended; `started` where the end has its own event.
        resources: what it concerned.
        statement_digest: keyed digest of the SQL, so that equal statements can be recognised.
        rows: how many rows were handed out.
        error: the class of the failure.
        at: when, with zone; default now.
    """
    record = envelope(
        activity.class_uid,
        activity.activity_id,
        activity.code,
        actor=actor,
        outcome=outcome,
        at=at or datetime.now(UTC),
        uid=uuid.uuid4().hex,
    )
    record["resources"] = [{"type": item.type, "name": item.name} for item in resources]
    if activity.class_uid == DATASTORE:
        record["database"] = {"name": next((item.name for item in resources if item.type == "database"), "warehouse")}
    if activity.class_uid in (AUTHENTICATION, ACCESS):
        record["user"] = record["actor"]["user"]
    if statement_digest is not None:
        record["query_info"] = {"query_string": statement_digest}
    if rows is not None:
        record["count"] = 1
        record["unmapped"] = {"rows": rows}
    if error is not None:
        record["status_detail"] = error
    return record


def envelope(
    class_uid: int, activity_id: int, code: str, *, actor: Actor, outcome: Outcome, at: datetime, uid: str
) -> dict[str, Any]:
    """What every event has, whoever saw it: class, activity, time, actor, origin, outcome."""
    user: dict[str, Any] = {"name": actor.name, "uid": actor.uid, "type": actor.kind}
    if actor.role:
        user["groups"] = [{"name": actor.role, "type": "role"}]
    return {
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": PRODUCT, "vendor_name": PRODUCT},
            "event_code": code,
            "uid": uid,
        },
        "time": int(at.timestamp() * 1000),
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "activity_id": activity_id,
        "type_uid": class_uid * 100 + activity_id,
        "severity_id": 1,
        "status_id": _STATUS[outcome],
        "status": outcome.capitalize(),
        "actor": {"user": user, "process": {"pid": actor.process}},
        "src_endpoint": {"hostname": actor.host, "ip": actor.address},
        "resources": [],
    }
