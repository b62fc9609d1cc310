"""The vault: personal values and free text, each subject's under a key of its own, outside the warehouse.

Ingestion writes; only `privacy` commands read. A value is sealed before it reaches the file, so that no plain text of
it is ever in the database, whose file is encrypted besides. What names no subject gets a key per row. A card number is
never in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from warehouse.core.database import attach, blank_connection
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.keys import file_key
from warehouse.core.paths import Home
from warehouse.core.rewrite import rewrite
from warehouse.core.settings import Settings
from warehouse.privacy.subject_keys import (
    VaultDamaged,
    new_keys,
    open_keys,
    open_value,
    place_of,
    seal_values,
    wrapped_anew,
    wrapping_key,
    wrapping_key_of,
)
from warehouse.privacy.subjects import canonical_sql, canonical_subject

ALIAS = "vault"
ENTRY_COLUMNS = """
    source varchar, table_name varchar, row_key varchar, path varchar,
    token varchar, value varchar, subject varchar,
    load_id varchar, landed_at timestamp with time zone
"""
"""One personal value of one row, as landing hands it over: where it stood, its token, the value, whose it is."""

_TABLES = {
    "sealed_entry": """
        source varchar, table_name varchar, row_key varchar, path varchar, token varchar,
        owner varchar, subject varchar, sealed blob,
        load_id varchar, landed_at timestamp with time zone
    """,
    "subject_key": "owner varchar, wrapped blob, made_at timestamp with time zone",
    "hold": """
        subject varchar, ticket varchar, reason varchar,
        since timestamp with time zone, released_at timestamp with time zone
    """,
    "incident_subject": "incident varchar, subject varchar",
    "erasure": "id varchar, subject varchar, plan varchar, done varchar[], begun_at timestamp with time zone",
}
_PLACE = "source, table_name, row_key, path, token"
_OWNER_SQL = f"coalesce({canonical_sql('subject')}, 'row|' || source || '.' || table_name || '|' || row_key)"
_BATCH = 100_000


@dataclass(frozen=True)
class Entry:
    """One value of a subject, opened."""

    source: str
    table: str
    row_key: str
    path: str
    token: str
    value: str


def attach_vault(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Attach the vault as `vault`, making it when it is new (0600 in a 0700 folder).

    A vault of an earlier version, whose values were not sealed, is sealed first and its file written anew.
    """
    path = Home.of(settings).vault
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    attach(connection, path, ALIAS, file_key(settings, "vault"))
    path.chmod(0o600)
    for name, columns in _TABLES.items():
        connection.execute(f"create table if not exists {ALIAS}.main.{name} ({columns})")
    known = connection.execute(
        "select 1 from duckdb_tables() where database_name = $name and table_name = 'entry'", {"name": ALIAS}
    ).fetchone()
    if known is not None:
        store_entries(connection, f"{ALIAS}.main.entry", settings)
        connection.execute(f"drop table {ALIAS}.main.entry")
        connection.execute(f"detach {ALIAS}")
        rewrite_vault(settings)
        attach(connection, path, ALIAS, file_key(settings, "vault"))


def store_entries(connection: duckdb.DuckDBPyConnection, relation: str, settings: Settings) -> int:
    """Seal and add what `relation` (columns of ENTRY_COLUMNS) holds and the vault does not; safe to repeat.

    Returns the number of entries added.

    Raises:
        VaultDamaged: a subject's key does not open.
    """
    wrapping = wrapping_key(settings)
    connection.execute(f"""
        create or replace temp table vault_incoming as
        select distinct on ({_PLACE}) incoming.*, {_OWNER_SQL} as owner
        from {relation} as incoming
        anti join {ALIAS}.main.sealed_entry as kept using ({_PLACE})
        where incoming.token is not null and incoming.value is not null
    """)
    try:
        connection.execute("begin")
        known = connection.execute(
            f"select owner, wrapped from {ALIAS}.main.subject_key semi join vault_incoming using (owner)"
        ).fetchall()
        missing = connection.execute(
            f"select distinct owner from vault_incoming anti join {ALIAS}.main.subject_key using (owner)"
        ).fetchall()
        owners = [owner for (owner,) in missing]
        made = new_keys(wrapping, owners)
        if owners:
            fresh = pa.table({"owner": owners, "wrapped": pa.array(made, pa.binary())})  # noqa: F841  # read by name
            connection.execute(f"insert into {ALIAS}.main.subject_key select owner, wrapped, now() from fresh")
        keys = open_keys(wrapping, dict(known) | dict(zip(owners, made, strict=True)))
        added = 0
        for first in range(0, _count(connection, "vault_incoming"), _BATCH):
            batch = connection.execute(
                f"from vault_incoming where rowid >= {first} and rowid < {first + _BATCH}"
            ).to_arrow_table()
            columns = {name: batch.column(name).to_pylist() for name in (*_PLACE.split(", "), "owner", "value")}
            bound = ("owner", "source", "table_name", "row_key", "path")
            places = map(place_of, *(columns[name] for name in bound))
            sealed = pa.array(seal_values(keys, columns["owner"], places, columns["value"]), pa.binary())
            chunk = batch.append_column("sealed", sealed)  # noqa: F841  # read by name
            connection.execute(f"""
                insert into {ALIAS}.main.sealed_entry
                select {_PLACE}, owner, subject, sealed, load_id, landed_at from chunk
            """)
            added += batch.num_rows
        connection.execute("commit")
    except BaseException:
        with suppress(duckdb.Error):
            connection.execute("rollback")
        raise
    finally:
        connection.execute("drop table if exists vault_incoming")
    return added


