"""Roles: who sees which column of which table, and how. Read from roles.yml, applied to the classification.

Everything fails closed: a column without a class, a class without a rule and a table without a pattern are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

import sqlglot
import yaml
from sqlglot import exp

from warehouse.core.errors import ConfigurationError

ROLES_FILE = Path(__file__).with_name("roles.yml")
IDENTIFIER = "identifier"
GRANTABLE = ("public", "internal", "confidential", IDENTIFIER)
View = Literal["plain", "masked"]
Kind = Literal["person", "service"]
Power = Literal["reveal", "export", "erase", "hold"]
"""What may be done with the data of one person, beside reading tables."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HARMLESS = (
    exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.And, exp.Or, exp.Not, exp.Paren, exp.Is,
    exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between,
)  # fmt: skip
"""What a row filter may be made of: no function, no query, no parameter."""


@dataclass(frozen=True)
class Relation:
    """A table or view of the warehouse, with the class of each of its columns."""

    schema: str
    name: str
    columns: Mapping[str, str]
    """Column → class. A column that has none is not here."""
    is_view: bool = False

    @property
    def qualified(self) -> str:
        """`public.fct_sales`."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class RowFilter:
    """Which rows of a table a role sees."""

    columns: Mapping[str, str]
    """The columns it reads, with their SQL types (for Snowflake's policy)."""
    when: str


@dataclass(frozen=True)
class SchemaRule:
    """What a role sees of one schema."""

    tables: tuple[str, ...]
    classes: Mapping[str, View]

    def covers(self, table: str) -> bool:
        """Whether a pattern names the table."""
        return any(fnmatchcase(table, pattern) for pattern in self.tables)


@dataclass(frozen=True)
class Role:
    """One role."""

    name: str
    kind: Kind
    purpose: str
    schemas: Mapping[str, SchemaRule]
    rows: Mapping[str, RowFilter]
    """`schema.table` → filter."""
    powers: tuple[Power, ...] = ()


@dataclass(frozen=True)
class Policy:
    """All roles."""

    identifiers: tuple[str, ...]
    roles: Mapping[str, Role]

    def role(self, name: str) -> Role:
        """The role of this name.

        Raises:
            ConfigurationError: there is none.
        """
        try:
            return self.roles[name]
        except KeyError:
            raise ConfigurationError(f"there is no role {name!r}", todo=f"use one of {', '.join(self.roles)}") from None

    def access_class(self, relation: Relation, column: str) -> str | None:
        """The class that rules are looked up by; None: no rule can ever match."""
        given = relation.columns.get(column)
        if given == "confidential" and self.is_identifier(relation.name, column):
            return IDENTIFIER
        return given if given in GRANTABLE else None

    def is_identifier(self, table: str, column: str) -> bool:
        """Whether roles.yml lists it among the identifiers."""
        return any(fnmatchcase(f"{table}.{column}", pattern) for pattern in self.identifiers)

    def view(self, role: Role, relation: Relation, column: str) -> View | None:
        """How a role sees a column; None: not at all."""
        rule = role.schemas.get(relation.schema)
        found = self.access_class(relation, column)
        if rule is None or found is None or not rule.covers(relation.name):
            return None
        return rule.classes.get(found)

    def columns(self, role: Role, relation: Relation) -> dict[str, View]:
        """The columns of a table that a role sees, in the table's order; none: it does not see the table."""
        seen = {column: self.view(role, relation, column) for column in relation.columns}
        return {column: view for column, view in seen.items() if view is not None}


def load_policy(path: Path = ROLES_FILE) -> Policy:
    """Read roles.yml.

    Raises:
        ConfigurationError: a role is not written as the file's first lines say, or gives away what no role may have.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        roles = {name: _role(name, given) for name, given in data["roles"].items()}
        return Policy(tuple(data["identifiers"]), roles)
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        detail = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise ConfigurationError(
            f"{path.name} cannot be used: {detail}",
            kept="exports and grants are as they were",
            todo="correct it; its first lines say how it is written",
        ) from None


def relations(manifest: Mapping[str, Any]) -> list[Relation]:
    """The published models and bookkeeping tables with their classes, from dbt's manifest."""
    found = []
    for node in manifest["nodes"].values():
        if node["resource_type"] in ("model", "seed", "snapshot"):
            is_view = (node.get("config") or {}).get("materialized") == "view"
            found.append(_relation(node, node.get("alias") or node["name"], is_view))
    found += [_relation(node, node.get("identifier") or node["name"], False) for node in manifest["sources"].values()]
    return sorted(found, key=lambda relation: (relation.schema, relation.name))


def _relation(node: Mapping[str, Any], name: str, is_view: bool) -> Relation:
    classes = {}
    for column, given in node["columns"].items():
        meta = {**(given.get("meta") or {}), **((given.get("config") or {}).get("meta") or {})}
        if meta.get("classification"):
            classes[column.lower()] = str(meta["classification"])
    return Relation(node["schema"].lower(), name.lower(), classes, is_view)


def _role(name: str, given: Mapping[str, Any]) -> Role:
    if not _NAME.fullmatch(name):
        raise ValueError("a role's name is lower case letters, digits and _")
    if unknown := set(given) - {"kind", "purpose", "schemas", "rows", "powers"}:
        raise ValueError(f"{name} has the unknown key {sorted(unknown)[0]}")
    if given["kind"] not in get_args(Kind):
        raise ValueError(f"{name} is neither person nor service")
    schemas = {schema: _schema_rule(name, rule) for schema, rule in given["schemas"].items()}
    rows = {table: _row_filter(name, rule) for table, rule in (given.get("rows") or {}).items()}
    for table in rows:
        schema, _, relation = table.partition(".")
        if schema not in schemas or not schemas[schema].covers(relation):
            raise ValueError(f"{name} filters {table}, which it does not see")
    powers = tuple(given.get("powers") or ())
    if (powers and given["kind"] != "person") or set(powers) - set(get_args(Power)):
        raise ValueError(f"{name} has a power that is none, or is a service with one")
    return Role(name, given["kind"], given["purpose"], schemas, rows, powers)


def _schema_rule(role: str, given: Mapping[str, Any]) -> SchemaRule:
    for name, view in given["classes"].items():
        if name not in GRANTABLE:
            raise ValueError(f"{role} is given {name}, which no role may have")
        if view not in get_args(View):
            raise ValueError(f"{role} sees {name} neither plain nor masked")
    return SchemaRule(tuple(given["tables"]), dict(given["classes"]))


def _row_filter(role: str, given: Mapping[str, Any]) -> RowFilter:
    columns = {name: str(type_) for name, type_ in given["columns"].items()}
    try:
        parsed = sqlglot.parse_one(given["when"], dialect="duckdb")
    except sqlglot.ParseError:
        raise ValueError(f"a row filter of {role} is not SQL") from None
    for node in parsed.walk():
        if not isinstance(node, _HARMLESS):
            raise ValueError(f"a row filter of {role} uses {type(node).__name__}, which it may not")
        if isinstance(node, exp.Column) and (node.name not in columns or node.table):
            raise ValueError(f"a row filter of {role} reads a column that it does not declare")
    return RowFilter(columns, given["when"])
