"""Snowflake's own history in the same model: LOGIN_HISTORY, QUERY_HISTORY and ACCESS_HISTORY as OCSF events.

A row is what `SELECT object_construct_keep_null('VIEW', '<view>', *) FROM snowflake.account_usage.<view>` gives.
Statements are looked at here and then left behind: no event carries their text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from warehouse.privacy.ocsf import ACCESS, ACCOUNT_CHANGE, AUTHENTICATION, DATASTORE, ENTITY, Actor, Outcome, envelope

Row = Mapping[str, Any]

_PROTOCOLS = {
    "PASSWORD": "password", "RSA_KEYPAIR": "key_pair", "KEYPAIR": "key_pair", "SAML2_ASSERTION": "saml",
    "ID_TOKEN": "saml", "OAUTH_ACCESS_TOKEN": "oauth", "PROGRAMMATIC_ACCESS_TOKEN": "token",
}  # fmt: skip
_LITERAL_OR_COMMENT = re.compile(
    r"(?P<literal>'(?:[^'\\]|\\.|'')*'|\$\$.*?\$\$)|/\*.*?\*/|--[^\n]*|//[^\n]*", re.DOTALL
)
"""Found from left to right in one pass: a quote inside a comment opens nothing, and the other way round."""
_TO_SHARE = re.compile(r"^GRANT .+ TO SHARE (?P<name>[\w.$]+)")
_GRANT = re.compile(r"^GRANT (?P<what>.+?) TO (?:ROLE |USER |SHARE )?(?P<who>[\w.$]+)")
_POLICY = {
    "MASKING POLICY": "masking_policy", "ROW ACCESS POLICY": "row_access_policy",
    "NETWORK POLICY": "network_policy", "NETWORK RULE": "network_policy",
    "AUTHENTICATION POLICY": "authentication_policy", "SHARE": "share",
}  # fmt: skip
_OBJECT = re.compile(
    rf"^(?P<verb>CREATE|ALTER|DROP) (?:OR REPLACE )?(?P<kind>{'|'.join(_POLICY)}) "
    r"(?:IF (?:NOT )?EXISTS )?(?P<name>[\w.$]+)"
)
_DETACH = re.compile(r"\b(?:UNSET (?P<mask>MASKING POLICY)|DROP (?:ALL )?(?P<row>ROW ACCESS POLIC))")
_SETTING = re.compile(r"^ALTER (?:ACCOUNT|USER) .*?\b(?:UN)?SET (?P<kind>NETWORK_POLICY|AUTHENTICATION POLICY)")
_TABLE_GONE = re.compile(
    r"^(?:DROP TABLE|TRUNCATE(?: TABLE)?|DROP SCHEMA|DROP DATABASE) (?:IF EXISTS )?(?P<name>[\w.$]+)"
)
_NEW_USER = re.compile(r"^CREATE (?:OR REPLACE )?USER (?:IF NOT EXISTS )?(?P<name>[\w.$]+)")
_NO_MFA = re.compile(r"^ALTER USER (?:IF EXISTS )?(?P<name>[\w.$]+) .*(?:REMOVE MFA|DISABLE_MFA|MINS_TO_BYPASS_MFA)")
_ACTIVITY = {"CREATE": 1, "ALTER": 3, "DROP": 4}
_DATA_STATEMENTS = ("SELECT", "UNLOAD", "GET_FILES")


def from_snowflake(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """OCSF events, in the order of the rows.

    Raises:
        ValueError: a row of a view that is not one of the three.
    """
    for row in rows:
        view = str(row.get("VIEW", "")).upper()
        if view == "LOGIN_HISTORY":
            yield login(row)
        elif view == "QUERY_HISTORY":
            yield statement(row)
        elif view == "ACCESS_HISTORY":
            yield access(row)
        else:
            raise ValueError("a row says in VIEW that it is of LOGIN_HISTORY, QUERY_HISTORY or ACCESS_HISTORY")


def login(row: Row) -> dict[str, Any]:
    """A row of LOGIN_HISTORY."""
    factor = str(row.get("FIRST_AUTHENTICATION_FACTOR") or "").upper()
    event = envelope(
        AUTHENTICATION,
        1,
        "login",
        actor=_actor(row, address=str(row.get("CLIENT_IP") or "")),
        outcome="success" if str(row.get("IS_SUCCESS", "")).upper() in ("YES", "TRUE") else "failure",
        at=_time(row["EVENT_TIMESTAMP"]),
        uid=f"login-{row['EVENT_ID']}",
    )
    return event | {
        "user": event["actor"]["user"],
        "is_mfa": bool(row.get("SECOND_AUTHENTICATION_FACTOR")),
        "auth_protocol": _PROTOCOLS.get(factor, factor.lower()),
    }


def statement(row: Row) -> dict[str, Any]:
    """A row of QUERY_HISTORY: what the statement did, read off its normalised text."""
    text = _normalised(str(row.get("QUERY_TEXT") or ""))
    if match := _TO_SHARE.match(text):
        return _event(row, ENTITY, 3, "object_change") | {"entity": {"type": "share", "name": match["name"]}}
    if match := _GRANT.match(text):
        what = match["what"].removeprefix("DATABASE ")
        privileges = [what] if what.startswith("ROLE ") else [part.strip() for part in what.split(" ON ")[0].split(",")]
        event = _event(row, ACCESS, 3 if what.startswith("ROLE ") else 1, "grant")
        return event | {"user": {"name": match["who"]}, "privileges": privileges}
    if match := _OBJECT.match(text):
        event = _event(row, ENTITY, _ACTIVITY[match["verb"]], "object_change")
        return event | {"entity": {"type": _POLICY[match["kind"]], "name": match["name"]}}
    if match := _DETACH.search(text):
        kind = "masking_policy" if match["mask"] else "row_access_policy"
        return _event(row, ENTITY, 4, "object_change") | {"entity": {"type": kind, "name": "detached"}}
    if match := _SETTING.search(text):
        kind = match["kind"].replace(" ", "_").lower()
        return _event(row, ENTITY, 3, "object_change") | {"entity": {"type": kind, "name": "setting"}}
    if match := _NO_MFA.match(text):
        return _event(row, ACCOUNT_CHANGE, 11, "mfa_disabled") | {"user": {"name": match["name"]}}
    if match := _NEW_USER.match(text):
        return _event(row, ACCOUNT_CHANGE, 1, "user_created") | {"user": {"name": match["name"]}}
    if match := _TABLE_GONE.match(text):
        return _event(row, DATASTORE, 7, "table_dropped", ("table", match["name"].lower()))
    if text.startswith(("COPY INTO @", "COPY INTO ?")):  # a literal address has become a ?
        event = _event(row, DATASTORE, 1, "export", ("file", "external"))
        return event | {"unmapped": {"rows": int(row.get("ROWS_UNLOADED") or row.get("ROWS_PRODUCED") or 0)}}
    is_read = str(row.get("QUERY_TYPE") or "").upper() in _DATA_STATEMENTS
    event = _event(row, DATASTORE, 4 if is_read else 5, "query" if is_read else "statement")
    return event | {"unmapped": {"rows": int(row.get("ROWS_PRODUCED") or 0)}}


def access(row: Row) -> dict[str, Any]:
    """A row of ACCESS_HISTORY: which tables a query read, through views too."""
    objects = row.get("BASE_OBJECTS_ACCESSED") or []
    if isinstance(objects, str):
        objects = json.loads(objects)
    names = [("table", str(item["objectName"]).lower()) for item in objects if item.get("objectName")]
    at = row.get("QUERY_START_TIME") or row["START_TIME"]
    return _event(
        dict(row) | {"START_TIME": at, "EXECUTION_STATUS": "SUCCESS"}, DATASTORE, 1, "query", *names, of="access"
    )


def _event(
    row: Row, class_uid: int, activity: int, code: str, *resources: tuple[str, str], of: str = "query"
) -> dict[str, Any]:
    outcome: Outcome = "success" if str(row.get("EXECUTION_STATUS") or "SUCCESS").upper() == "SUCCESS" else "failure"
    event = envelope(
        class_uid,
        activity,
        code,
        actor=_actor(row, address=str(row.get("CLIENT_IP") or "")),
        outcome=outcome,
        at=_time(row["START_TIME"]),
        uid=f"{of}-{row['QUERY_ID']}",
    )
    event["resources"] = [{"type": kind, "name": name} for kind, name in resources]
    return event


def _actor(row: Row, *, address: str) -> Actor:
    name = str(row.get("USER_NAME") or "unknown")
    is_service = str(row.get("USER_TYPE") or "").upper() in ("SERVICE", "LEGACY_SERVICE", "SNOWFLAKE_SERVICE")
    role = row.get("ROLE_NAME")
    return Actor(name, name, "snowflake", address, 0, str(role) if role else None, "System" if is_service else "User")


def _normalised(text: str) -> str:
    """Upper case, one space, no comments, no quotes, every literal a `?`."""
    without = _LITERAL_OR_COMMENT.sub(lambda found: "?" if found["literal"] else " ", text)
    return re.sub(r"\s+", " ", without.replace('"', "")).strip().rstrip(";").upper()


def _time(value: object) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
