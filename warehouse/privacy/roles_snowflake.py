"""Snowflake's DDL from roles.yml: roles, policies, tags, grants. Text only: nothing here connects.

The order matters and is kept: policies and tags first, row access next, grants last, so that no table is readable
before it is protected. A column that a role does not see is null for it there; a table that it does not see is not
granted. Each schema carries the tag `unseen`: a column that came after the last run is null for everybody until the
next one. A table that is made anew (`create or replace`) loses its grants with its tags: run this after it. Nothing is
granted to PUBLIC, and what PUBLIC has on these schemas is revoked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from warehouse.core.errors import ConfigurationError
from warehouse.privacy.roles import GRANTABLE, Policy, Relation, Role

GOVERNANCE = "GOVERNANCE"
TAG = f"{GOVERNANCE}.ACCESS_CLASS"
UNSEEN = "unseen"
"""The tag of a column that no role sees, and of whatever has no tag of its own."""
MASK_TYPES = {
    "TEXT": "varchar", "NUMBER": "number", "FLOAT": "float", "BOOLEAN": "boolean", "DATE": "date",
    "TIMESTAMP": "timestamp_tz", "NAIVE": "timestamp_ntz", "VARIANT": "variant",
}  # fmt: skip
"""A tag takes one masking policy per type."""

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def snowflake_ddl(policy: Policy, relations: Sequence[Relation], database: str) -> list[str]:
    """The statements, in the order in which they have to run; each may run again.

    Raises:
        ConfigurationError: a name would have to be quoted, or a row filter reads a column that its table lacks.
    """
    seen = [relation for relation in relations if any(policy.columns(role, relation) for role in policy.roles.values())]
    for relation in seen:
        for name in (relation.schema, relation.name, *relation.columns):
            if not _PLAIN_NAME.fullmatch(name):
                raise ConfigurationError("a table or column has a name that would have to be quoted", todo="rename it")
    schemas = sorted({relation.schema for relation in seen})
    return [
        *_roles(policy),
        f"use database {database}",
        f"create schema if not exists {GOVERNANCE}",
        f"create tag if not exists {TAG}",
        *_masking_policies(policy),
        f"alter tag {TAG} set {', '.join(f'masking policy {GOVERNANCE}.MASK_{suffix}' for suffix in MASK_TYPES)} force",
        *(f"alter schema {schema} set tag {TAG} = '{UNSEEN}'" for schema in schemas),
        *(statement for relation in seen for statement in _tag_columns(policy, relation)),
        *_row_policies(policy, seen),
        *_nothing_to_public(database, schemas),
        *_grants(policy, seen, database),
        *_authentication(),
    ]


def masking_body(policy: Policy, type_: str) -> str:
    """Which roles see the value of a column, by its tag; for every other role and tag: null."""
    branches = []
    for schema in sorted({schema for role in policy.roles.values() for schema in role.schemas}):
        for name in GRANTABLE:
            roles = [role for role in policy.roles.values() if _sees(role, schema, name)]
            if roles:
                who = " or ".join(f"is_role_in_session('{role.name.upper()}')" for role in roles)
                tag = f"system$get_tag_on_current_column('{TAG}')"
                branches.append(f"when {tag} = '{schema}_{name}' and ({who}) then val")
    return f"case {' '.join(branches)} else cast(null as {type_}) end"


def row_body(policy: Policy, relation: Relation) -> str:
    """Which rows each role sees of a table; a role that is not named sees none."""
    branches = []
    for role in policy.roles.values():
        if policy.columns(role, relation):
            found = role.rows.get(relation.qualified)
            branches.append(f"is_role_in_session('{role.name.upper()}') and ({found.when if found else 'true'})")
    return " or ".join(f"({branch})" for branch in branches)


def _sees(role: Role, schema: str, name: str) -> bool:
    rule = role.schemas.get(schema)
    return rule is not None and rule.classes.get(name) == "plain"


def _roles(policy: Policy) -> Iterable[str]:
    for role in policy.roles.values():
        purpose = role.purpose.replace("'", "''")
        yield f"create role if not exists {role.name.upper()} comment = '{role.kind}: {purpose}'"


def _tag_value(policy: Policy, relation: Relation, column: str) -> str:
    found = policy.access_class(relation, column)
    return f"{relation.schema}_{found}" if found else UNSEEN


def _masking_policies(policy: Policy) -> Iterable[str]:
    for suffix, type_ in MASK_TYPES.items():
        name = f"{GOVERNANCE}.MASK_{suffix}"
        yield f"create masking policy if not exists {name} as (val {type_}) returns {type_} -> cast(null as {type_})"
        yield f"alter masking policy {name} set body -> {masking_body(policy, type_)}"


def _tag_columns(policy: Policy, relation: Relation) -> Iterable[str]:
    for column in relation.columns:
        value = _tag_value(policy, relation, column)
        yield f"alter {_kind(relation)} {relation.qualified} modify column {column} set tag {TAG} = '{value}'"


def _kind(relation: Relation) -> str:
    return "view" if relation.is_view else "table"


def _row_policies(policy: Policy, relations: Sequence[Relation]) -> Iterable[str]:
    filtered = {table for role in policy.roles.values() for table in role.rows}
    for relation in relations:
        if relation.qualified not in filtered:
            continue
        filtered.remove(relation.qualified)
        columns: dict[str, str] = {}
        for role in policy.roles.values():
            if relation.qualified in role.rows:
                columns |= role.rows[relation.qualified].columns
        if missing := set(columns) - set(relation.columns):
            raise ConfigurationError(
                f"a row filter reads {relation.qualified}.{sorted(missing)[0]}, which does not exist", todo="correct it"
            )
        name = f"{GOVERNANCE}.ROWS_{relation.schema}_{relation.name}".upper()
        arguments = ", ".join(f"{column} {type_}" for column, type_ in columns.items())
        yield f"create row access policy if not exists {name} as ({arguments}) returns boolean -> false"
        yield f"alter row access policy {name} set body -> {row_body(policy, relation)}"
        kind = _kind(relation)
        for role in policy.roles.values():  # nobody reads it while it has no policy
            yield f"revoke select on {kind} {relation.qualified} from role {role.name.upper()}"
        yield f"alter {kind} {relation.qualified} drop all row access policies"
        yield f"alter {kind} {relation.qualified} add row access policy {name} on ({', '.join(columns)})"
    if filtered:
        raise ConfigurationError(f"a row filter is for {sorted(filtered)[0]}, which does not exist", todo="correct it")


def _nothing_to_public(database: str, schemas: Sequence[str]) -> Iterable[str]:
    yield f"revoke all privileges on database {database} from role PUBLIC"
    for schema in (*schemas, GOVERNANCE):
        yield f"revoke all privileges on schema {schema} from role PUBLIC"
        for kind in ("tables", "views"):
            yield f"revoke all privileges on all {kind} in schema {schema} from role PUBLIC"


def _grants(policy: Policy, relations: Sequence[Relation], database: str) -> Iterable[str]:
    for role in policy.roles.values():
        who = f"role {role.name.upper()}"
        yield f"grant usage on database {database} to {who}"
        visible = [relation for relation in relations if policy.columns(role, relation)]
        for schema in sorted({relation.schema for relation in visible}):
            yield f"grant usage on schema {schema} to {who}"
        for relation in visible:
            yield f"grant select on {_kind(relation)} {relation.qualified} to {who}"


def _authentication() -> Iterable[str]:
    yield (
        f"create authentication policy if not exists {GOVERNANCE}.PEOPLE "
        "authentication_methods = ('SAML', 'PASSWORD') mfa_enrollment = 'REQUIRED'"
    )
    yield f"create authentication policy if not exists {GOVERNANCE}.SERVICES authentication_methods = ('KEYPAIR')"
    yield f"alter account set authentication policy {GOVERNANCE}.PEOPLE for all person users"
    yield f"alter account set authentication policy {GOVERNANCE}.SERVICES for all service users"
