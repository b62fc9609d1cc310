"""Retention: what was dropped because its class allows no more does not come back, from a source, a drop or the lake.

`raw_ops.retention_cutoff` is written by `warehouse privacy retention --apply` and only ever moves forward; here it is
obeyed: a landed version whose age lies before its table's cutoff is out. `raw_ops.retention_held` names, by tokens,
whose rows and which payments a legal hold keeps: they stay, from `kept_from` on. Before that they had been dropped
when the hold began, and stay so; null is from the beginning.
"""

from __future__ import annotations

import duckdb

from ingestion.lake import sql_text
from ingestion.schema import Retention, Table
from warehouse.core.settings import CATALOG
from warehouse.privacy.subjects import canonical_sql

CUTOFFS = f"{CATALOG}.raw_ops.retention_cutoff"
HELD = f"{CATALOG}.raw_ops.retention_held"

PARTY_DOMAIN, PAYMENT_DOMAIN = "held party", "held payment"
"""Of the tokens of canonical ids and of payments."""


def expired_sql(connection: duckdb.DuckDBPyConnection, table: Table) -> str | None:
    """SQL: whether a landed row of `table` was dropped for its age, never null; None when none can be.

    The connection knows `pseudonymise` when anything is held.
    """
    old = old_sql(connection, table)
    if old is None or table.retention is None:
        return None
    held = _held_sql(connection, table, table.retention)
    return f"({old} and not {held})" if held else old


def old_sql(connection: duckdb.DuckDBPyConnection, table: Table) -> str | None:
    """SQL: whether a landed row lies before the cutoff, held or not; never null. A row that tells no age does not."""
    if table.retention is None or (cutoff := cutoff_of(connection, table)) is None:
        return None
    return f'coalesce("{table.retention.age}" < timestamptz {sql_text(cutoff)}, false)'


def cutoff_of(connection: duckdb.DuckDBPyConnection, table: Table) -> str | None:
    """Where the table's cutoff stands, ISO 8601 in UTC; None before the first one."""
    known = connection.execute(  # a warehouse of an earlier version, opened to be read, has no such table
        "select 1 from duckdb_tables() "
        f"where database_name = '{CATALOG}' and schema_name = 'raw_ops' and table_name = 'retention_cutoff'"
    ).fetchone()
    if known is None:
        return None
    row = connection.execute(f"select max(cutoff)::varchar from {CUTOFFS} where {scope_sql(table)}").fetchone()
    return str(row[0]) if row and row[0] else None


def basis(connection: duckdb.DuckDBPyConnection, table: Table) -> list[str | None]:
    """Everything that what is dropped of a table follows from, to be compared later."""
    if table.retention is None:
        return []
    row = connection.execute(f"""
        select md5(string_agg(entry, ',' order by entry)) from (
            select concat_ws(' ', coalesce(party_token, ''), coalesce(payment_token, ''), kept_from) as entry
            from {HELD} where {scope_sql(table)}
        )
    """).fetchone()
    return [cutoff_of(connection, table), row[0] if row else None]


def scope_sql(table: Table) -> str:
    """SQL: whether an entry of either ledger is of this table."""
    return f"source = {sql_text(table.source)} and table_name = {sql_text(table.name)}"


def named_sql(table: Table, path: str) -> str:
    """SQL: the text that a landed row has in a column, or under a path of its document."""
    if table.is_document:
        return f"json_extract_string(document, {sql_text('$.' + path)})"
    return f'"{path}"::varchar'


def _held_sql(connection: duckdb.DuckDBPyConnection, table: Table, retention: Retention) -> str | None:
    """SQL: whether a hold keeps a landed row, never null."""
    found = connection.execute(  # small: one group for each moment at which somebody's hold was first obeyed
        f"select kept_from::varchar, count(party_token), count(payment_token) from {HELD} "
        f"where {scope_sql(table)} group by kept_from order by kept_from"
    ).fetchall()
    ways = []
    for kept_from, parties, payments in found:
        since = "null" if kept_from is None else f"timestamptz {sql_text(kept_from)}"
        entries = f"from {HELD} where {scope_sql(table)} and kept_from is not distinct from {since}"
        named = []
        if parties:
            tokens = f"(select party_token {entries} and party_token is not null)"
            named += [
                f"pseudonymise('{PARTY_DOMAIN}', {canonical_sql(named_sql(table, path))}) in {tokens}"
                for path in retention.parties
            ]
        if payments and retention.payment is not None:
            tokens = f"(select payment_token {entries} and payment_token is not null)"
            named.append(f"pseudonymise('{PAYMENT_DOMAIN}', {named_sql(table, retention.payment)}) in {tokens}")
        if named:
            lasting = "" if kept_from is None else f'"{retention.age}" >= {since} and '
            ways.append(f"({lasting}({' or '.join(f'coalesce({way}, false)' for way in named)}))")
    return f"({' or '.join(ways)})" if ways else None
