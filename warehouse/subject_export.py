"""Access and portability (GDPR 15 and 20): everything that is stored of one person, as JSON and CSV, with an index.

Every raw table that names them, with the personal values of the vault in the place of tokens; their payments' events;
their addresses; and what the models made of them in the published schemas.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from ingestion.erasure import subject_sql
from ingestion.lake import sql_text
from ingestion.raw import raw_table_names
from ingestion.schema import BOOKKEEPING, Table, all_tables, position_sql
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy.holds import demand_no_hold
from warehouse.privacy.subjects import canonical_sql, checked_subject, pattern_of
from warehouse.privacy.vault import Entry, UnknownSubject, entries_of, open_vault

_HIDDEN = frozenset({name for name, _ in BOOKKEEPING} - {"_deleted_at", "_landed_at"} | {"_dlt_load_id"})
_DERIVED = ("public", "features")


@dataclass(frozen=True)
class ExportedFile:
    """One file of the export."""

    name: str
    table: str
    about: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class SubjectExport:
    """What was written."""

    folder: Path
    files: list[ExportedFile]

    @property
    def rows(self) -> int:
        """Over all tables, each counted once."""
        return sum(file.rows for file in self.files if file.name.endswith(".json"))

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: names and counts, no value."""
        return {"folder": str(self.folder), "rows": self.rows, "files": [vars(file) for file in self.files]}


def export_subject(settings: Settings, subject: str, out: Path) -> SubjectExport:
    """Write everything of a subject into a new folder (0700, files 0600). The caller holds the writer's lock.

    Raises:
        ConfigurationError: the folder exists and is not empty, or the id is none.
        OnHold: a legal hold restricts the subject.
        UnknownSubject: nothing names them.
        VaultDamaged: a key or a value of theirs does not open.
    """
    canonical = checked_subject(subject)
    demand_no_hold(settings, canonical)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError("the export's folder exists and is not empty", todo="name a new folder")
    with open_warehouse(settings, read_only=True, memory_limit=settings.memory_limit) as connection:
        tables = _raw_tables(connection, canonical)
        places = _address_places(tables)
        tables |= _of_payments(connection, tables) | _derived(connection, canonical)
    with open_vault(settings) as vault:
        entries = entries_of(vault, settings, [canonical, *(f"row|oltp.location|{place}" for place in places)])
    if not entries and not any(tables.values()):
        raise UnknownSubject("nothing names this subject", todo="look the id up (`warehouse query`)")
    _fill_in(tables, entries)
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    out.chmod(0o700)
    files = []
    for name, rows in sorted(tables.items()):
        if rows:
            about = _about(name)
            files.append(_write(out / f"{name}.json", name, about, len(rows), _json(rows)))
            files.append(_write(out / f"{name}.csv", name, about, len(rows), _csv(rows)))
    index = {
        "subject": canonical,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "regulation": "Regulation (EU) 2016/679, Articles 15 and 20",
        "formats": {"json": "UTF-8, a list of objects", "csv": "RFC 4180, UTF-8, first line names; objects as JSON"},
        "not_included": "card numbers, which are not stored; only their first and last digits are",
        "files": [vars(file) for file in files],
    }
    _write(out / "index.json", "index", "this list", len(files), json.dumps(index, indent=1, ensure_ascii=False))
    return SubjectExport(out, files)


_Rows = list[dict[str, Any]]


def _raw_tables(connection: duckdb.DuckDBPyConnection, canonical: str) -> dict[str, _Rows]:
    found: dict[str, _Rows] = {}
    for table in all_tables():
        if table.subject is None:
            continue
        mine = f"regexp_full_match({subject_sql(table)}, {sql_text(pattern_of(canonical))})"
        for name in raw_table_names(table):
            found[f"{table.raw_schema}.{name}"] = _rows(connection, table, name, mine)
    (addresses,) = (table for table in all_tables() if table.qualified == "raw_oltp.location")
    lived = {row.get("location_id") for row in found["raw_oltp.customer_history"] + found["raw_oltp.merchant_history"]}
    ids = ", ".join(sql_text(place) for place in lived if place)
    found[addresses.qualified] = _rows(connection, addresses, addresses.name, f"location_id in ({ids})") if ids else []
    return found


def _address_places(tables: dict[str, _Rows]) -> list[str]:
    return sorted({row["location_id"] for row in tables["raw_oltp.location"]})


