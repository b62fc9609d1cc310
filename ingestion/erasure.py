"""The erasure ledger: what was erased never comes back, from a source, a drop or the lake.

`raw_ops.erasure_ledger` is written by the erasure itself; here it is obeyed. An entry for a subject concerns all
rows of that person, one for a row (source and table named) that row; an empty source or table means every one. It says
who by a token, so that the ledger itself tells nobody, or in plain text where somebody wrote it by hand.

What happens to a row is the table's pinned `on_erasure`: it goes (`delete`), or, where it is money or another's too, it
stays (`keep`): its personal values become null, and what points at the person (`erased`) becomes :data:`ERASED`.

What went because it was older than its class allows (`ingestion.retention`) is kept out in the same places.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb

from ingestion.lake import sql_text
from ingestion.retention import expired_sql, named_sql
from ingestion.schema import PLAIN_CLASSES, Node, Table, landed_parts, position_sql, row_hash_sql
from warehouse.core.settings import CATALOG

LEDGER = f"{CATALOG}.raw_ops.erasure_ledger"
ERASED = "-3"
"""What stands in place of an erased member's id; the models give it the member `erased_key`."""

SUBJECT_DOMAIN, ROW_DOMAIN = "erased subject", "erased row"
"""Of the tokens in the ledger."""


def erased_sql(connection: duckdb.DuckDBPyConnection, table: Table, ledger: str = LEDGER) -> str | None:
    """SQL: whether a landed row of `table` goes, never null; None when none can.

    It was erased or, by the lasting ledger, is older than its class allows; that of one erasure tells of that alone.
    The connection knows `pseudonymise` when the ledger holds tokens, or anything is held.
    """
    named = None if table.keeps_erased else _named_sql(connection, table, ledger)
    expired = expired_sql(connection, table) if ledger == LEDGER else None
    found = [condition for condition in (named, expired) if condition]
    return f"({' or '.join(found)})" if found else None


def masked_sql(connection: duckdb.DuckDBPyConnection, table: Table, relation: str, ledger: str = LEDGER) -> str:
    """`relation` (a query of landed columns, perhaps more) with the erased rows that stay as they may stay.

    Returns `relation` itself where there is nothing to do. Safe to repeat.
    """
    replaced = masks(connection, table, ledger)
    if not replaced:
        return relation
    shown = ", ".join(f'{sql} as "{name}"' for name, sql in replaced.items())
    changed = touched_sql(connection, table, ledger)
    fresh = row_hash_sql(table)
    return f"""
        select * exclude (_touched) replace (
            case when not _touched then _row_hash
                when _deleted_at is null then {fresh} else md5('deleted' || {fresh}) end as _row_hash
        )
        from (select * replace ({shown}), {changed} as _touched from ({relation}))
    """


def marked_sql(connection: duckdb.DuckDBPyConnection, table: Table, treated: str) -> str:
    """Rows of a source, treated, as they would land, and as `_gone` whether they are not to land at all."""
    gone = erased_sql(connection, table) or "false"
    replaced = ", ".join(f'{sql} as "{name}"' for name, sql in masks(connection, table).items())
    shown = f"* replace ({replaced})" if replaced else "*"
    return f"select {shown}, {gone} as _gone from ({treated})"


def touched_sql(connection: duckdb.DuckDBPyConnection, table: Table, ledger: str = LEDGER) -> str:
    """SQL: whether a landed row of `table` goes, or does not stay as it is; never null."""
    found = [_named_sql(connection, table, ledger), *_pointers(connection, table, ledger).values()]
    conditions = [condition for condition in found if condition]
    return f"coalesce({' or '.join(conditions)}, false)" if conditions else "false"


def masks(connection: duckdb.DuckDBPyConnection, table: Table, ledger: str = LEDGER) -> dict[str, str]:
    """Landed column → what stands there when a row, or what the column points at, was erased. Empty: nothing to do."""
    if not table.keeps_erased:
        return {}
    mine = _named_sql(connection, table, ledger)
    pointers = _pointers(connection, table, ledger)
    if mine is None and not pointers:
        return {}
    whole = mine or "false"
    if table.is_document:
        return {"document": _masked_document(table, whole)}
    personal = {
        name: kind
        for column in table.columns
        if column.data_class not in PLAIN_CLASSES
        for name, kind in landed_parts(column)
    }
    found = {name: f'if({whole}, null, "{name}")' for name in personal} if mine else {}
    for column, _ in table.erased:
        condition = " or ".join(filter(None, (mine, pointers.get(column))))
        found[column] = f'if("{column}" is not null and ({condition}), \'{ERASED}\', "{column}")'
    return found


