"""The privacy boundary: what a source row becomes before anything touches disk.

Each pinned table compiles into SQL expressions, so that the rules run set-based over whatever relation a reader
provides. Flat tables give one expression per landed column; documents give one JSON expression, built key by key:
a declared key meets its treatment, an undeclared one becomes a token under `_unknown`, sensitive authentication data
is dropped wherever it stands. Values that do not fit their pinned type are counted, never coerced.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import duckdb

from ingestion.schema import FORBIDDEN_KEYS, TOKEN_CLASSES, Leaf, Node, Table
from warehouse.privacy import tokens
from warehouse.privacy.tokens import token_sql

_CARD = r"(?:[0-9][ .-]?){12,18}[0-9]"
_EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"
_PHONE = r"(?:^|[^0-9A-Za-z])\+?[0-9][0-9 ().-]{6,16}[0-9](?:[^0-9]|$)"
_SAFE_NAME = "[a-z_][a-z0-9_]{0,62}"

_FORBIDDEN_LIST = ", ".join(f"'{key}'" for key in sorted(FORBIDDEN_KEYS))

_MACROS = (
    """create or replace temp macro luhn(digits) as (
        list_sum(list_transform(range(1, length(digits) + 1), lambda i:
            case
                when i % 2 = 1 then digits[-i]::int
                when digits[-i]::int < 5 then digits[-i]::int * 2
                else digits[-i]::int * 2 - 9
            end
        )) % 10 = 0
    )""",
    f"""create or replace temp macro has_card_number(t) as (
        regexp_matches(t, '{_CARD}') and len(list_filter(
            regexp_extract_all(t, '{_CARD}'), lambda m: luhn(regexp_replace(m, '[^0-9]', '', 'g'))
        )) > 0
    )""",
    f"create or replace temp macro has_email(t) as (regexp_matches(t, '{_EMAIL}'))",
    f"create or replace temp macro has_phone(t) as (regexp_matches(t, '{_PHONE}'))",
    """create or replace temp macro email_domain(v) as (
        nullif(lower(regexp_extract(trim(v), '^[^@[:space:]]+@([A-Za-z0-9.-]+)$', 1)), '')
    )""",
    "create or replace temp macro birth_year(v) as (try_cast(regexp_extract(v, '^([0-9]{4})-', 1) as smallint))",
    "create or replace temp macro postal_prefix(v) as (left(canonical('postal_code', v), 2))",
    """create or replace temp macro network_prefix(v) as (
        case
            when regexp_full_match(split_part(v, '/', 1), '[0-9]{1,3}([.][0-9]{1,3}){3}')
                then regexp_extract(v, '^([0-9]+[.][0-9]+[.][0-9]+)[.]', 1) || '.0/24'
            when contains(v, ':')
                then array_to_string(string_split(lower(split_part(v, '/', 1)), ':')[1:3], ':') || '::/48'
        end
    )""",
    "create or replace temp macro degree(v) as (try_cast(round(try_cast(v as decimal(9, 6)), 0) as smallint))",
    f"""create or replace temp macro key_name(k) as (
        case when regexp_full_match(k, '{_SAFE_NAME}') then k else {token_sql("unknown_key", "k")} end
    )""",
    "create or replace temp macro json_pointer(k) as ('/' || replace(replace(k, '~', '~0'), '/', '~1'))",
    f"""create or replace temp macro unknown_keys(v, known) as (
        nullif(list_transform(
            list_filter(json_keys(v), lambda k: not list_contains(known, k) and lower(k) not in ({_FORBIDDEN_LIST})),
            lambda k: {{
                'key': key_name(k),
                'value_token': pseudonymise('unknown', json_extract(v, json_pointer(k))::varchar)
            }}
        ), [])
    )""",
    # a structure where a scalar was declared could carry anything: only its token lands
    """create or replace temp macro plain(v) as (
        case
            when json_type(v) in ('OBJECT', 'ARRAY')
                then json_object('_unknown', [{'key': '$', 'value_token': pseudonymise('unknown', v::varchar)}])
            else v
        end
    )""",
)

NO_REASON = "null::varchar"
"""The reason of a boundary that quarantines nothing."""


@dataclass(frozen=True)
class VaultRule:
    """One classified value of a row: where it stands, its token, the value itself (SQL over the incoming row)."""

    path: str
    token_sql: str
    value_sql: str


@dataclass(frozen=True)
class Boundary:
    """The compiled boundary of one table: SQL expressions over an incoming row.

    Attributes:
        landed: (name, expression) for every landed column but the bookkeeping ones.
        reason: expression: null, or why the row must be quarantined (never a value).
        unknown: expression: how many undeclared keys the row holds.
        payload: expression: a tokenised JSON rendering for the quarantine.
        vault: what goes to the vault.
        subject: expression: whose row it is, or null.
        payload_reads_landed: whether `payload` is over the landed columns instead.
    """

    landed: tuple[tuple[str, str], ...]
    reason: str
    unknown: str
    payload: str
    vault: tuple[VaultRule, ...]
    subject: str
    payload_reads_landed: bool = False


def install(connection: duckdb.DuckDBPyConnection, key: tokens.TokenKey) -> None:
    """Define the boundary's functions on this connection and give it the token key."""
    tokens.install(connection, key)
    for macro in _MACROS:
        connection.execute(macro)


