"""Every way through the boundary: what incoming rows become, as SQL. Landing and reconciliation share it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import duckdb

from ingestion.boundary import NO_REASON, Boundary, compile_boundary
from ingestion.lake import sql_text
from ingestion.schema import Table
from ingestion.shapes import compile_shape
from ingestion.sources import Chunk, Piece
from ingestion.sources.json_text import is_json_sql
from ingestion.verbatim import is_clean, may_land_sql, pattern_of, skeleton_sql, verbatim_boundary

_VAULT_TYPE = "struct(path varchar, token varchar, value varchar)[]"
SAMPLE = 2_048
"""Rows that the first pattern is made from."""
MAX_KNOWN = 256
"""More have no room in a pattern."""
_KNOWN = ""
"""In the place of the skeleton of a document that the pattern matched; no document has an empty one."""


@dataclass(frozen=True)
class Treated:
    """A query of treated rows."""

    sql: str
    lands_whole: bool
    """Every row lands, and none has an undeclared key or anything for the vault."""


class Treatment:
    """The treatment of one table's rows. It may leave the temporary table `incoming` behind."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        *,
        boundary: Boundary | None = None,
        at: str | None = None,
    ) -> None:
        """Compile the treatment.

        Args:
            boundary: of the table, when the reader adds reasons of its own; default: the pinned one.
            at: SQL over an incoming row: where it stands; becomes the column `_at`. Rows do not come in pieces then.
        """
        self.connection = connection
        self.table = table
        self.boundary = boundary or compile_boundary(table)
        self._at = at
        self._verbatim = verbatim_boundary(table, self.boundary)
        self._known: list[str] = []
        """Skeletons that were judged clean, for the pattern."""
        self._pattern: str | None = None
        self._copies = bool(self.boundary.vault)
        """Whether a chunk of documents is copied at once; a table with personal values is seldom clean."""

    def sql(self, chunk: str | Chunk, *, keep: bool = True) -> str:
        """A query of treated rows: landed columns, `reason`, `payload`, `unknown`; `keep`: `vault` and `subject`."""
        return self.treated(chunk, keep=keep).sql

    def treated(self, chunk: str | Chunk, *, keep: bool = True, judge: bool = False) -> Treated:
        """The same, and what is known of the rows before it runs. May judge documents, which reads the chunk.

        `judge`: ask of rows in pieces whether any must be quarantined, too. Their checks cost little by themselves.
        """
        if isinstance(chunk, Chunk):
            parts = [self._treated_piece(piece, judge=judge) for piece in chunk.pieces]
        elif self.table.is_document:
            parts = self._treated_documents(chunk)
        else:
            parts = [self._treated(self.boundary, f"({chunk})", keep=keep)]
        return Treated(" union all ".join(part.sql for part in parts), all(part.lands_whole for part in parts))

    def _treated(self, boundary: Boundary, relation: str, *, keep: bool = True) -> Treated:
        lands_whole = (boundary.reason, boundary.unknown, boundary.vault) == (NO_REASON, "0", ())
        return Treated(treated_sql(boundary, relation, keep=keep, at=self._at), lands_whole)

    def _treated_documents(self, relation: str) -> list[Treated]:
        """Clean documents land as they came, the others are rebuilt.

        Chunks of a table are much alike. Where all documents of the last one were clean, those of the next are judged
        without being copied; otherwise the chunk is kept beside its skeletons, which are then asked for twice.
        """
        if self._pattern is None and not self._copies:
            self._judge(f"({self._skeletons(f'{relation} limit {SAMPLE}')})")
        skeletons = self._skeletons(relation)
        if self._copies:
            self.connection.execute(f"create or replace temp table incoming as {skeletons}")
        found, clean = self._judge("incoming" if self._copies else f"({skeletons})")
        if len(clean) == found:
            self._copies = False
            return [self._treated(self._verbatim, f"({relation})")]
        if not self._copies:
            self._copies = True
            self.connection.execute(f"create or replace temp table incoming as {skeletons}")
        self.connection.execute(
            "create or replace temp table clean_skeletons as select unnest($clean::varchar[]) as skeleton",
            {"clean": clean},
        )
        return [
            self._treated(self._verbatim, "(from incoming semi join clean_skeletons using (skeleton))"),
            self._treated(self.boundary, "(from incoming anti join clean_skeletons using (skeleton))"),
        ]

    def _skeletons(self, relation: str) -> str:
        """The rows with their skeleton: :data:`_KNOWN` for a known one, null for none; what is not JSON is no text.

        A value that is not JSON must not reach the boundary's JSON functions: their errors would print it.
        """
        known = f"{may_land_sql()} and regexp_full_match(doc, {sql_text(self._pattern)})" if self._pattern else "false"
        return f"""
            select * exclude (known, is_json) replace (
                case when is_json then doc end as doc,
                case when is_json then problem else coalesce(problem, 'not JSON') end as problem
            ), case when known then '{_KNOWN}' when is_json then {skeleton_sql(self.table)} end as skeleton
            from (
                select *, case when known or doc is null then true else {is_json_sql("doc")} end as is_json
                from (select *, coalesce({known}, false) as known from ({relation}))
            )
        """

    def _judge(self, skeletons: str) -> tuple[int, list[str]]:
        """How many skeletons a relation has, and those that are clean. Remembers the clean ones."""
        found = self.connection.execute(
            f"select skeleton from {skeletons} group by skeleton order by count(*) desc"
        ).fetchall()
        clean = [
            skeleton for (skeleton,) in found if skeleton == _KNOWN or (skeleton and is_clean(self.table, skeleton))
        ]
        if new := [skeleton for skeleton in clean if skeleton != _KNOWN]:
            self._known = (self._known + new)[:MAX_KNOWN]
            self._pattern = pattern_of(self._known)
        return len(found), clean

    def _treated_piece(self, piece: Piece, *, judge: bool) -> Treated:
        if piece.shape is None:
            return self._treated(self.boundary, f"({piece.relation})")
        boundary = compile_shape(self.table, piece.shape)
        if boundary is None:
            raise ValueError(f"{self.table.origin}: a shape without a boundary of its own")
        if judge and boundary.reason != NO_REASON and not boundary.vault and self._all_fit(boundary, piece):
            boundary = replace(boundary, reason=NO_REASON)
        return self._treated(boundary, f"({piece.relation})")

    def _all_fit(self, boundary: Boundary, piece: Piece) -> bool:
        misfits = f"select 1 from ({piece.relation}) where {boundary.reason} is not null limit 1"
        return self.connection.execute(misfits).fetchone() is None


