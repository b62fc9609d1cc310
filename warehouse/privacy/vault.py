"""The vault: personal values and free text by token, in their own encrypted database, outside the warehouse.

Ingestion writes; only `privacy` commands read. A card number is never in it.
"""

from __future__ import annotations

import duckdb

from warehouse.core.database import attach, blank_connection
from warehouse.core.keys import file_key
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.scan import Needle

ALIAS = "vault"
ENTRY_COLUMNS = """
    source varchar, table_name varchar, row_key varchar, path varchar,
    token varchar, value varchar, subject varchar,
    load_id varchar, landed_at timestamp with time zone
"""
"""One personal value of one row: where it stood, its token, the value, whose it is."""


def attach_vault(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Attach the vault as `vault`, making it when it is new (0600 in a 0700 folder)."""
    path = Home.of(settings).vault
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    attach(connection, path, ALIAS, file_key(settings, "vault"))
    path.chmod(0o600)
    connection.execute(f"create table if not exists {ALIAS}.main.entry ({ENTRY_COLUMNS})")


def store_entries(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    """Add what `relation` (columns of ENTRY_COLUMNS) holds and the vault does not; safe to repeat.

    Returns the number of entries added.
    """
    added = connection.execute(f"""
        insert into {ALIAS}.main.entry
        select distinct on (source, table_name, row_key, path, token) incoming.*
        from {relation} as incoming
        anti join {ALIAS}.main.entry as kept using (source, table_name, row_key, path, token)
        where incoming.token is not null
    """).fetchone()
    return int(added[0]) if added else 0


def subject_needles(settings: Settings, subject: str) -> list[Needle]:
    """What a search for a subject looks for: the id itself, and every value the vault holds of it.

    Raises:
        ConfigurationError: there is no vault, or it does not open.
    """
    connection = blank_connection(settings)
    try:
        attach(connection, Home.of(settings).vault, ALIAS, file_key(settings, "vault"), read_only=True)
        values = connection.execute(
            f"select distinct value from {ALIAS}.main.entry where subject = $subject and value is not null",
            {"subject": subject},
        ).fetchall()
    finally:
        connection.close()
    return [Needle("subject's id", subject, whole=True)] + [
        Needle("subject's value", value, whole=True) for (value,) in values
    ]
