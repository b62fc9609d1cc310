"""The detections. Each has a true and a benign fixture in tests/security/detections/."""

from __future__ import annotations

from warehouse.privacy.detections.engine import Detection, Rule
from warehouse.privacy.detections.events import Seen

ADMIN_ROLES = frozenset({"ACCOUNTADMIN", "SECURITYADMIN", "ORGADMIN"})
BULK_ROWS = 1_000_000
SPIKE_ROWS = 5_000_000
OFFICE_HOURS = range(6, 20)
"""UTC, Monday to Friday."""
WRITERS = frozenset(
    {
        "refresh", "ingest", "replay", "housekeeping", "reconcile", "scan",
        "reveal", "erase", "retention", "export", "key_create", "key_rotate",
    }
)  # fmt: skip
"""Activities that have to open the vault or make tokens."""
MINUTE, HOUR = 60.0, 3600.0
CREATE, UPDATE, DELETE = 1, 3, 4
"""Of a managed object (OCSF 3004)."""


def _login(event: Seen) -> bool:
    return event.code == "login" and event.succeeded


def _failed_login(event: Seen) -> bool:
    return event.code == "login" and event.failed


def _hands_out(event: Seen) -> bool:
    return event.code in ("query", "export") and event.succeeded


def _granted(event: Seen) -> bool:
    return event.code == "grant" and event.succeeded


def _changed(entity: str, *activities: int) -> Rule:
    return lambda event: (
        event.code == "object_change"
        and event.succeeded
        and event.entity == entity
        and (not activities or event.activity in activities)
    )


def _is_canary(name: str) -> bool:
    return name.rpartition(".")[2].lower().startswith("canary")


def _is_personal_key(name: str) -> bool:
    return name == "vault" or name.startswith("token_v")


def _is_drop(name: str) -> bool:
    return name.startswith("drops/")


def _is_off_hours(event: Seen) -> bool:
    return event.at.hour not in OFFICE_HOURS or event.at.weekday() >= 5


DETECTIONS: tuple[Detection, ...] = (
    Detection(
        "login_without_mfa", "high", "a person logged in with a password alone",
        when=lambda e: _login(e) and e.is_person and e.protocol == "password" and not e.is_mfa,
    ),
    Detection(
        "brute_force_then_success", "critical", "five failed logins, then one that succeeded",
        when=_login, counting=_failed_login, at_least=5, within=10 * MINUTE,
    ),
    Detection(
        "password_spray", "high", "one address failed to log in as ten accounts",
        when=_failed_login, at_least=10, within=10 * MINUTE,
        same=lambda e: e.address, different=lambda e: e.user,
    ),
    Detection(
        "login_from_many_addresses", "high", "a person logged in from three addresses within ten minutes",
        when=lambda e: _login(e) and e.is_person, at_least=3, within=10 * MINUTE, different=lambda e: e.address,
    ),
    Detection(
        "service_key_with_password", "critical", "a service logged in with a password instead of its key",
        when=lambda e: _login(e) and not e.is_person and e.protocol == "password",
    ),
    Detection(
        "grant_to_public", "critical", "something was granted to PUBLIC, which everybody has",
        when=lambda e: _granted(e) and e.grantee.upper() == "PUBLIC",
    ),
    Detection(
        "grant_of_admin_role", "critical", "an administrator's role was granted",
        when=lambda e: _granted(e) and any(p.upper().removeprefix("ROLE ") in ADMIN_ROLES for p in e.privileges),
    ),
    Detection(
        "admin_role_reads_data", "high", "an administrator's role was used to read data",
        when=lambda e: _hands_out(e) and (e.role or "").upper() in ADMIN_ROLES and bool(e.names("table")),
    ),
    Detection(
        "external_share", "critical", "data was shared with another account",
        when=_changed("share"),
    ),
    Detection(
        "export_to_external_place", "high", "rows were written to a stage or an address outside",
        when=lambda e: e.code == "export" and e.succeeded and bool(e.names("file")),
    ),
    Detection(
        "network_policy_changed", "high", "who may connect from where was changed",
        when=_changed("network_policy"),
    ),
    Detection(
        "authentication_policy_changed", "high", "how people and services log in was changed",
        when=_changed("authentication_policy", UPDATE, DELETE),
    ),
    Detection(
        "masking_policy_dropped", "critical", "a masking policy was changed, dropped or detached",
        when=_changed("masking_policy", UPDATE, DELETE),
    ),
    Detection(
        "row_access_policy_dropped", "critical", "a row access policy was changed, dropped or detached",
        when=_changed("row_access_policy", UPDATE, DELETE),
    ),
    Detection(
        "mfa_disabled", "critical", "somebody's second factor was removed",
        when=lambda e: e.code == "mfa_disabled" and e.succeeded,
    ),
    Detection(
        "user_created_by_person", "medium", "an account was made by hand instead of by provisioning",
        when=lambda e: e.code == "user_created" and e.succeeded and e.is_person,
    ),
    Detection(
        "bulk_export", "high", f"{BULK_ROWS:,} rows or more left at once",
        when=lambda e: _hands_out(e) and e.rows >= BULK_ROWS,
    ),
    Detection(
        "drop_refused", "high", "a file that a partner left was refused: damaged, hostile, or no file of ours",
        when=lambda e: e.code in ("ingest", "refresh") and e.failed and any(map(_is_drop, e.names("file"))),
    ),
    Detection(
        "volume_spike", "high", f"one account took {SPIKE_ROWS:,} rows within an hour",
        when=_hands_out, at_least=SPIKE_ROWS, within=HOUR, measure=lambda e: e.rows,
    ),
    Detection(
        "repeated_failures", "medium", "ten statements of one account failed within five minutes: somebody is probing",
        when=lambda e: e.code == "query" and e.failed, at_least=10, within=5 * MINUTE,
    ),
    Detection(
        "off_hours_reveal", "high", "personal data was revealed outside office hours",
        when=lambda e: e.code == "reveal" and _is_off_hours(e) and not e.failed,
    ),
    Detection(
        "reveal_burst", "critical", "twenty subjects were revealed by one account within an hour",
        when=lambda e: e.code == "reveal" and e.succeeded, at_least=20, within=HOUR,
    ),
    Detection(
        "reveal_refused", "medium", "three reveals were refused within ten minutes: role, ticket or code was wrong",
        when=lambda e: e.code == "reveal" and e.failed, at_least=3, within=10 * MINUTE,
    ),
    Detection(
        "canary_read", "critical", "somebody looked at a subject or a table that only a thief would look for",
        when=lambda e: any(map(_is_canary, e.names("table") + e.names("subject"))),
    ),
    Detection(
        "erase_burst", "high", "ten subjects were erased within an hour",
        when=lambda e: e.code == "erase" and e.succeeded, at_least=10, within=HOUR,
    ),
    Detection(
        "personal_key_used_elsewhere", "critical", "the vault's or the tokens' key was used by what has no need of it",
        when=lambda e: any(map(_is_personal_key, e.names("key"))) and e.code not in WRITERS,
    ),
    Detection(
        "plain_text_unsealed", "medium", "a sealed file was written out as plain text",
        when=lambda e: e.code == "key_use" and e.succeeded,
    ),
    Detection(
        "table_dropped_by_person", "high", "a person dropped or emptied a table",
        when=lambda e: e.code == "table_dropped" and e.succeeded and e.is_person,
    ),
    Detection(
        "audit_log_tampered", "critical", "the audit log does not fit its chain or its head",
        when=lambda e: e.code == "audit_verify" and e.failed,
    ),
)  # fmt: skip
