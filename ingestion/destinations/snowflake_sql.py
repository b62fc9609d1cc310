"""The statements of the Snowflake destination, generated from the pinned schema. Pure text: nothing here connects.

Names are written in quoted upper case: that is what dbt's unquoted names resolve to, and no reserved word can clash.
What varies from row to row or run to run (load ids, positions) is always a bound `?`, never part of a statement:
Snowflake keeps statement texts in its query history.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingestion.schema import Table
from ingestion.versions import VERSION

Columns = Sequence[tuple[str, str]]
"""Name and DuckDB type of each column, as the pinned schema lands them."""

OPS = "RAW_OPS"
STATE = f'"{OPS}"."LANDED_STATE"'
LEDGER = f'"{OPS}"."LANDED_LOADS"'

TYPES = {
    "varchar": "VARCHAR",
    "smallint": "NUMBER(5,0)",
    "integer": "NUMBER(10,0)",
    "bigint": "NUMBER(19,0)",
    "double": "FLOAT",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp with time zone": "TIMESTAMP_TZ(6)",
    "json": "VARIANT",
}
"""DuckDB type of a landed column → Snowflake type. Decimals keep their own precision and scale."""

BOOKKEEPING_DDL = {
    "LANDED_STATE": f"create table if not exists {STATE} ("
    '"SOURCE" VARCHAR not null, "PACKAGE_ID" VARCHAR not null, "STATE" VARCHAR not null, "LOADED_AT" TIMESTAMP_TZ(6))',
    "LANDED_LOADS": f"create table if not exists {LEDGER} ("
    '"SOURCE" VARCHAR not null, "TABLE_NAME" VARCHAR not null, "LOAD_ID" VARCHAR not null, '
    '"PACKAGE_ID" VARCHAR not null, "ROW_COUNT" NUMBER(19,0), "LOADED_AT" TIMESTAMP_TZ(6))',
}
"""The position of each source, one row each; and every lake load that is in, one row each."""

PACKAGE_COLUMN = "_dlt_load_id"
"""Where dlt writes its package on DuckDB, ours is written here: one name for one meaning on both engines."""

# one row per source, so that an UPDATE of it makes a second writer wait and then find its own position overtaken
FIRST_STATE = (
    f'merge into {STATE} as kept using (select ? as source) as wanted on kept."SOURCE" = wanted.source '
    'when not matched then insert ("SOURCE", "PACKAGE_ID", "STATE") values (wanted.source, \'\', \'{}\')'
)
READ_STATE = f'select "PACKAGE_ID", "STATE" from {STATE} where "SOURCE" = ?'
MOVE_STATE = (
    f'update {STATE} set "PACKAGE_ID" = ?, "STATE" = ?, "LOADED_AT" = current_timestamp() '
    'where "SOURCE" = ? and "PACKAGE_ID" = ?'
)
READ_LEDGER = f'select "TABLE_NAME", "LOAD_ID" from {LEDGER} where "SOURCE" = ?'
ADD_TO_LEDGER = (
    f'insert into {LEDGER} ("SOURCE", "TABLE_NAME", "LOAD_ID", "PACKAGE_ID", "ROW_COUNT", "LOADED_AT") '
    "select ?, ?, ?, ?, ?, current_timestamp()"
)
EXISTING_TABLES = "select table_schema, table_name from information_schema.tables where table_schema like 'RAW%'"


def column_type(sql_type: str) -> str:
    """Snowflake's type for a landed column.

    Raises:
        ValueError: the pinned schema uses a type that has no mapping yet.
    """
    if sql_type.startswith("decimal("):
        return "NUMBER" + sql_type.removeprefix("decimal")
    try:
        return TYPES[sql_type]
    except KeyError:
        raise ValueError(f"no Snowflake type is known for {sql_type}") from None


def wire_type(sql_type: str) -> str:
    """The type in the staging table: JSON stays text until the insert parses it, the rest has its final type."""
    return "VARCHAR" if sql_type == "json" else column_type(sql_type)


def identifier(name: str) -> str:
    """A name as it is stored."""
    return f'"{name.upper()}"'


def qualified(schema: str, name: str) -> str:
    """`"RAW_OLTP"."CUSTOMER"`."""
    return f"{identifier(schema)}.{identifier(name)}"


def create_schema(schema: str) -> str:
    """DDL of one schema."""
    return f"create schema if not exists {identifier(schema)}"


def create_table(schema: str, name: str, columns: Columns) -> str:
    """DDL of a raw table."""
    declared = ", ".join(f"{identifier(column)} {column_type(sql_type)}" for column, sql_type in columns)
    return f"create table if not exists {qualified(schema, name)} ({declared})"


def add_column(schema: str, name: str, column: str, sql_type: str) -> str:
    """DDL that gives an existing table a column it may lack."""
    return (
        f"alter table {qualified(schema, name)} add column if not exists {identifier(column)} {column_type(sql_type)}"
    )


def staging_name(schema: str, name: str) -> str:
    """The staging table of a raw table, and the stage of the same name: both live as long as the session."""
    return f"STAGED_{schema}_{name}".upper()


def create_staging(staging: str, columns: Columns) -> list[str]:
    """An empty temporary table and an empty temporary stage."""
    declared = ", ".join(f"{identifier(column)} {wire_type(sql_type)}" for column, sql_type in columns)
    return [
        f'create or replace temporary table "{staging}" ({declared})',
        f"create or replace temporary stage {staging}",
    ]


def put(staging: str, part: int) -> str:
    """Upload what is passed beside the statement as a stream; the path names the file and is never read."""
    return f"put 'file:///part-{part:05d}.parquet' @{staging} auto_compress = false overwrite = true"


def copy(staging: str, columns: Columns, *, location: str = "", files: Sequence[str] = ()) -> str:
    """Fill the staging table from Parquet.

    Args:
        location: a folder of an external stage. Empty: the internal stage, whose files are removed once loaded.
        files: which files of `location`; the lake's own are never removed.
    """
    names = ", ".join(identifier(name) for name, _ in columns)
    values = ", ".join(f'$1:"{name}"::{wire_type(sql_type)}' for name, sql_type in columns)
    chosen = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
    return (
        f'copy into "{staging}" ({names}) from (select {values} from @{location or staging}) '
        + (f"files = ({chosen}) " if files else "")
        # force: the staging table is new each time, no memory of an earlier load may skip a file
        + "file_format = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE) on_error = abort_statement force = true"
        + ("" if location else " purge = true")
    )


def count(staging: str) -> str:
    """Rows that arrived in the staging table."""
    return f'select count(*) from "{staging}"'


def drop_staging(staging: str) -> str:
    """Give the staging table's space back before the session ends."""
    return f'drop table if exists "{staging}"'


