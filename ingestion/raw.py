"""The raw schemas: every pinned table exists before anything lands, so that an empty source is an empty table."""

from __future__ import annotations

import duckdb

from ingestion.schema import Table, all_tables
from warehouse.core.settings import CATALOG

DLT_COLUMNS = (("_dlt_load_id", "varchar"),)
"""Added by dlt to what it loads; declared here because dlt cannot add it to a table that has rows."""

OPS_TABLES = {
    "load_manifest": """
        load_id varchar, run_id varchar, source varchar, table_name varchar,
        mode varchar, status varchar,
        started_at timestamp with time zone, finished_at timestamp with time zone,
        source_rows bigint, unchanged_rows bigint, landed_rows bigint, deleted_rows bigint, quarantined_rows bigint,
        unknown_keys bigint, unknown_events bigint,
        amount_sum decimal(38, 4), key_checksum varchar,
        cursor_from varchar, cursor_to varchar,
        schema_fingerprint varchar, lake_files bigint, lake_bytes bigint
    """,
    "quarantine": """
        load_id varchar, source varchar, table_name varchar,
        position varchar, reason varchar, payload json,
        quarantined_at timestamp with time zone, resolved_at timestamp with time zone
    """,
    "run_steps": """
        run_id varchar, step varchar, status varchar,
        started_at timestamp with time zone, finished_at timestamp with time zone,
        seconds double, detail json
    """,
    "access_audit": """
        event_system varchar, event_uid varchar, resource_number integer, log_sequence bigint,
        event_at timestamp with time zone,
        event_code varchar, class_uid integer, activity_id integer, status varchar, status_detail varchar,
        actor_name varchar, actor_uid varchar, actor_type varchar, actor_role varchar,
        origin_host varchar, origin_address varchar,
        resource_type varchar, resource_name varchar, statement_digest varchar, rows_returned bigint
    """,
    "landed_files": """
        source varchar, table_name varchar, sha256 varchar, bytes bigint,
        rows bigint, quarantined_rows bigint, load_id varchar, landed_at timestamp with time zone
    """,
    "erasure_ledger": """
        subject varchar, source varchar, table_name varchar, row_key varchar,
        erased_at timestamp with time zone,
        subject_token varchar, row_key_token varchar
    """,
    "retention_cutoff": """
        source varchar, table_name varchar,
        cutoff timestamp with time zone, applied_at timestamp with time zone
    """,
    "retention_held": """
        source varchar, table_name varchar, party_token varchar, payment_token varchar,
        kept_from timestamp with time zone
    """,
}
"""`source_rows = unchanged_rows + landed_rows + quarantined_rows`; `deleted_rows` were found missing at the source."""

ADDED_COLUMNS = (
    ("quarantine", "resolved_at timestamp with time zone"),
    ("load_manifest", "unknown_events bigint"),
    ("erasure_ledger", "subject_token varchar"),
    ("erasure_ledger", "row_key_token varchar"),
)
"""(table of `raw_ops`, column): not in the warehouses of earlier versions."""


def create_raw_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create what is missing of the raw schemas and `raw_ops`; of what exists, only `raw_ops` gains columns."""
    for table in all_tables():
        connection.execute(f"create schema if not exists {CATALOG}.{table.raw_schema}")
        for name in raw_table_names(table):
            connection.execute(f"create table if not exists {CATALOG}.{table.raw_schema}.{name} ({column_list(table)})")
    connection.execute(f"create schema if not exists {CATALOG}.raw_ops")
    for name, columns in OPS_TABLES.items():
        connection.execute(f"create table if not exists {CATALOG}.raw_ops.{name} ({columns})")
    for name, column in ADDED_COLUMNS:
        connection.execute(f"alter table {CATALOG}.raw_ops.{name} add column if not exists {column}")
    connection.execute(
        f"create table if not exists {CATALOG}.raw_ops.prepared_loads as from {CATALOG}.raw_ops.load_manifest limit 0"
    )


def raw_table_names(table: Table) -> list[str]:
    """The current table and, for entities that change, its history."""
    return [table.name, f"{table.name}_history"] if table.history else [table.name]


def column_list(table: Table) -> str:
    """The DDL of a raw table's columns."""
    return ", ".join(f'"{name}" {sql_type}' for name, sql_type in (*table.landed_columns, *DLT_COLUMNS))
