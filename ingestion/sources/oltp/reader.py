"""PostgreSQL through DuckDB's scanner: set-based, one repeatable-read snapshot for all tables.

Without a `compare` (small tables, or asked for), rows come by cursor: everything at or after the newest value seen,
minus the lag, because equal timestamps and late commits stand behind it; rows without a cursor value are read always.
The cursor never passes the source's own clock, so that one row dated 2099 does not hide every later change.

Three ways to read, by what there is to read:

* whole, by the scanner: several connections at once, which export and import one snapshot;
* in ranges of blocks, by queries: what is to be compared row by row stays within memory;
* exactly, by queries with casts: for the columns whose values the scanner would change without a word. It reads a NaN
  in a numeric as 0, an unbounded numeric as a double and the last moments of the year 294276 as some before Christ.
  :meth:`OltpReader.plan` counts such values first, in the snapshot, and they end in the quarantine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import duckdb
import psycopg

from ingestion.lake import sql_text
from ingestion.schema import PLAIN_CLASSES, Leaf, Table
from ingestion.sources import Mode, Plan
from warehouse.core.errors import SchemaDrift, SourceUnavailable
from warehouse.core.settings import Settings

ALIAS = "pg"

CHUNK_ROWS = 250_000
"""What a comparison takes at once from a table that is larger; an estimate from the table's size on disk."""

_FAMILIES = {
    "text": {"character varying", "character", "text", "bpchar", "uuid", "inet", "cidr", "USER-DEFINED"},
    "inet": {"inet", "cidr", "character varying", "text"},
    "smallint": {"smallint"},
    "integer": {"integer", "smallint"},
    "bigint": {"bigint", "integer", "smallint"},
    "boolean": {"boolean"},
    "date": {"date"},
    "timestamptz": {"timestamp with time zone"},
    "json": {"json", "jsonb"},
    "double": {"double precision", "real"},
    "array": {"ARRAY"},
}
"""Pinned type → types of PostgreSQL that fit it. A `numeric` fits its own precision and scale only."""

_EXACT_IN_SCANNER = frozenset({
    "character varying", "character", "text", "bpchar", "uuid", "inet", "cidr", "smallint", "integer", "bigint",
    "boolean", "json", "jsonb", "double precision", "real", "date", "timestamp with time zone",
})  # fmt: skip
"""Types whose every value the scanner reads as it is, apart from those that :func:`_changed_by_scanner` names."""

_BOUNDED = re.compile(r"numeric\((\d+),(\d+)\)")
_FIRST_DAY, _LAST_DAY = "0001-01-01", "9999-12-31"
"""What a date may be: what every engine of ours can hold and print."""


@dataclass(frozen=True)
class _Origin:
    """One table as the source's catalog describes it."""

    types: dict[str, str] = field(default_factory=dict)
    unique: tuple[frozenset[str], ...] = ()
    """The columns of each unique index over whole rows."""
    has_blocks: bool = False
    """An ordinary table, whose rows stand in numbered blocks; a view or a partitioned table is not."""
    estimated_rows: float = 0.0
    size: int = 0
    block_size: int = 8192