def subject_sql(table: Table) -> str:
    """SQL: whose a landed row is. Raises ValueError for a table that names no subject."""
    if table.subject is None:
        raise ValueError(f"{table.qualified} names no subject")
    return named_sql(table, table.subject)


def _pointers(connection: duckdb.DuckDBPyConnection, table: Table, ledger: str) -> dict[str, str]:
    """Column → SQL: whether what it points at was erased."""
    found = {
        column: _row_sql(connection, table.source, target, named_sql(table, column), ledger)
        for column, target in table.erased
        if target
    }
    return {column: condition for column, condition in found.items() if condition}


def hidden_sql(connection: duckdb.DuckDBPyConnection, table: Table) -> str | None:
    """SQL: whether a landed row of `table` stays and its personal values do not; None when none can be."""
    return _named_sql(connection, table, LEDGER) if table.keeps_erased else None


def _named_sql(connection: duckdb.DuckDBPyConnection, table: Table, ledger: str) -> str | None:
    conditions = []
    if table.subject is not None:
        conditions.append(_in_ledger(connection, table, subject_sql(table), "subject", SUBJECT_DOMAIN, ledger))
    conditions.append(_row_sql(connection, table.source, table.name, position_sql(table), ledger))
    found = [condition for condition in conditions if condition]
    return f"coalesce({' or '.join(found)}, false)" if found else None


def _row_sql(connection: duckdb.DuckDBPyConnection, source: str, table: str, position: str, ledger: str) -> str | None:
    scope = _scope(source, table)
    return _membership(connection, position, "row_key", ROW_DOMAIN, scope, ledger)


def _in_ledger(
    connection: duckdb.DuckDBPyConnection, table: Table, value: str, column: str, domain: str, ledger: str
) -> str | None:
    return _membership(connection, value, column, domain, _scope(table.source, table.name), ledger)


def _membership(
    connection: duckdb.DuckDBPyConnection, value: str, column: str, domain: str, scope: str, ledger: str
) -> str | None:
    found = connection.execute(
        f"select count({column}), count({column}_token) from {ledger} where {scope}"  # small: some rows per erasure
    ).fetchone()
    plain, tokens = found or (0, 0)
    ways = []
    if plain:
        ways.append(f"{value} in (select {column} from {ledger} where {scope} and {column} is not null)")
    if tokens:
        ways.append(
            f"pseudonymise({sql_text(domain)}, {value}) in "
            f"(select {column}_token from {ledger} where {scope} and {column}_token is not null)"
        )
    return f"({' or '.join(ways)})" if ways else None


def _scope(source: str, table: str) -> str:
    return (
        f"coalesce(source, {sql_text(source)}) = {sql_text(source)} "
        f"and coalesce(table_name, {sql_text(table)}) = {sql_text(table)}"
    )


def _masked_document(table: Table, mine: str) -> str:
    """A merge patch (RFC 7396) takes the personal keys out and puts ERASED where an id stands."""
    patch: dict[str, Any] = {}
    for path in _personal_paths(table.document):
        _put(patch, path, None)
    for dotted, _ in table.erased:
        _put(patch, tuple(dotted.split(".")), ERASED)
    return f"if({mine}, json_merge_patch(document, {sql_text(json.dumps(patch))}::json), document)"


def _personal_paths(fields: Iterable[Node], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where the parts of personal values stand; an array that holds some goes as a whole."""
    for node in fields:
        here = (*above, node.name)
        if node.fields:
            yield from _personal_paths(node.fields, here)
        elif node.items is not None:
            if any(True for _ in _personal_paths([node.items])):
                yield here
        elif node.leaf is not None and node.leaf.data_class not in PLAIN_CLASSES:
            for name, _ in landed_parts(node.leaf):
                yield (*above, name)


def _put(patch: dict[str, Any], path: tuple[str, ...], value: str | None) -> None:
    for step in path[:-1]:
        patch = patch.setdefault(step, {})
    patch[path[-1]] = value