def compile_boundary(table: Table) -> Boundary:
    """The boundary of a pinned table.

    The incoming relation has the source's own columns (flat), or the position columns and `doc` (JSON text) and
    `problem` (text or null: what the reader could not decode).
    """
    return _document_boundary(table) if table.is_document else _flat_boundary(table)


def _flat_boundary(table: Table) -> Boundary:
    landed: list[tuple[str, str]] = []
    reasons: list[str] = []
    vault: list[VaultRule] = []
    for column in table.columns:
        value = f'"{column.name}"'
        landed.extend(leaf_parts(column, f"{value}::varchar", typed=value))
        if column.name in table.key or column.required:
            reasons.append(f"when {value} is null then 'missing: {column.name}'")
        if column.data_class not in TOKEN_CLASSES | {"pan", "forbidden"} and column.sql_type != "varchar":
            cast = f"try_cast({value} as {column.sql_type})"
            misfit = f"{value} is not null and {cast} is null"
            if column.sql_type in {"date", "timestamp with time zone"}:
                misfit = f"({misfit}) or not isfinite({cast})"  # no date dimension has an infinite day
            reasons.append(f"when {misfit} then 'type: {column.name}'")
        if column.minimum is not None:
            reasons.append(below_minimum(column, value, column.sql_type))  # read exactly, or from a file, it is text
        vault.extend(_vault_rules(column, column.name, f"{value}::varchar"))
    texts = {column.name: f'"{column.name}"::varchar' for column in table.columns}
    tokens_only = ", ".join(f"'{name}', {token_sql('quarantine', text)}" for name, text in texts.items())
    return Boundary(
        landed=tuple(landed),
        reason=f"case {' '.join(reasons)} end",
        unknown="0",
        payload=f"json_object({tokens_only})",
        vault=tuple(vault),
        subject=f'"{table.subject}"::varchar' if table.subject else "null::varchar",
    )


