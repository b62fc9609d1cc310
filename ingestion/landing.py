"""Landing one table: incoming rows through the boundary, compared with what is there, written to the lake.

Everything happens in one DuckDB connection, in temporary tables whose spill is encrypted; the first bytes on disk
are already tokens. A row that was landed before in the same form is counted and not landed again.

The first load of a flat table without personal values has nothing to be compared with and nothing for the vault: it
streams from the source into the lake, and only rows that do not fit are read a second time, for the quarantine. So do,
on a first load, chunks of documents of which it is known beforehand that all of them land as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from ingestion import erasure
from ingestion.boundary import Boundary
from ingestion.lake import Lake, LakePath, parts_sql, write_part
from ingestion.schema import Table, position_sql, row_hash_sql
from ingestion.sources import Chunk, Plan
from ingestion.treatment import Treatment
from ingestion.unchanged import Content, Equal, checksum_sql, rules, sealed
from ingestion.versions import LATE
from warehouse.core.errors import LoadIncomplete
from warehouse.core.settings import CATALOG
from warehouse.privacy.tokens import TokenKey
from warehouse.privacy.vault import ENTRY_COLUMNS

DELETE_STOP_SHARE = 0.3
DELETE_STOP_ROWS = 100
"""A comparison that would delete more than this share of a table, and more than this many rows, is refused."""

_FITS = "where reason is null"


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
    late_rows: int = 0
    """Of the landed rows, those older than what is current: they are history, and replace nothing."""
    unknown_events: int = 0
    """Of the landed rows, those of a type or version that no model understands; counted by the manifest."""
    missing_keys: int = 0
    """Keys of the source that neither landed before nor were read now; counted by :meth:`TableLanding.compare_keys`."""
    erased_rows: int = 0
    """Of the unchanged rows, those that were erased or are older than their class allows, and do not land."""
    cursor_to: str | None = None
    files: dict[LakePath, int] = field(default_factory=dict)
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
        plan: Plan,
        *,
        boundary: Boundary | None = None,
        at: str | None = None,
    ) -> None:
        """Prepare the landing.

        Args:
            boundary: of the table, when the reader adds reasons of its own; default: the pinned one.
            at: SQL over an incoming row: where it stands, when its key is not enough to find it again.
        """
        self.connection = connection
        self.lake = lake
        self.table = table
        self.load_id = load_id
        self.landed_at = landed_at
        self._treatment = Treatment(connection, table, boundary=boundary, at=at)
        self.boundary = self._treatment.boundary
        self._vaulted = bool(self.boundary.vault)
        self.plan = plan
        self.counts = Counts(source_rows=plan.source_rows)
        self._raw = f"{CATALOG}.{table.qualified}"
        self._keys = ", ".join(f'"{key}"' for key in table.key)
        self._position = position_sql(table)
        self._at = f"coalesce(_at, {self._position})" if at else self._position
        self._erased = erasure.erased_sql(connection, table)
        self._masks = erasure.masks(connection, table)
        if self._vaulted and (hidden := erasure.hidden_sql(connection, table)):
            self._masks["vault"] = f"if({hidden}, [], vault)"
        connection.execute(
            "create or replace temp table seen_keys as select " + self._keys + f" from {self._raw} limit 0"
        )
        self._first = not self._one(f"select count(*) from (select 1 from {self._raw} limit 1)")
        self._some_landed_before = False
        """Whether a row of the chunk has landed before in the same form: else there is nothing to be left out."""
        self._late: str | None = None
        cursor = "cursor_at" if table.is_document else table.cursor
        if plan.mode == "drop" and table.history and table.cursor and not self._first:
            self._late = f"""exists (
                select 1 from {self._raw} as newer
                where {self._on("checked", "newer")} and newer."{cursor}" > checked."{cursor}"
            )"""
        obeyed = self._erased or self._masks
        plain = not (table.is_document or self.boundary.vault or obeyed)
        self._is_new = self._first and table.is_document and plan.mode in {"compare", "offsets"} and not obeyed
        self._streams = self._first and plan.unique_keys and plan.mode != "retry" and plain
        self._content: Content | None = None
        self._source = ""

    @property
    def may_stay(self) -> bool:
        """Whether rows that are what they were when they were compared have nothing else to be asked: by an erasure or
        a retention, whose ledgers may have changed meanwhile.
        """
        return self.plan.mode == "compare" and not self._erased and not self._masks

    def is_equal(self, digest: str, key: TokenKey, known: Equal | None) -> bool:
        """Whether the source's rows, of this digest, are the landed ones: then they are counted, and not to be added.

        Otherwise they are from here on taken note of, for :meth:`equal`. Call before the first chunk.
        """
        self._source = sealed(digest, self.table, key)
        self._content = Content()
        if known is None:
            return False
        landed = Content()
        landed.add(*self._row(f"select count(*), {checksum_sql()} from {self._raw} where _deleted_at is null"))
        if known != Equal(self._source, landed.text(), rules(self.table, self.boundary), known.unknown_keys):
            return False
        self.counts.read_rows = self.counts.unchanged_rows = self.plan.source_rows
        self.counts.unknown_keys = known.unknown_keys
        return True

    def equal(self) -> Equal | None:
        """What the raw table will hold of the source once this is loaded, if that is all that the source has."""
        if self._content is None or self.counts.quarantined_rows:
            return None
        known = rules(self.table, self.boundary)
        return Equal(self._source, self._content.text(), known, self.counts.unknown_keys)

    def add(self, chunk: str | Chunk) -> None:
        """Take one chunk: pieces, or SQL of the source's columns or of position columns with `doc` and `problem`."""
        if self._streams and isinstance(chunk, str):
            self._stream(chunk)
        else:
            treated = self._treatment.treated(chunk, keep=self._vaulted, judge=self._is_new)
            if self._is_new and treated.lands_whole:
                self._copy(treated.sql)
            else:
                self._compare(treated.sql)

    def _copy(self, treated: str) -> None:
        """Documents straight into the lake; their keys are kept, because only all of them tell a doubled one."""
        self.connection.execute(f"insert into seen_keys select {self._keys} from ({treated})")
        landed = self._write(f"{self._versions_sql()} from ({self._checked_sql(treated)}) as checked")
        self._note_written(landed)
        self.counts.landed_rows += landed
        self.counts.read_rows += landed

    def _stream(self, relation: str) -> None:
        """Straight into the lake; what did not fit is read once more, in the same snapshot."""
        checked = self._checked_sql(self._treatment.sql(relation, keep=False))
        landed = self._write(f"{self._versions_sql()} from ({checked}) as checked {_FITS}")
        self._note_written(landed)
        self.counts.landed_rows += landed
        self.counts.read_rows += landed
        if self.counts.read_rows < self.plan.source_rows:
            misfits = f"select * from ({relation}) where {self.boundary.reason} is not null"
            self._compare(self._treatment.sql(misfits, keep=False))

    def _compare(self, treated: str) -> None:
        """Through a temporary table, against what has landed."""
        self.connection.execute(f"create or replace temp table checked as {self._checked_sql(treated)}")
        if not self.plan.unique_keys and not self.table.is_document:
            self._refuse_duplicates()
        self.connection.execute(f"insert into seen_keys select {self._keys} from checked")
        self._drop_erased()
        if self._count():
            self._land_checked()
        self._hold_quarantine()
        self.connection.execute("drop table if exists incoming")

    def _land_checked(self) -> None:
        """Of the checked rows, those that have not landed before."""
        if self._late is not None:
            late = f"select count(*) from checked {self._not_landed_before()} {_FITS} and {self._late}"
            self.counts.late_rows += self._one(late)
        self._write(f"{self._versions_sql()} from checked {self._not_landed_before()} {_FITS}")
        self._hold_vault()

    def _checked_sql(self, treated: str) -> str:
        return f"""
            with treated as ({self._masked(treated)})
            select *, {row_hash_sql(self.table)} as _row_hash from treated
        """

    def _masked(self, treated: str) -> str:
        """Rows that stay when a person is erased land as they may stay."""
        if not self._masks:
            return treated
        shown = ", ".join(f'{sql} as "{name}"' for name, sql in self._masks.items())
        return f"select * replace ({shown}) from ({treated})"

    def _refuse_duplicates(self) -> None:
        """The source does not keep the key unique: of rows that share one, none can be taken for the true one."""
        self.connection.execute(f"""
            update checked set reason = 'duplicate key', payload = to_json({{'rows': twice.n}})
            from (select {self._keys}, count(*) as n from checked group by all having count(*) > 1) as twice
            where reason is null and {self._on("checked", "twice")}
        """)

    @property
    def telling_columns(self) -> frozenset[str]:
        """What :meth:`compare_keys` needs of a row beside its key: what tells that it is not to land."""
        if self._erased is None:
            return frozenset()
        kept = self.table.retention
        return frozenset(filter(None, (self.table.subject, *((kept.age, kept.payment, *kept.parties) if kept else ()))))

    def compare_keys(self, keys: str) -> None:
        """Take `keys`, a relation of every key at the source, for what the source has. Call after the last chunk.

        Its other columns are those of :attr:`telling_columns`.

        Afterwards :meth:`mark_deleted` finds what is gone, and `counts.missing_keys` says what never landed.
        """
        self.connection.execute(f"create or replace temp table source_keys as {keys}")
        self.counts.missing_keys = self._one(f"""
            select count(*) from source_keys
            anti join {self._raw} using ({self._keys})
            anti join seen_keys using ({self._keys})
            where not {self._erased or "false"}
        """)
        self.connection.execute(f"create or replace temp table seen_keys as select {self._keys} from source_keys")
        self.connection.execute("drop table source_keys")

    def mark_deleted(self, *, accept: bool, among: str | None = None) -> None:
        """Land a closing version of every row that the source no longer has.

        Call it after a complete comparison, or with `among`, a relation of keys: then only these were looked for.

        Raises LoadIncomplete when too much would be deleted and `accept` was not said.
        """
        rows = self._one(f"select count(*) from {self._raw} where _deleted_at is null")
        missing = f"from {self._raw} as raw anti join seen_keys using ({self._keys}) where raw._deleted_at is null"
        if among is not None:
            missing = missing.replace("where", f"semi join {among} using ({self._keys}) where")
        if self._erased:
            missing += f" and not {self._erased}"
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
        """Check the balance. Raises LoadIncomplete when a row is not accounted for, or one key names two rows."""
        counts = self.counts
        key = f"({self._keys})" if len(self.table.key) > 1 else self._keys
        # rows of a flat table or of a file that share a key are in quarantine already
        if (
            self.table.is_document
            and self.plan.mode != "drop"
            and (doubled := self._one(f"select count({key}) - count(distinct {key}) from seen_keys"))
        ):
            raise LoadIncomplete(
                f"{self.table.source}.{self.table.origin}: {doubled} rows share their key with another row of this "
                "load (in MongoDB: ids that differ in type only), and one would replace the other",
                kept="what was landed before; this load is discarded",
                todo="make the keys different at the source, then run `warehouse ingest` again",
            )
        accounted = counts.unchanged_rows + counts.landed_rows + counts.quarantined_rows
        if not counts.source_rows == counts.read_rows == accounted:
            raise LoadIncomplete(
                f"{self.table.source}.{self.table.origin}: the source counts {counts.source_rows} rows, "
                f"{counts.read_rows} were read and {accounted} are accounted for",
                kept="what was landed before; this load is discarded",
                todo="run `warehouse ingest` again; if it repeats, compare the table with its pinned schema",
            )
        return counts

    def _drop_erased(self) -> None:
        """Rows that were erased or are too old do not land again; they count as unchanged."""
        if not self._erased:
            return
        erased = self._one(f"delete from checked where {self._erased}")
        self.counts.read_rows += erased
        self.counts.unchanged_rows += erased
        self.counts.erased_rows += erased

    def _count(self) -> int:
        """Count the checked rows; returns how many of them land. Remembers whether any has landed before."""
        read, quarantined, unknown, *bits = self._row(
            "select count(*), count(reason), coalesce(sum(unknown) filter (reason is null), 0), "
            f"{checksum_sql('reason is null')} from checked"
        )
        if self._content is not None:
            self._content.add(read - quarantined, *bits)
        kept = 0
        if not self._first:
            same = f"semi join {self._raw} as raw on ({self._on('checked')}) and raw._row_hash = checked._row_hash"
            kept = self._one(f"select count(*) from checked {same} where reason is null")
        self.counts.read_rows += read
        self.counts.quarantined_rows += quarantined
        self.counts.unchanged_rows += kept
        self.counts.landed_rows += read - quarantined - kept
        self.counts.unknown_keys += int(unknown)
        self._some_landed_before = kept > 0
        return read - quarantined - kept

    def _note_written(self, rows: int) -> None:
        """Rows that went straight into the lake are of the content as well."""
        if self._content is not None and rows:
            part = parts_sql([list(self.counts.files)[-1]])
            self._content.add(rows, *self._row(f"select {checksum_sql()} from {part}"))

    def _versions_sql(self) -> str:
        columns = ", ".join(f'checked."{name}"' for name, _ in self.boundary.landed)
        return f"""
            select {columns}, checked._row_hash, null::timestamp with time zone as _deleted_at,
                {self._timestamp()} as _landed_at, {self._load_id_sql()} as _load_id
        """

    def _load_id_sql(self) -> str:
        """An export may be older than what the live source, or a later one, has brought meanwhile."""
        if self._late is None:
            return f"'{self.load_id}'"
        return f"if({self._late}, '{LATE}{self.load_id}', '{self.load_id}')"

    def _not_landed_before(self) -> str:
        if not self._some_landed_before:
            return ""
        return f"anti join {self._raw} as raw on ({self._on('checked')}) and raw._row_hash = checked._row_hash"

    def _write(self, select: str) -> int:
        path = self.lake.part_path(self.table.source, self.table.name, self.load_id, len(self.counts.files))
        rows = write_part(self.connection, select, path)
        if rows:
            self.counts.files[path] = rows
        else:
            path.unlink(missing_ok=True)
        return rows

    def _hold_vault(self) -> None:
        if not self.boundary.vault:
            return
        self.connection.execute(f"""
            insert into pending_vault
            select '{self.table.source}', '{self.table.name}', position, entry.path, entry.token, entry.value, subject,
                '{self.load_id}', {self._timestamp()}
            from (
                select {self._position} as position, subject, unnest(vault) as entry
                from checked {self._not_landed_before()} {_FITS}
            )
            where entry.value is not null
        """)

    def _hold_quarantine(self) -> None:
        self.connection.execute(f"""
            insert into pending_quarantine
            select '{self.load_id}', '{self.table.source}', '{self.table.name}', {self._at},
                reason, payload,
                {self._timestamp()}
            from checked where reason is not null
        """)

    def _on(self, alias: str, other: str = "raw") -> str:
        return " and ".join(f'{other}."{key}" = {alias}."{key}"' for key in self.table.key)

    def _timestamp(self) -> str:
        return f"timestamptz '{self.landed_at.isoformat()}'"

    def _row(self, sql: str) -> tuple[int, ...]:
        row = self.connection.execute(sql).fetchone()
        if row is None:
            raise LoadIncomplete(f"{self.table.origin}: a count gave no row")
        return row

    def _one(self, sql: str) -> int:
        return int(self._row(sql)[0])
