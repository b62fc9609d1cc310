"""Landing one table: incoming rows through the boundary, compared with what is there, written to the lake.

Everything happens in one DuckDB connection, in temporary tables whose spill is encrypted; the first bytes on disk
are already tokens. A row that was landed before in the same form is counted and not landed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb

from ingestion.boundary import Boundary, compile_boundary
from ingestion.lake import Lake, write_part
from ingestion.schema import Table
from ingestion.shapes import compile_shape
from ingestion.sources import Chunk, Piece
from ingestion.verbatim import MAX_SKELETONS, SKELETON_SQL, is_clean, verbatim_boundary
from warehouse.core.errors import LoadIncomplete
from warehouse.core.settings import CATALOG
from warehouse.privacy.vault import ENTRY_COLUMNS

DELETE_STOP_SHARE = 0.3
DELETE_STOP_ROWS = 100
"""A comparison that would delete more than this share of a table, and more than this many rows, is refused."""


@dataclass
class Counts:
    """What one load did with one table. `source_rows = unchanged + landed + quarantined` or the load is refused."""

    source_rows: int = 0
    read_rows: int = 0
    unchanged_rows: int = 0
    landed_rows: int = 0
    deleted_rows: int = 0
    quarantined_rows: int = 0
    unknown_keys: int = 0
    cursor_to: str | None = None
    files: dict[Path, int] = field(default_factory=dict)
    """Part of the lake → rows in it."""


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the connection's holding places for what must wait until the source's snapshot is released."""
    connection.execute(f"create or replace temp table pending_vault ({ENTRY_COLUMNS})")
    connection.execute("""
        create or replace temp table pending_quarantine (
            load_id varchar, source varchar, table_name varchar,
            position varchar, reason varchar, payload json, quarantined_at timestamp with time zone
        )
    """)