def _of_payments(connection: duckdb.DuckDBPyConnection, tables: dict[str, _Rows]) -> dict[str, _Rows]:
    """Events name the payment, not the person."""
    payments = {row["transaction_id"] for row in tables["raw_oltp.transaction"]}
    payments |= {row["document"].get("transaction_id") for row in tables["raw_mongodb.transactions"]}
    ids = ", ".join(sql_text(payment) for payment in sorted(filter(None, payments)))
    (events,) = (table for table in all_tables() if table.source == "stream")
    named = f"json_extract_string(document, '$.transaction_id') in ({ids})"
    return {events.qualified: _rows(connection, events, events.name, named) if ids else []}


def _derived(connection: duckdb.DuckDBPyConnection, canonical: str) -> dict[str, _Rows]:
    """What the models made of them."""
    key = hashlib.md5(f"oltp|{canonical}".encode(), usedforsecurity=False).hexdigest()
    columns = connection.execute(
        """
        select schema_name, table_name, list(column_name) from duckdb_columns()
        where database_name = $catalog and schema_name in (select unnest($schemas)) group by all order by all
        """,
        {"catalog": CATALOG, "schemas": list(_DERIVED)},
    ).fetchall()
    found: dict[str, _Rows] = {}
    for schema, table, names in columns:
        conditions = []
        if "customer_key" in names:
            conditions.append(f"customer_key = {sql_text(key)}")
        if "customer_id" in names:
            conditions.append(f"{canonical_sql('customer_id')} = {sql_text(canonical)}")
        if conditions:
            found[f"{schema}.{table}"] = _fetch(
                connection, f'select * from {CATALOG}."{schema}"."{table}" where {" or ".join(conditions)}'
            )
    return found


def _rows(connection: duckdb.DuckDBPyConnection, table: Table, name: str, mine: str) -> _Rows:
    rows = _fetch(
        connection,
        f'select *, {position_sql(table)} as _position from {CATALOG}.{table.raw_schema}."{name}" where {mine}',
    )
    for row in rows:
        if table.is_document:
            row["document"] = json.loads(row["document"])
    return rows


def _fetch(connection: duckdb.DuckDBPyConnection, sql: str) -> _Rows:
    result = connection.execute(f"{sql} order by all")
    names = [column[0] for column in result.description or ()]
    return [
        {name: value for name, value in zip(names, row, strict=True) if name not in _HIDDEN}
        for row in result.fetchall()
    ]


def _fill_in(tables: dict[str, _Rows], entries: list[Entry]) -> None:
    """Put the values of the vault where their tokens stand; what fits no row goes into a table of its own."""
    by_place: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        by_place[f"raw_{entry.source}", entry.table, entry.row_key].append(entry)
    placed: set[Entry] = set()
    for name, rows in tables.items():
        schema, _, table = name.partition(".")
        for row in rows:
            position = row.pop("_position", None)
            for entry in by_place.get((schema, table.removesuffix("_history"), str(position)), ()):
                if _put(row, entry):
                    placed.add(entry)
    left = [entry for entry in entries if entry not in placed]
    tables["vault.values"] = [
        {"source": entry.source, "table": entry.table, "row": entry.row_key, "path": entry.path, "value": entry.value}
        for entry in left
    ]


def _put(row: dict[str, Any], entry: Entry) -> bool:
    if "document" not in row:
        if row.get(f"{entry.path}_token") != entry.token:
            return False
        row[entry.path] = entry.value
        return True
    *above, last = entry.path.removeprefix("$.").split(".")
    inside = row["document"]
    for step in above:
        inside = inside.get(step) if isinstance(inside, dict) else None
    if not isinstance(inside, dict) or inside.get(f"{last}_token") != entry.token:
        return False
    inside[last] = entry.value
    return True


def _about(name: str) -> str:
    schema, _, table = name.partition(".")
    if schema in _DERIVED:
        return "worked out from the records"
    if schema == "vault":
        return "personal values that belong to several records or to none of these"
    return "every version of the record" if table.endswith("_history") else "the record as it came from its source"


def _json(rows: _Rows) -> str:
    return json.dumps(rows, default=str, indent=1, ensure_ascii=False)


def _csv(rows: _Rows) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                name: json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, dict | list) else value
                for name, value in row.items()
            }
        )
    return out.getvalue()


def _write(path: Path, table: str, about: str, rows: int, text: str) -> ExportedFile:
    content = text.encode("utf-8", "surrogatepass")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return ExportedFile(path.name, table, about, rows, hashlib.sha256(content).hexdigest())