def treated_sql(boundary: Boundary, relation: str, *, keep: bool = True, at: str | None = None) -> str:
    """The rows of a relation after their treatment, with what their checks found; `keep` what the vault gets.

    A select of its own for each step: DuckDB computes a name of the same select once for every use of it, and what
    stands in a CASE or a COALESCE once more. So the tokens that land and go to the vault are columns first, and the
    payload is made from the finished document.
    """
    landed = ", ".join(f'{sql} as "{name}"' for name, sql in boundary.landed)
    vault = ", ".join(
        f"{{'path': '{rule.path}', 'token': {rule.token_sql}, 'value': {rule.value_sql}}}" for rule in boundary.vault
    )
    place = f"{at} as _at," if at else ""
    kept = f"[{vault}]::{_VAULT_TYPE} as vault, {boundary.subject} as subject," if keep else ""
    shared = [rule.token_sql for rule in boundary.vault if keep and rule.token_sql in landed]
    if shared:
        for number, sql in enumerate(shared):
            landed, kept = (text.replace(sql, f"_token_{number}") for text in (landed, kept))
        named = ", ".join(f"{sql} as _token_{number}" for number, sql in enumerate(shared))
        relation = f"(select *, {named} from {relation})"
    payload = f"case when reason is not null then {boundary.payload} end as payload"
    inside, outside = payload, "*"
    if boundary.payload_reads_landed:
        inside, outside = "null::json as payload", f"* replace ({payload})"
    return f"""
        select {outside}, {boundary.unknown} as unknown from (
            select
                {landed},
                {boundary.reason} as reason, {kept} {place}
                {inside}
            from {relation}
        )
    """