def _document_boundary(table: Table) -> Boundary:
    document = _object_sql(table.document, "doc", depth=0, carried=("_id",) if table.source == "mongodb" else ())
    landed: list[tuple[str, str]] = []
    for name, sql_type in table.position_columns:
        if name == "message_key":
            # a key is an identifier of ours by contract: letters, then a number. Anything else could be a name, a
            # telephone number, a card
            landed.append(
                (
                    name,
                    "case when regexp_full_match(message_key, '[A-Z]{2,16}[_-]?[0-9]{1,12}') then message_key "
                    f"else {token_sql('unknown', 'message_key')} end",
                )
            )
        elif name == "cursor_at":
            landed.append((name, f"try_cast(cursor_at as {sql_type})"))
        else:
            landed.append((name, f'"{name}"'))
    landed.append(("document", f"case when doc is not null then {document} end"))
    reasons = ["when problem is not null then problem"]
    reasons += [f"when \"{key}\" is null then 'missing: {key}'" for key in table.key]
    reasons.append("when doc is not null and json_type(doc) <> 'OBJECT' then 'not an object'")
    reasons += [
        f"when json_extract_string(doc, '$.{node.name}') is null then 'missing: {node.name}'"
        for node in table.document
        if node.leaf is not None and node.leaf.required
    ]
    reasons += [
        below_minimum(node.leaf, f"json_extract_string(doc, '$.{node.name}')")
        for node in table.document
        if node.leaf is not None and node.leaf.minimum is not None
    ]
    return Boundary(
        landed=tuple(landed),
        reason=f"case {' '.join(reasons)} end",
        unknown="len(regexp_extract_all(document::varchar, '\"value_token\":'))",
        payload=f"json_object('document', {token_sql('quarantine', 'doc')})",
        vault=tuple(_node_vault_rules(table.document, "doc", "$")),
        subject=f"json_extract_string(doc, '$.{table.subject}')" if table.subject else "null::varchar",
    )


def below_minimum(leaf: Leaf, value: str, sql_type: str = "decimal(38, 10)") -> str:
    """A branch of a `case`: the reason where a value is below the least that its column may hold."""
    return f"when try_cast({value} as {sql_type}) < {leaf.minimum} then 'range: {leaf.name}'"


def leaf_parts(leaf: Leaf, text: str, *, typed: str | None = None) -> list[tuple[str, str]]:
    """What a value lands as: (name, expression). `text` is its text form, `typed` the column of a flat table."""
    if leaf.data_class == "forbidden":
        return []
    if leaf.free_text:
        return [
            (f"{leaf.name}_token", token_sql(leaf.domain, text)),
            (f"{leaf.name}_length", f"length({text})"),
            (f"{leaf.name}_has_card_number", f"has_card_number({text})"),
            (f"{leaf.name}_has_email", f"has_email({text})"),
            (f"{leaf.name}_has_phone", f"has_phone({text})"),
        ]
    if leaf.data_class == "pan":
        digits = f"regexp_replace({text}, '[^0-9]', '', 'g')"
        return [
            (f"{leaf.name}_token", token_sql("pan", text)),
            (
                f"{leaf.name}_bin",
                f"case when length({digits}) >= 16 then left({digits}, 8) else left({digits}, 6) end",
            ),
            (f"{leaf.name}_last4", f"right({digits}, 4)"),
        ]
    if leaf.data_class in TOKEN_CLASSES:
        parts = [(f"{leaf.name}_token", token_sql(leaf.domain, text))]
        for safe in leaf.safe:
            name = {"network_prefix": "ip_network", "degree": f"{leaf.name}_degree"}.get(safe, safe)
            parts.append((name, f"{safe}({text})"))
        return parts
    if typed is None:
        raise ValueError(f"a plain leaf `{leaf.name}` of a document lands through plain()")
    return [(leaf.name, f"try_cast({typed} as {leaf.sql_type})")]


def _object_sql(fields: tuple[Node, ...], value: str, *, depth: int, carried: tuple[str, ...] = ()) -> str:
    """JSON of an object after treatment. Each level is parsed once: from_json into a struct of JSON values.

    `carried` names keys that land beside the document.
    """
    struct = f"d{depth}"
    spec = json.dumps({node.name: "JSON" for node in fields})
    known = "[" + ", ".join(f"'{name}'" for name in (*carried, *(node.name for node in fields))) + "]"
    pairs: list[str] = []
    for node in fields:
        pairs.extend(f"'{name}', {sql}" for name, sql in _node_sql(node, f'{struct}."{node.name}"', depth=depth + 1))
    pairs.append(f"'_unknown', unknown_keys({value}, {known})")
    built = f"list_transform([from_json({value}, '{spec}')], lambda {struct}: json_object({', '.join(pairs)}))[1]"
    if depth == 0:
        return built
    return _when_type(value, "OBJECT", built)


