"""The erasure ledger: what was erased never comes back, from a source, a drop or the lake.

`raw_ops.erasure_ledger` is written by the erasure itself; here it is obeyed. An entry with a `subject` erases all
rows of that person, one with a `row_key` (source and table named) that row; an empty source or table means every one.
"""

from __future__ import annotations

import duckdb

from ingestion.lake import sql_text
from ingestion.schema import Table, position_sql
from warehouse.core.settings import CATALOG

LEDGER = f"{CATALOG}.raw_ops.erasure_ledger"


def erased_sql(connection: duckdb.DuckDBPyConnection, table: Table) -> str | None:
    """SQL: whether a landed row of `table` was erased, never null; None when the ledger has nothing on the table."""
    scope = (
        f"coalesce(source, {sql_text(table.source)}) = {sql_text(table.source)} "
        f"and coalesce(table_name, {sql_text(table.name)}) = {sql_text(table.name)}"
    )
    found = connection.execute(
        f"select count(subject), count(row_key) from {LEDGER} where {scope}"  # both small: one row per erasure
    ).fetchone()
    subjects, keys = found or (0, 0)
    conditions = []
    if subjects and table.subject is not None:
        conditions.append(
            f"{subject_sql(table)} in (select subject from {LEDGER} where {scope} and subject is not null)"
        )
    if keys:
        conditions.append(
            f"{position_sql(table)} in (select row_key from {LEDGER} where {scope} and row_key is not null)"
        )
    return f"coalesce({' or '.join(conditions)}, false)" if conditions else None


def subject_sql(table: Table) -> str:
    """SQL: whose a landed row is. Raises ValueError for a table that names no subject."""
    if table.subject is None:
        raise ValueError(f"{table.qualified} names no subject")
    if table.is_document:
        return f"json_extract_string(document, {sql_text('$.' + table.subject)})"
    return f'"{table.subject}"::varchar'