@contextmanager
def open_vault(settings: Settings, *, read_only: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own with the vault attached.

    Raises:
        ConfigurationError: there is no vault, or its key is missing, short or another one.
        VaultDamaged: the file is damaged.
    """
    if not Home.of(settings).vault.exists():
        raise ConfigurationError("there is no vault yet", todo="run `warehouse refresh` (or `warehouse ingest`) first")
    connection = blank_connection(settings)
    try:
        if read_only:
            attach(connection, Home.of(settings).vault, ALIAS, file_key(settings, "vault"), read_only=True)
        else:
            attach_vault(connection, settings)
        yield connection
    except duckdb.Error as error:
        raise VaultDamaged(
            f"the vault cannot be read ({type(error).__name__})",
            kept="the file as it is; nothing was revealed",
            todo="restore vault/ and keys/vault.key, which belong together, from your backup",
        ) from None
    finally:
        connection.close()


def entries_of(connection: duckdb.DuckDBPyConnection, settings: Settings, owners: Sequence[str]) -> list[Entry]:
    """What the vault holds of these owners (canonical ids, or rows: `row|source.table|key`), opened.

    Raises:
        VaultDamaged: a key or a value does not open.
    """
    wrapped = connection.execute(
        f"select owner, wrapped from {ALIAS}.main.subject_key where owner in (select unnest($owners::varchar[]))",
        {"owners": list(owners)},
    ).fetchall()
    keys = open_keys(wrapping_key(settings), dict(wrapped))
    rows = connection.execute(
        f"select owner, {_PLACE}, sealed from {ALIAS}.main.sealed_entry "
        "where owner in (select unnest($owners::varchar[])) order by all",
        {"owners": list(owners)},
    ).fetchall()
    found = []
    for owner, *place, sealed in rows:
        if owner not in keys:
            raise VaultDamaged(
                "the vault is damaged: a subject has values and no key",
                kept="the vault as it is; nothing was revealed",
                todo="restore vault/ and keys/vault.key, which belong together, from your backup",
            )
        source, table, row_key, path, token = place
        value = open_value(keys[owner], sealed, place_of(owner, source, table, row_key, path))
        found.append(Entry(source, table, row_key, path, token, value))
    return found


def wrap_keys_anew(connection: duckdb.DuckDBPyConnection, database: str, old_key: str, new_key: str) -> None:
    """Wrap every subject's key in the attached vault `database` under what is derived from the vault's new key.

    Raises:
        VaultDamaged: a key does not open with the old one.
    """
    held = connection.execute(f"select owner, wrapped from {database}.main.subject_key").fetchall()
    anew = wrapped_anew(wrapping_key_of(old_key), wrapping_key_of(new_key), dict(held))
    fresh = pa.table({"owner": list(anew), "wrapped": pa.array(list(anew.values()), pa.binary())})  # noqa: F841  # by name
    connection.execute(f"""
        update {database}.main.subject_key as kept set wrapped = fresh.wrapped from fresh where kept.owner = fresh.owner
    """)


def subject_entries(settings: Settings, subject: str) -> list[Entry]:
    """Everything the vault holds of one subject, opened.

    Raises:
        UnknownSubject: it holds nothing of them.
    """
    with open_vault(settings) as connection:
        found = entries_of(connection, settings, [canonical_subject(subject)])
    if not found:
        raise UnknownSubject(
            "the vault knows no such subject",
            todo="look the id up (`warehouse query`); an erased subject has nothing left to show",
        )
    return found


class UnknownSubject(WarehouseError):
    """Nobody of this id is, or is any more, in the vault."""

    exit_code = 13


def rewrite_vault(settings: Settings) -> None:
    """Write the vault's file anew: what is deleted stays in a DuckDB file until then.

    Raises:
        WarehouseError: it could not be written; the old file stays.
    """
    rewrite(settings, Home.of(settings).vault, file_key(settings, "vault"))


def _count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    row = connection.execute(f"select count(*) from {relation}").fetchone()
    return int(row[0]) if row else 0