class OltpReader:
    """Reads the tables of schema `public`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: Settings, uri: str) -> None:
        self.connection = connection
        self.settings = settings
        self._uri = uri
        self._origins: dict[str, _Origin] = {}

    def __enter__(self) -> OltpReader:
        check_reachable(self._uri)
        quoted = self._uri.replace("'", "''")
        try:
            self.connection.execute(f"ATTACH '{quoted}' AS {ALIAS} (TYPE postgres, READ_ONLY)")
            self.connection.execute("BEGIN")
        except duckdb.Error as error:
            raise SourceUnavailable(
                f"PostgreSQL cannot be attached ({type(error).__name__})",
                kept="everything landed before",
                todo="`warehouse doctor` tells what is missing",
            ) from None
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.execute("ROLLBACK" if exception[0] else "COMMIT")
        self.connection.execute(f"DETACH {ALIAS}")

    def check_shape(self, tables: list[Table]) -> list[str]:
        """Compare the source's catalog with the pinned schemas.

        Returns alerts: columns that are new at the source and do not land. Raises SchemaDrift when a pinned table or
        column is missing, or has changed its type.
        """
        found = {name: origin.types for name, origin in self._catalog().items()}
        problems, alerts = [], []
        for table in tables:
            columns = found.get(table.origin)
            if columns is None:
                problems.append(f"table {table.origin} is missing")
                continue
            for leaf in table.columns:
                if leaf.name not in columns:
                    problems.append(f"column {table.origin}.{leaf.name} is missing (renamed or dropped?)")
                elif not _fits(leaf, columns[leaf.name]):
                    problems.append(f"column {table.origin}.{leaf.name} is now {columns[leaf.name]}")
            pinned = {leaf.name for leaf in table.columns}
            alerts += [
                f"{table.origin}.{column} is new at the source and does not land"
                for column in sorted(columns.keys() - pinned)
            ]
        if problems:
            raise SchemaDrift(
                "PostgreSQL no longer has the pinned shape: " + "; ".join(problems),
                kept="everything landed before; nothing of this run's PostgreSQL load was kept",
                todo="agree on the change with the owner of the source, then change ingestion/sources/oltp/schema.yml",
            )
        return alerts

    def plan(self, table: Table, state: dict[str, Any], *, full: bool) -> Plan:
        """Compare small tables whole; read large ones by cursor. Counts and bounds are of the snapshot."""
        origin = self._catalog()[table.origin]
        cursor = state.get("cursor")
        small = self.settings.compare_below_rows
        if full or cursor is None or table.cursor is None:
            return self._survey(table, origin, cursor)
        if origin.estimated_rows <= 2 * small:
            whole = self._survey(table, origin, cursor)
            if whole.source_rows <= small:
                return whole
        since = datetime.fromisoformat(cursor) - timedelta(seconds=self.settings.cursor_lag_seconds)
        where = f'("{table.cursor}" >= timestamptz \'{since.isoformat()}\' or "{table.cursor}" is null)'
        return self._survey(table, origin, cursor, where)

    def changed(self, table: Table, where: str, keys: str) -> Plan:
        """Rows that meet a condition of PostgreSQL's. Of `keys`, a relation of the connection, the others are gone."""
        plan = self._survey(table, self._catalog()[table.origin], None, where)
        return replace(plan, mode="changes", bounds={**plan.bounds, "keys": keys})

    def at(self, table: Table, positions: Sequence[str]) -> Plan:
        """Rows by key, in PostgreSQL's own words: of a single text key it uses the index."""
        parts = [f'"{key}"::text' for key in table.key]
        place = parts[0] if len(parts) == 1 else " || '|' || ".join(f"coalesce({part}, '')" for part in parts)
        where = f"{place} in ({', '.join(map(sql_text, positions))})"
        return replace(self._survey(table, self._catalog()[table.origin], None, where), mode="retry")

    def chunks(self, table: Table, plan: Plan) -> Iterator[str]:
        """Relations over the source's columns, by the way that :meth:`plan` chose."""
        where = plan.bounds.get("where")
        exact = plan.bounds.get("exact", False)
        origin = self._catalog()[table.origin]
        if not exact and where is None and "blocks" not in plan.bounds:
            yield f"select {_columns(table)} from {self._origin(table)}"
            return
        projected = ", ".join(
            f'{_exact_sql(leaf, origin.types[leaf.name])} as "{leaf.name}"' if exact else f'"{leaf.name}"'
            for leaf in table.columns
        )
        for blocks in plan.bounds.get("blocks", ("true",)):
            conditions = " and ".join(filter(None, (where, blocks)))
            yield f"select * from {_query(f'select {projected} from {_qualified(table)} where {conditions}')}"

    def digest(self, table: Table, plan: Plan) -> str:
        """Of every row of a table that is read whole, made by PostgreSQL itself: of its texts of the pinned columns."""
        columns = ", ".join(
            # a setting of the server's decides how many digits the text of a double has
            f'float8send("{leaf.name}"::float8)' if leaf.declared == "double" else f'"{leaf.name}"'
            for leaf in table.columns
        )
        rows = f"select sha256(convert_to(row({columns})::text, 'UTF8')) as h from {_qualified(table)}"
        digest = f"select encode(sha256(string_agg(h, '' order by h)), 'hex') as digest from ({rows}) as hashed"
        found = self.connection.execute(f"select * from {_query(digest)}").fetchone()
        return str(found[0]) if found else ""

    def keys(self, table: Table, also: Collection[str] = ()) -> str:
        """A relation of every key of the table in the snapshot, as it lands; with it, the plain columns of `also`."""
        wanted = {*table.key, *also}
        keys = [leaf for leaf in table.columns if leaf.name in wanted and leaf.data_class in PLAIN_CLASSES]
        landed = ", ".join(f'try_cast("{leaf.name}" as {leaf.sql_type}) as "{leaf.name}"' for leaf in keys)
        return f"select {landed} from {self._origin(table)}"

    def advanced(self, table: Table, plan: Plan) -> dict[str, Any]:
        """The newest cursor value of what was read, or the source's clock where that is earlier."""
        if table.cursor is None:
            return {}
        newest = plan.bounds.get("newest")
        return {"cursor": newest.isoformat() if newest else plan.cursor_from}

    def _survey(self, table: Table, origin: _Origin, cursor: str | None, where: str | None = None) -> Plan:
        """One pass at the source: how many rows, the newest cursor, and whether the scanner would change a value."""
        finite = f'max("{table.cursor}") filter (where isfinite("{table.cursor}"))'
        # least() passes over a null: of no row it would make the clock, and what commits late would lie behind it
        newest_sql = f"least({finite}, case when {finite} is not null then now() end)"
        changed = [
            condition for leaf in table.columns if (condition := _changed_by_scanner(leaf, origin.types[leaf.name]))
        ]
        row = self.connection.execute(
            "select * from "
            + _query(
                f"select count(*) as n, {newest_sql if table.cursor else 'null::timestamptz'} as newest, "
                f"count(*) filter (where {' or '.join(changed) or 'false'}) as changed "
                f"from {_qualified(table)} where {where or 'true'}"
            )
        ).fetchone()
        rows, newest, odd = row or (0, None, 0)
        bounds: dict[str, Any] = {"newest": newest}
        if where is not None:
            bounds["where"] = where
        if odd or not all(_is_exact(leaf, origin.types[leaf.name]) for leaf in table.columns):
            bounds["exact"] = True
        unique = any(columns <= set(table.key) for columns in origin.unique)
        streams = cursor is None and all(leaf.data_class in PLAIN_CLASSES for leaf in table.columns)
        # a key that may come twice must be met within one chunk
        if unique and origin.has_blocks and rows > CHUNK_ROWS and not streams:
            bounds["blocks"] = _block_ranges(origin, rows if where is None else int(origin.estimated_rows))
        mode: Mode = "compare" if where is None else "incremental"
        return Plan(mode, source_rows=rows, cursor_from=cursor, bounds=bounds, unique_keys=unique)

    def _catalog(self) -> dict[str, _Origin]:
        if not self._origins:
            rows = self.connection.execute(f"select * from {_query(_CATALOG)}").fetchall()
            for name, types, unique, has_blocks, estimate, size, block_size in rows:
                self._origins[name] = _Origin(
                    types=json.loads(types),
                    unique=tuple(frozenset(columns) for columns in json.loads(unique)),
                    has_blocks=has_blocks,
                    estimated_rows=estimate,
                    size=size,
                    block_size=block_size,
                )
        return self._origins

    @staticmethod
    def _origin(table: Table) -> str:
        return f"{ALIAS}.{_qualified(table)}"


