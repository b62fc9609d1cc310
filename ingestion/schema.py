"""The pinned schemas: what each source table looks like, how each value is classified, and how it lands.

Read from `sources/<source>/schema.yml`. Two kinds of table:

* flat (`columns:`): one landed column per source column, or several where the value is classified;
* document (`document:`): one JSON column `document`, built key by key, beside the row's position.

| class | at the boundary |
| --- | --- |
| public, internal, confidential | lands as it is, cast to the pinned type |
| personal, sensitive | lands as `<name>_token`, plus the declared safe parts; the value goes to the vault |
| personal with `treatment: free_text` | lands as length and flags; the text goes to the vault |
| pan | lands as `<name>_token`, `<name>_bin`, `<name>_last4`; the number is kept nowhere |
| forbidden | dropped |
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml

SourceName = Literal["oltp", "mongodb", "stream", "files"]
Class = Literal["public", "internal", "confidential", "personal", "sensitive", "pan", "forbidden"]

PLAIN_CLASSES = frozenset({"public", "internal", "confidential"})
TOKEN_CLASSES = frozenset({"personal", "sensitive"})
CLASSES = PLAIN_CLASSES | TOKEN_CLASSES | {"pan", "forbidden"}

SQL_TYPES = {
    "text": "varchar",
    "smallint": "smallint",
    "integer": "integer",
    "bigint": "bigint",
    "boolean": "boolean",
    "date": "date",
    "timestamptz": "timestamp with time zone",
    "inet": "varchar",
    "json": "json",
    "numeric": "varchar",
    "double": "double",
    "array": "json",
}
"""Pinned type → type it lands as. `numeric` without a precision lands as its exact text and is typed in dbt, because
no column of a warehouse holds 131,072 digits; an array lands as the JSON PostgreSQL makes of it."""

SAFE_PARTS = {
    "email_domain": ("email_domain", "varchar"),
    "birth_year": ("birth_year", "smallint"),
    "postal_prefix": ("postal_prefix", "varchar"),
    "network_prefix": ("ip_network", "varchar"),
    "degree": ("{name}_degree", "smallint"),
}
"""Safe part → (name of what lands, its type). `{name}` is the column's own name."""

FREE_TEXT_PARTS = (
    ("{name}_token", "varchar"),
    ("{name}_length", "integer"),
    ("{name}_has_card_number", "boolean"),
    ("{name}_has_email", "boolean"),
    ("{name}_has_phone", "boolean"),
)

FORBIDDEN_KEYS = frozenset(
    {
        "cvv",
        "cvc",
        "cvv2",
        "cvc2",
        "cid",
        "csc",
        "cav2",
        "security_code",
        "pin",
        "pin_block",
        "track1",
        "track2",
        "track_data",
        "magstripe",
    }
)
"""Sensitive authentication data (PCI DSS 3.3.1): never lands under any name below, declared or not."""

BOOKKEEPING = (
    ("_row_hash", "varchar"),
    ("_deleted_at", "timestamp with time zone"),
    ("_landed_at", "timestamp with time zone"),
    ("_load_id", "varchar"),
)
"""On every raw table: hash of what landed, soft delete, time of landing, our load."""

_NO_SHAPE = frozenset({"known", "subject", "on_erasure", "erased", "retention"})
"""Keys of a pinned table that say nothing of the form in which it lands."""

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*\Z")
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)\Z")


@dataclass(frozen=True)
class Leaf:
    """One scalar value: its class and treatment."""

    name: str
    data_class: Class
    sql_type: str = "json"
    domain: str = "text"
    safe: tuple[str, ...] = ()
    free_text: bool = False
    required: bool = False
    declared: str = "json"
    """The type as pinned, which the source's own must fit."""
    minimum: int | None = None
    """Of a column of a flat table: the least number that makes sense; a row below it is quarantined."""


@dataclass(frozen=True)
class Node:
    """One key of a document: exactly one of leaf, fields (an object), items (an array), map_key (an open map)."""

    name: str
    leaf: Leaf | None = None
    fields: tuple[Node, ...] = ()
    items: Node | None = None
    map_key: str | None = None


@dataclass(frozen=True)
class Retention:
    """How long rows of a table may be kept, and by what a legal hold keeps them longer."""

    record_type: str
    """Class of `seeds/retention_classes.csv`."""
    age: str
    """Landed column that tells how old a version of a row is."""
    parties: tuple[str, ...] = ()
    """Columns (paths) that name whom a row is about: a held customer, a held shop."""
    payment: str | None = None
    """Column (path) that names the payment it is about: that of somebody who is held."""


