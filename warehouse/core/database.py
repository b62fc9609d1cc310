"""The only code that opens the warehouse, its published copy, the vault or the lake.

Every connection is an in-memory DuckDB with the encrypted file attached under its name, so that the same
three-part names work here, in dbt and in Snowflake.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import duckdb
from duckdb_extensions import import_extension

from warehouse.core.errors import AlreadyRunning, ConfigurationError
from warehouse.core.keys import file_key, warehouse_key
from warehouse.core.objects import know_bucket, object_folder
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings

LAKE_KEY_NAME = "lake"
"""The name under which the lake's key is known inside a connection, never its value."""


def blank_connection(
    settings: Settings, *, postgres: bool = False, memory_limit: str | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory connection with our extensions, encrypted spill files and no downloads.

    Args:
        postgres: also load the PostgreSQL scanner.
        memory_limit: DuckDB's own budget, for example "2GB".
    """
    home = Home.of(settings)
    home.extensions.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(
        ":memory:",
        config={
            "extension_directory": str(home.extensions),
            "autoinstall_known_extensions": "false",
            "temp_directory": str(home.root / "spill"),
            "temp_file_encryption": "true",
            "max_vacuum_tasks": "0",  # gaps of deleted rows: `warehouse.deleted_rows`
        },
    )
    for extension in ("httpfs", *(("postgres_scanner",) if postgres else ())):
        try:
            if not list(home.extensions.glob(f"*/*/{extension}.duckdb_extension")):
                import_extension(extension, con=connection)  # a copy for dbt, which looks for it there
            connection.execute(f"LOAD '{_wheel_file(extension)}'")
        except duckdb.Error as error:
            connection.close()
            raise ConfigurationError(
                f"DuckDB's extension {extension} cannot be used from {home.extensions} ({type(error).__name__})",
                todo="look for a full disk or a folder that cannot be written; `warehouse doctor` does",
            ) from None
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    if memory_limit:
        connection.execute("SET memory_limit = ?", [memory_limit])
    return connection


def _wheel_file(extension: str) -> Path:
    """The extension in its wheel. One file for all homes: each copy that a process loads brings its own OpenSSL."""
    module = import_module(f"duckdb_extension_{extension}")
    folder = Path(str(module.__file__)).parent / "extensions" / f"v{duckdb.__version__}"
    return folder / f"{extension}.duckdb_extension"


def attach(connection: duckdb.DuckDBPyConnection, path: Path, alias: str, key: str, *, read_only: bool = False) -> None:
    """Attach an encrypted database. A wrong key or a held file is a clear error without the key in it."""
    options = f"ENCRYPTION_KEY '{key}'" + (", READ_ONLY" if read_only else "")
    try:
        connection.execute(f"ATTACH '{path}' AS {alias} ({options})")
    except duckdb.Error as error:
        raise _attach_error(path, error) from None


def _attach_error(path: Path, error: duckdb.Error) -> Exception:
    text = str(error).lower()
    if "lock" in text:
        return AlreadyRunning(
            f"{path.name} is in use by another process",
            kept="the published warehouse stays readable",
            todo="wait for the other run to end; `warehouse status` names it",
        )
    if "key" in text or "encrypt" in text or "decrypt" in text:
        return ConfigurationError(
            f"{path.name} does not open with this key",
            kept="the file is untouched",
            todo="restore the .env and keys/ that belong to this WAREHOUSE_HOME",
        )
    if not path.exists():
        return ConfigurationError(
            f"{path.name} does not exist yet", todo="run `make refresh` (or `warehouse refresh`) first"
        )
    return ConfigurationError(f"{path.name} cannot be opened: {type(error).__name__}", kept="the file is untouched")


@contextmanager
def open_warehouse(
    settings: Settings, *, read_only: bool = False, postgres: bool = False, memory_limit: str | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The writer's database as `olap_strip_project`, with the lake's key known under the name `lake`."""
    home = Home.of(settings)
    home.root.mkdir(parents=True, exist_ok=True)
    connection = blank_connection(settings, postgres=postgres, memory_limit=memory_limit)
    try:
        attach(connection, home.warehouse, CATALOG, warehouse_key(settings), read_only=read_only)
        add_lake_key(connection, settings)
        connection.execute(f"USE {CATALOG}.main")
        yield connection
    finally:
        connection.close()


@contextmanager
def open_published(settings: Settings, *, locked_down: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """The readers' copy, read-only; with `locked_down`, no file, network or setting can be reached from SQL."""
    home = Home.of(settings)
    if not home.published.exists():
        raise ConfigurationError("nothing has been published yet", todo="run `make refresh` first")
    connection = blank_connection(settings)
    try:
        attach(connection, home.published, CATALOG, file_key(settings, "published"), read_only=True)
        connection.execute(f"USE {CATALOG}.public")
        if locked_down:
            lock_down(connection)
        yield connection
    finally:
        connection.close()


def lock_down(connection: duckdb.DuckDBPyConnection) -> None:
    """From here on no file, network, setting or extension can be reached from SQL."""
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def add_lake_key(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Let `encryption_config {footer_key: 'lake'}` work on this connection, or the lake's bucket when it is on S3."""
    if settings.lake_uri and settings.lake_uri.startswith("s3:"):
        know_bucket(connection, settings, object_folder(settings, settings.lake_uri, "LAKE_URI"))
    connection.execute(f"PRAGMA add_parquet_key('{LAKE_KEY_NAME}', '{file_key(settings, 'lake')}')")