_CATALOG = """
    select
        c.relname::text as name,
        (
            select json_object_agg(column_name, case
                when data_type = 'numeric' and numeric_precision is not null
                    then format('numeric(%s,%s)', numeric_precision, numeric_scale)
                else data_type
            end)::text
            from information_schema.columns where table_schema = 'public' and table_name = c.relname
        ) as types,
        coalesce((
            select json_agg((
                select json_agg(a.attname) from pg_attribute as a
                where a.attrelid = c.oid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
            ))::text
            from pg_index as i
            where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
                and i.indpred is null and i.indexprs is null
        ), '[]') as unique_columns,
        c.relkind in ('r', 'm') as has_blocks,
        greatest(c.reltuples, 0)::float8 as estimated_rows,
        case when c.relkind in ('r', 'm') then pg_relation_size(c.oid) else 0 end as size,
        current_setting('block_size')::int as block_size
    from pg_class as c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'm', 'v', 'f')
"""
"""What the source's catalog says of every table: a reader without rights on a column does not see it."""


def _qualified(table: Table) -> str:
    return f'public."{table.origin}"'


def _columns(table: Table) -> str:
    return ", ".join(f'"{leaf.name}"' for leaf in table.columns)


def _query(sql: str) -> str:
    """`sql` as PostgreSQL runs it, in the transaction of the snapshot, as a relation."""
    return f"postgres_query('{ALIAS}', {sql_text(sql)})"