def replace_current(table: Table, staging: str, *, late_rows: bool = False) -> list[tuple[str, int]]:
    """Statements that put the staged rows in place of those with the same key; each with its number of bound ids.

    Of several versions of one key the one that landed last stays: what dlt's `dedup_sort` does on DuckDB.

    Args:
        late_rows: some of the staged rows are history only.
    """
    current = f" where {identifier(VERSION)} >= '1'" if late_rows else ""
    keys = ", ".join(identifier(key) for key in table.key)
    matched = f"({keys})" if len(table.key) > 1 else keys
    target = qualified(table.raw_schema, table.name)
    newest = f'qualify row_number() over (partition by {keys} order by "_LANDED_AT" desc, "_ROW_HASH" desc) = 1'
    return [
        (f'delete from {target} where {matched} in (select {keys} from "{staging}"{current})', 0),
        (f"{_insert(table.raw_schema, table.name, table.landed_columns, staging, package=True)}{current} {newest}", 1),
    ]


def append_history(table: Table, staging: str) -> list[tuple[str, int]]:
    """The statement that keeps every staged version; none for a table without history."""
    if not table.history:
        return []
    return [(_insert(table.raw_schema, f"{table.name}_history", table.landed_columns, staging, package=True), 1)]


def newest_operation(name: str, moment: str) -> str:
    """How far a table of `raw_ops` has been brought over: its newest moment, and how many rows there are."""
    return f"select max({identifier(moment)}), count(*) from {qualified(OPS, name)}"


def add_operations(name: str, columns: Columns, unit: Sequence[str], staging: str) -> str:
    """Append the staged rows of one `raw_ops` table; a `unit` (the columns of a load, or run) that is there is not
    added again. One statement: it happens whole or not at all."""
    there = " and ".join(f"kept.{identifier(column)} = staged.{identifier(column)}" for column in unit)
    return (
        f"{_insert(OPS, name, columns, staging, package=False)} as staged "
        f"where not exists (select 1 from {qualified(OPS, name)} as kept where {there})"
    )


def digest_of_quarantine(name: str) -> str:
    """What tells whether the quarantine differs: entries are added, and resolved, and never removed."""
    return f'select count(*), count("RESOLVED_AT"), max("LOAD_ID") from {qualified(OPS, name)}'


def replace_operations(name: str, columns: Columns, staging: str) -> list[str]:
    """Put the staged rows in place of all there are; to be run in one transaction."""
    return [f"delete from {qualified(OPS, name)}", _insert(OPS, name, columns, staging, package=False)]


def _insert(schema: str, name: str, columns: Columns, staging: str, *, package: bool) -> str:
    names = [identifier(column) for column, _ in columns]
    values = [
        f"parse_json({identifier(column)})" if sql_type == "json" else identifier(column)
        for column, sql_type in columns
    ]
    if package:
        names.append(identifier(PACKAGE_COLUMN))
        values.append("?")
    return f'insert into {qualified(schema, name)} ({", ".join(names)}) select {", ".join(values)} from "{staging}"'