class TableLanding:
    """The landing of one table in one load. Feed it relations with :meth:`add`, then :meth:`finish`."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        lake: Lake,
        table: Table,
        load_id: str,
        landed_at: datetime,
    ) -> None:
        self.connection = connection
        self.lake = lake
        self.table = table
        self.load_id = load_id
        self.landed_at = landed_at
        self.boundary = compile_boundary(table)
        self._verbatim = verbatim_boundary(table, self.boundary)
        self.counts = Counts()
        self._raw = f"{CATALOG}.{table.qualified}"
        self._keys = ", ".join(f'"{key}"' for key in table.key)
        self._position = " || '|' || ".join(f"coalesce(\"{key}\"::varchar, '')" for key in table.key)
        connection.execute(
            "create or replace temp table seen_keys as select " + self._keys + f" from {self._raw} limit 0"
        )

    def add(self, chunk: str | Chunk) -> None:
        """Take one chunk: pieces, or SQL of the source's columns or of position columns with `doc` and `problem`."""
        if isinstance(chunk, Chunk):
            treated = [self._treated_piece(piece) for piece in chunk.pieces]
        elif self.table.is_document:
            treated = self._treated_documents(chunk)
        else:
            self.connection.execute(f"create or replace temp table incoming as {chunk}")
            treated = [self._treated(self.boundary, "incoming")]
        hashed = ", ".join(
            f"coalesce(\"{name}\"::varchar, '\\0')" for name, _ in self.boundary.landed if name != "cursor_at"
        )
        self.connection.execute(f"""
            create or replace temp table checked as
            with treated as ({" union all ".join(treated)})
            select *, md5(concat_ws(chr(31), {hashed})) as _row_hash from treated
        """)
        self._count()
        self._write(self._changed_sql())
        self._hold_vault()
        self._hold_quarantine()
        self.connection.execute(f"insert into seen_keys select {self._keys} from checked")
        self.connection.execute("drop table if exists incoming")

    def mark_deleted(self, *, accept: bool, among: str | None = None) -> None:
        """Land a closing version of every row that the source no longer has.

        Call it after a complete comparison, or with `among`, a relation of keys: then only these were looked for.

        Raises LoadIncomplete when too much would be deleted and `accept` was not said.
        """
        rows = self._one(f"select count(*) from {self._raw} where _deleted_at is null")
        missing = f"from {self._raw} as raw anti join seen_keys using ({self._keys}) where raw._deleted_at is null"
        if among is not None:
            missing = missing.replace("where", f"semi join {among} using ({self._keys}) where")
        deleted = self._one(f"select count(*) {missing}")
        if not deleted:
            return
        if not accept and deleted > DELETE_STOP_ROWS and deleted > rows * DELETE_STOP_SHARE:
            raise LoadIncomplete(
                f"{self.table.source}: {deleted} of {rows} rows of {self.table.origin} are gone at the source, "
                f"more than {DELETE_STOP_SHARE:.0%}",
                kept="the landed rows, unchanged; nothing was marked as deleted",
                todo="check the source (truncated, restored?); if it is meant, run `warehouse ingest --accept-deletes`",
            )
        columns = ", ".join(f'raw."{name}"' for name, _ in self.boundary.landed)
        self._write(f"""
            select {columns}, md5('deleted' || _row_hash) as _row_hash, {self._timestamp()} as _deleted_at,
                {self._timestamp()} as _landed_at, '{self.load_id}' as _load_id
            {missing}
        """)
        self.counts.deleted_rows = deleted

    def finish(self) -> Counts:
        """Check the balance. Raises LoadIncomplete when a row is not accounted for."""
        counts = self.counts
        accounted = counts.unchanged_rows + counts.landed_rows + counts.quarantined_rows
        if not counts.source_rows == counts.read_rows == accounted:
            raise LoadIncomplete(
                f"{self.table.source}.{self.table.origin}: the source counts {counts.source_rows} rows, "
                f"{counts.read_rows} were read and {accounted} are accounted for",
                kept="what was landed before; this load is discarded",
                todo="run `warehouse ingest` again; if it repeats, compare the table with its pinned schema",
            )
        return counts

    def _count(self) -> None:
        unchanged = f"semi join {self._raw} as raw on ({self._on('checked')}) and raw._row_hash = checked._row_hash"
        read, quarantined, unknown = self._row(
            "select count(*), count(reason), coalesce(sum(unknown) filter (reason is null), 0) from checked"
        )
        kept = self._one(f"select count(*) from checked {unchanged} where reason is null")
        self.counts.read_rows += read
        self.counts.quarantined_rows += quarantined
        self.counts.unchanged_rows += kept
        self.counts.landed_rows += read - quarantined - kept
        self.counts.unknown_keys += int(unknown)

    def _changed_sql(self) -> str:
        columns = ", ".join(f'checked."{name}"' for name, _ in self.boundary.landed)
        return f"""
            select {columns}, checked._row_hash, null::timestamp with time zone as _deleted_at,
                {self._timestamp()} as _landed_at, '{self.load_id}' as _load_id
            from checked
            {self._not_landed_before()}
            where reason is null
        """

    def _not_landed_before(self) -> str:
        return f"anti join {self._raw} as raw on ({self._on('checked')}) and raw._row_hash = checked._row_hash"

    def _write(self, select: str) -> None:
        path = self.lake.part_path(self.table.source, self.table.name, self.load_id, len(self.counts.files))
        rows = write_part(self.connection, select, path)
        if rows:
            self.counts.files[path] = rows
        else:
            path.unlink(missing_ok=True)

    def _hold_vault(self) -> None:
        if not self.boundary.vault:
            return
        self.connection.execute(f"""
            insert into pending_vault
            select '{self.table.source}', '{self.table.name}', position, entry.path, entry.token, entry.value, subject,
                '{self.load_id}', {self._timestamp()}
            from (
                select {self._position} as position, subject, unnest(vault) as entry
                from checked {self._not_landed_before()} where reason is null
            )
            where entry.value is not null
        """)

    def _hold_quarantine(self) -> None:
        self.connection.execute(f"""
            insert into pending_quarantine
            select '{self.load_id}', '{self.table.source}', '{self.table.name}', {self._position}, reason, payload,
                {self._timestamp()}
            from checked where reason is not null
        """)

    def _treated_documents(self, relation: str) -> list[str]:
        """Clean documents land as they came, the others are rebuilt."""
        self.connection.execute(
            f"create or replace temp table incoming as select *, {SKELETON_SQL} as skeleton from ({relation})"
        )
        found = self.connection.execute(
            f"select skeleton from incoming group by skeleton order by count(*) desc limit {MAX_SKELETONS}"
        ).fetchall()
        clean = [skeleton for (skeleton,) in found if skeleton is not None and is_clean(self.table, skeleton)]
        if len(clean) == len(found) < MAX_SKELETONS:
            return [self._treated(self._verbatim, "incoming")]
        self.connection.execute(
            "create or replace temp table clean_skeletons as select unnest($clean::varchar[]) as skeleton",
            {"clean": clean},
        )
        return [
            self._treated(self._verbatim, "(from incoming semi join clean_skeletons using (skeleton))"),
            self._treated(self.boundary, "(from incoming anti join clean_skeletons using (skeleton))"),
        ]

    def _treated_piece(self, piece: Piece) -> str:
        if piece.shape is None:
            return self._treated(self.boundary, f"({piece.relation})")
        boundary = compile_shape(self.table, piece.shape)
        if boundary is None:
            raise ValueError(f"{self.table.origin}: a shape without a boundary of its own")
        return self._treated(boundary, f"({piece.relation})")

    @staticmethod
    def _treated(boundary: Boundary, relation: str) -> str:
        """The rows of a relation after their treatment, with the outcome of their checks."""
        landed = ", ".join(f'{sql} as "{name}"' for name, sql in boundary.landed)
        vault = ", ".join(
            f"{{'path': '{rule.path}', 'token': {rule.token_sql}, 'value': {rule.value_sql}}}"
            for rule in boundary.vault
        )
        return f"""
            select *, {boundary.unknown} as unknown from (
                select
                    {landed},
                    {boundary.reason} as reason,
                    [{vault}]::struct(path varchar, token varchar, value varchar)[] as vault,
                    {boundary.subject} as subject,
                    case when reason is not null then {boundary.payload} end as payload
                from {relation}
            )
        """

    def _on(self, alias: str) -> str:
        return " and ".join(f'raw."{key}" = {alias}."{key}"' for key in self.table.key)

    def _timestamp(self) -> str:
        return f"timestamptz '{self.landed_at.isoformat()}'"

    def _row(self, sql: str) -> tuple[int, ...]:
        row = self.connection.execute(sql).fetchone()
        if row is None:
            raise LoadIncomplete(f"{self.table.origin}: a count gave no row")
        return row

    def _one(self, sql: str) -> int:
        return int(self._row(sql)[0])