def _block_ranges(origin: _Origin, rows: int) -> tuple[str, ...]:
    """Conditions that part a table into ranges of blocks of about CHUNK_ROWS rows. The last one is open."""
    blocks = max(origin.size // origin.block_size, 1)
    step = max(blocks * CHUNK_ROWS // max(rows, 1), 1)
    starts = range(0, blocks, step)
    return tuple(
        f"ctid >= '({start},0)'::tid" + (f" and ctid < '({start + step},0)'::tid" if start != starts[-1] else "")
        for start in starts
    )


def _is_exact(leaf: Leaf, found: str) -> bool:
    """Whether the scanner has a type for the column that holds each of its values."""
    if leaf.data_class == "forbidden" or found in _EXACT_IN_SCANNER:
        return True
    bounded = _BOUNDED.fullmatch(found)
    return bounded is not None and int(bounded[1]) <= 38 and leaf.declared != "numeric"


def _changed_by_scanner(leaf: Leaf, found: str) -> str | None:
    """Condition, in PostgreSQL: the value is one that the scanner reads as another one."""
    name = f'"{leaf.name}"'
    if leaf.data_class == "forbidden":
        return None
    if _BOUNDED.fullmatch(found):
        return f"{name} = 'NaN'"
    if found in {"date", "timestamp with time zone"}:
        return f"not {_in_range(name)}"
    return None


def _in_range(name: str) -> str:
    return f"({name} >= '{_FIRST_DAY}' and {name} < date '{_LAST_DAY}' + 1)"


def _exact_sql(leaf: Leaf, found: str) -> str:
    """What PostgreSQL gives for the column: text, wherever the scanner's own type would not hold every value.

    A time outside of what we hold becomes a text that is no time, so that it fails its cast at the boundary.
    """
    name = f'"{leaf.name}"'
    if found == "ARRAY":
        return f"to_jsonb({name})::text"
    if found in {"date", "timestamp with time zone"}:
        shape, zone = ("YYYY-MM-DD", "") if found == "date" else ("YYYY-MM-DD HH24:MI:SS.US+00", " at time zone 'UTC'")
        text = f"to_char({name}{zone}, '{shape}')"
        return f"case when {name} is null then null when {_in_range(name)} then {text} else 'out of range' end"
    if found in _EXACT_IN_SCANNER:
        return name
    return f"{name}::text"


def check_reachable(uri: str) -> None:
    """Connect once, so that a wrong password and a stopped server are told apart. Messages carry no credentials."""
    try:
        with psycopg.connect(uri, connect_timeout=10) as connection:
            connection.execute("select 1")
    except psycopg.OperationalError as error:
        text = str(error).lower()
        if "password" in text or "authentication" in text or "role" in text:
            what, todo = "PostgreSQL refused the credentials", "correct the user and password in POSTGRES_URI"
        elif "does not exist" in text:
            what, todo = "PostgreSQL has no such database", "correct the database name in POSTGRES_URI"
        else:
            what, todo = (
                "PostgreSQL does not answer",
                "start it (`warehouse sources up` for the embedded one) or correct POSTGRES_URI",
            )
        raise SourceUnavailable(
            what, kept="everything landed before; the published warehouse stays readable", todo=todo
        ) from None


def _fits(leaf: Leaf, found: str) -> bool:
    if leaf.data_class not in PLAIN_CLASSES:
        return True  # lands as a token of its text, whatever the type
    if leaf.declared.startswith("numeric"):
        return found == leaf.declared
    return found in _FAMILIES[leaf.declared]