def _when_type(value: str, json_type: str, built: str) -> str:
    """`built` where the value has the declared shape, null where it is null, else only a token of it."""
    token = token_sql("unknown", f"{value}::varchar")
    return (
        f"case when {value} is null or json_type({value}) = 'NULL' then null "
        f"when json_type({value}) = '{json_type}' then {built}::json "
        f"else json_object('_unknown', [{{'key': '$', 'value_token': {token}}}]) end"
    )


def _node_sql(node: Node, value: str, *, depth: int) -> list[tuple[str, str]]:
    if node.fields:
        return [(node.name, _object_sql(node.fields, value, depth=depth))]
    if node.items is not None:
        item = f"e{depth}"
        inner = _node_sql(node.items, item, depth=depth + 1)
        if len(inner) != 1:
            raise ValueError(f"pinned schema: the items of `{node.name}` must be plain values or objects")
        items = f"list_transform(from_json({value}, '[\"JSON\"]'), lambda {item}: ({inner[0][1]})::json)"
        return [(node.name, _when_type(value, "ARRAY", f"to_json({items})"))]
    if node.leaf is None:
        raise ValueError(f"pinned schema: `{node.name}` has no shape")
    if node.map_key is not None:
        return [(node.name, _when_type(value, "OBJECT", _map_sql(value, node.map_key, depth)))]
    if node.leaf.data_class in TOKEN_CLASSES or node.leaf.data_class in {"pan", "forbidden"}:
        return leaf_parts(node.leaf, f"({value} ->> '$')")
    return [(node.name, f"plain({value})")]


def _map_sql(value: str, key_pattern: str, depth: int) -> str:
    """An open map: keys of the declared shape keep their value; the others are tokens, name and value."""
    k = f"k{depth}"
    entry = (
        f"case when regexp_full_match({k}, '{key_pattern}') "
        f"then {{'k': {k}, 'v': plain(json_extract({value}, json_pointer({k})))::json}} "
        f"else {{'k': '_unknown_' || {token_sql('unknown_key', k)}, "
        f"'v': to_json({token_sql('unknown', f'json_extract({value}, json_pointer({k}))::varchar')})}} end"
    )
    keys = f"list_filter(json_keys({value}), lambda {k}: lower({k}) not in ({_FORBIDDEN_LIST}))"
    return f"to_json(map_from_entries(list_transform({keys}, lambda {k}: {entry})))"


def _vault_rules(leaf: Leaf, path: str, text: str) -> list[VaultRule]:
    """Personal values go to the vault. A card number is kept nowhere: the platform has no use for it."""
    if leaf.data_class not in TOKEN_CLASSES:
        return []
    return [VaultRule(path, token_sql(leaf.domain, text), text)]


def _node_vault_rules(fields: tuple[Node, ...], value: str, path: str) -> list[VaultRule]:
    rules: list[VaultRule] = []
    for node in fields:
        here = f"{path}.{node.name}"
        if node.fields:
            rules.extend(_node_vault_rules(node.fields, value, here))
        elif node.items is not None and _holds_personal(node.items):
            # an array of people is kept as one text: its members are found again by their tokens in the document
            text = f"json_extract({value}, '{here}')::varchar"
            rules.append(VaultRule(here, token_sql("array", text), text))
        elif node.leaf is not None and node.map_key is None:
            rules.extend(_vault_rules(node.leaf, here, f"json_extract_string({value}, '{here}')"))
    return rules


def _holds_personal(node: Node) -> bool:
    if node.leaf is not None:
        return node.leaf.data_class in TOKEN_CLASSES
    return any(_holds_personal(child) for child in (*node.fields, *((node.items,) if node.items else ())))