@dataclass(frozen=True)
class Table:
    """One source table, collection or topic, and the raw table it lands in."""

    source: SourceName
    raw_schema: str
    name: str
    origin: str
    """Its name at the source: table, collection or topic."""
    key: tuple[str, ...]
    cursor: str | None
    """Column, or dotted path in a document, that grows when a row changes."""
    history: bool
    """Every landed version is kept in `<name>_history`."""
    subject: str | None
    amount: str | None
    columns: tuple[Leaf, ...] = ()
    document: tuple[Node, ...] = ()
    keeps_erased: bool = False
    """What is erased stays without its personal values, instead of going."""
    erased: tuple[tuple[str, str | None], ...] = ()
    """Columns (paths) that point at the person, and the table of this source whose rows they name, if it is one."""
    retention: Retention | None = None
    """None: a row is kept while what it describes exists."""
    known: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Key of the document → the values that the models understand. Others land all the same, and are counted."""
    fingerprint: str = field(default="", compare=False)

    @property
    def is_document(self) -> bool:
        """Whether rows land as one JSON document."""
        return bool(self.document)

    @property
    def position_columns(self) -> tuple[tuple[str, str], ...]:
        """What a document table carries beside the document, with DuckDB types."""
        if self.source == "stream":
            return (
                ("kafka_topic", "varchar"),
                ("kafka_partition", "integer"),
                ("kafka_offset", "bigint"),
                ("produced_at", "timestamp with time zone"),
                ("message_key", "varchar"),
            )
        if self.is_document:
            return (("_id", "varchar"), ("cursor_at", "timestamp with time zone"))
        return ()

    @property
    def landed_columns(self) -> tuple[tuple[str, str], ...]:
        """Every column of the raw table with its DuckDB type, bookkeeping last."""
        if self.is_document:
            return (*self.position_columns, ("document", "json"), *BOOKKEEPING)
        landed: list[tuple[str, str]] = []
        for column in self.columns:
            landed.extend(landed_parts(column))
        return (*landed, *BOOKKEEPING)

    @property
    def qualified(self) -> str:
        """`raw_oltp.customer`."""
        return f"{self.raw_schema}.{self.name}"


def position_sql(table: Table) -> str:
    """SQL: where a row stands at its source, as one text, from its key columns."""
    return " || '|' || ".join(f"coalesce(\"{key}\"::varchar, '')" for key in table.key)


def row_hash_sql(table: Table, values: Mapping[str, str] = MappingProxyType({})) -> str:
    """SQL: md5 of what lands of a row: the same in every version of every engine, which DuckDB's own `hash` is not.

    Args:
        table: whose row.
        values: SQL that stands for a column, where it is not the column itself.
    """
    bookkeeping = {name for name, _ in BOOKKEEPING}
    texts = [
        # a time zone's calendar costs more than the md5; a count of microseconds says the same
        (utc_text_sql(f'"{name}"') if table.is_document else f'epoch_us("{name}")')
        if kind == "timestamp with time zone"
        else values.get(name, f'"{name}"')
        for name, kind in table.landed_columns
        if name != "cursor_at" and name not in bookkeeping
    ]  # fmt: skip
    hashed = ", ".join(f"coalesce({text}::varchar, '\\0')" for text in texts)
    return f"md5(concat_ws(chr(31), {hashed}))"


def utc_text_sql(moment: str) -> str:
    """SQL: the text of a moment in UTC, as its cast gives it where that is the time zone, at a fifth of what it takes.

    Of years that are not of four digits the cast itself: what writes them is not worth knowing.
    """
    in_range = f"{moment} >= timestamptz '1000-01-01 00:00:00+00' and {moment} < timestamptz '9999-12-31 00:00:00+00'"
    return f"case when {in_range} then make_timestamp(epoch_us({moment}))::varchar || '+00' else {moment}::varchar end"


def landed_parts(leaf: Leaf) -> list[tuple[str, str]]:
    """What one classified value lands as: (name, DuckDB type) each."""
    if leaf.data_class == "forbidden":
        return []
    if leaf.free_text:
        return [(name.format(name=leaf.name), sql_type) for name, sql_type in FREE_TEXT_PARTS]
    if leaf.data_class == "pan":
        return [(f"{leaf.name}_{part}", "varchar") for part in ("token", "bin", "last4")]
    if leaf.data_class in TOKEN_CLASSES:
        parts = [(f"{leaf.name}_token", "varchar")]
        for safe in leaf.safe:
            name, sql_type = SAFE_PARTS[safe]
            parts.append((name.format(name=leaf.name), sql_type))
        return parts
    return [(leaf.name, leaf.sql_type)]


@cache
def tables(source: SourceName) -> dict[str, Table]:
    """The pinned tables of one source, by raw name, in file order."""
    path = Path(__file__).parent / "sources" / source / "schema.yml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: _table(spec, name, body) for name, body in spec["tables"].items()}


def all_tables() -> list[Table]:
    """Every pinned table of the three live sources."""
    names: tuple[SourceName, ...] = ("oltp", "mongodb", "stream")
    return [table for source in names for table in tables(source).values()]


def _table(spec: dict[str, Any], name: str, body: dict[str, Any]) -> Table:
    _require(bool(_IDENTIFIER.match(name)), name, "is not a plain lower-case name")
    columns = tuple(_leaf(column, options) for column, options in body.get("columns", {}).items())
    document = tuple(_node(key, options) for key, options in body.get("document", {}).items())
    _require(bool(columns) != bool(document), name, "needs either columns or document")
    shape = {key: _without_minimum(value) for key, value in body.items() if key not in _NO_SHAPE}
    _require(body.get("on_erasure", "delete") in ("delete", "keep"), name, "is neither kept nor deleted on erasure")
    return Table(
        source=spec["source"],
        raw_schema=spec["raw_schema"],
        name=name,
        origin=body.get("collection") or body.get("topic") or name,
        key=tuple(body["key"]),
        cursor=body.get("cursor"),
        history=body.get("history", False),
        subject=body.get("subject"),
        amount=body.get("amount"),
        columns=columns,
        document=document,
        keeps_erased=body.get("on_erasure") == "keep",
        erased=tuple(body.get("erased", {}).items()),
        retention=_retention(name, body.get("retention")),
        known=tuple((key, tuple(map(str, values))) for key, values in body.get("known", {}).items()),
        fingerprint=hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16],
    )


def _retention(name: str, options: dict[str, Any] | None) -> Retention | None:
    if options is None:
        return None
    _require(options.keys() <= {"class", "age", "parties", "payment"}, name, "has an unknown key in its retention")
    _require({"class", "age"} <= options.keys(), name, "needs class and age in its retention")
    return Retention(options["class"], options["age"], tuple(options.get("parties", ())), options.get("payment"))


def _without_minimum(columns: Any) -> Any:
    """What a row may hold is no part of the shape in which it lands."""
    if not isinstance(columns, dict):
        return columns
    return {
        name: {key: value for key, value in options.items() if key != "min"} if isinstance(options, dict) else options
        for name, options in columns.items()
    }


def _node(name: str, options: dict[str, Any]) -> Node:
    _require(bool(_IDENTIFIER.match(name)), name, "is not a plain lower-case name")
    if "object" in options:
        return Node(name, fields=tuple(_node(key, child) for key, child in options["object"].items()))
    if "array" in options:
        return Node(name, items=_node("item", options["array"]))
    if "map" in options:
        leaf = _leaf(name, {"class": options["map"]["class"]})
        _require(leaf.data_class in PLAIN_CLASSES, name, "is a map and must be of a plain class")
        return Node(name, leaf=leaf, map_key=options["map"]["key"])
    return Node(name, leaf=_leaf(name, options))


def _leaf(name: str, options: dict[str, Any]) -> Leaf:
    _require(bool(_IDENTIFIER.match(name)), name, "is not a plain lower-case name")
    _require(options.get("class") in CLASSES, name, "has no class, or an unknown one")
    _require(set(options.get("safe", ())) <= SAFE_PARTS.keys(), name, "declares an unknown safe part")
    return Leaf(
        name=name,
        data_class=options["class"],
        sql_type=_sql_type(name, options.get("type", "json")),
        domain=options.get("domain", "text"),
        safe=tuple(options.get("safe", ())),
        free_text=options.get("treatment") == "free_text",
        required=options.get("required", False),
        declared=options.get("type", "json"),
        minimum=options.get("min"),
    )


def _sql_type(name: str, declared: str) -> str:
    if match := _NUMERIC.match(declared):
        return f"decimal({match[1]},{match[2]})"
    _require(declared in SQL_TYPES, name, "has an unknown type")
    return SQL_TYPES[declared]


def _require(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise ValueError(f"pinned schema: `{name}` {problem}")
