"""Snowflake as the destination: the same sealed lake files, the same promises, one transaction per package.

A package is staged first (decrypted in memory, sent to a temporary internal stage, copied into temporary tables;
from a lake on S3 an external stage is read instead). Then one transaction replaces the current rows, appends the
history, moves the position of the source and writes the loads into the ledger. Whatever dies before its commit
leaves nothing: temporary objects end with the session, and an open transaction is rolled back.

Three rules:

* **Nothing is loaded twice.** A load whose id is in the ledger is left out; the position moves only from the package
  that was read at the start, so of two writers the second is refused.
* **No plain copy on disk.** Parquet parts exist in memory, one at a time, and are encrypted by the driver on upload.
* **No value in a statement.** Load ids and positions are bound; errors name the step and Snowflake's error number,
  because its messages may quote the value that did not fit.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import duckdb
import pyarrow.parquet
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from snowflake.connector.errors import DatabaseError, Error, ForbiddenError, ProgrammingError

from ingestion.destinations import snowflake_sql as sql
from ingestion.destinations.comparison import Comparison
from ingestion.lake import LakePath, parts_sql, sql_text
from ingestion.load import Channel, LandedTable, LoadResult, check_files
from ingestion.raw import ADDED_COLUMNS, DLT_COLUMNS, raw_table_names
from ingestion.schema import SourceName, Table, all_tables
from warehouse.core.errors import ConfigurationError, LoadIncomplete, WarehouseError
from warehouse.core.progress import Progress
from warehouse.core.settings import CATALOG, Settings

PART_BYTES = 64 * 2**20
"""A part is sent once it holds this much Parquet: memory stays flat however large a load is."""

BATCH_ROWS = 16_384

ANSWER_SECONDS = 600
"""How long the driver tries again when Snowflake answers with an error of its own, or not at all."""

LOCK_SECONDS = 900
"""How long a statement waits for another writer before it gives up; a killed run's transaction ends sooner."""

APPENDED = {
    "load_manifest": ("finished_at", ("load_id", "source", "table_name")),
    "run_steps": ("finished_at", ("run_id",)),
    "access_audit": ("event_at", ("event_system", "event_uid")),
}
"""Tables of `raw_ops` that only grow → their moment, and the columns that name what is brought over as a whole."""

REPLACED = "quarantine"
"""The table of `raw_ops` whose entries change (they are resolved): brought over whole, when it differs."""


class Session:
    """One Snowflake session. Statements go through :meth:`run`, which turns errors into ours."""

    def __init__(self, connection: snowflake.connector.SnowflakeConnection) -> None:
        self._connection = connection

    def run(
        self, statement: str, parameters: Sequence[Any] = (), *, step: str, stream: BinaryIO | None = None
    ) -> list[tuple[Any, ...]]:
        """Execute one statement with its bound values and return its rows.

        Args:
            step: what this is for, in the words of an error message.
            stream: the bytes that a `put` uploads.

        Raises:
            LoadIncomplete: Snowflake refused the statement.
            WarehouseError: Snowflake does not answer.
        """
        options: dict[str, Any] = {"file_stream": stream} if stream is not None else {}
        with _explained(step), self._connection.cursor() as cursor:
            cursor.execute(statement, list(parameters) or None, **options)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def close(self) -> None:
        """End the session, and with it what was temporary. Losing it on the way out loses nothing."""
        with suppress(Error, OSError):
            self._connection.close()


@contextmanager
def snowflake_session(settings: Settings) -> Iterator[Session]:
    """A session of the account in the settings, by key pair, over TLS.

    Raises:
        ConfigurationError: a setting is missing, the private key cannot be used, or Snowflake refuses it.
        WarehouseError: Snowflake cannot be reached.
    """
    session = Session(_connect(settings))
    try:
        yield session
    finally:
        session.close()


class SnowflakeDestination:
    """The raw tables in Snowflake, and beside them the local tables that landing compares with."""

    def __init__(self, session: Session, connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
        self._session = session
        self._connection = connection
        self._lake_stage = settings.snowflake_lake_stage
        self._comparison = Comparison(connection, settings)
        self._create_missing()

    def drain_pending(self, source: SourceName, progress: Progress, *, channel: Channel = "live") -> bool:
        """Bring the local tables up to what Snowflake holds: all that a killed run can leave behind, on any channel.

        Raises:
            LoadIncomplete: the lake lacks a load that Snowflake holds.
        """
        return self._comparison.follow(source, self._ledger(source), progress)

    def read_state(self, source: SourceName, *, channel: Channel = "live") -> dict[str, Any]:
        """The position committed with the last package."""
        return self._committed(_position_name(source, channel))[1]

    def load_packages(
        self,
        source: SourceName,
        landed: Sequence[LandedTable],
        state: Mapping[str, Any],
        progress: Progress,
        *,
        channel: Channel = "live",
    ) -> LoadResult:
        """Load the files of `landed` and commit `state` with them, in one transaction.

        A load that the ledger holds is left out. With nothing new only a changed state is stored.

        Raises:
            ConfigurationError: the lake's key does not open the files.
            LoadIncomplete: a file is missing or not what was landed, Snowflake refused a statement, or another
                writer moved the position meanwhile. Nothing of the package is loaded then.
        """
        started = time.perf_counter()
        position = json.loads(json.dumps(state))
        name = _position_name(source, channel)
        follows, committed = self._committed(name)
        ledger = self._ledger(source)
        new = [entry for entry in landed if (entry.table.name, entry.load_id) not in ledger]
        if not new and committed == position:
            return LoadResult(None)
        for entry in new:
            check_files(self._connection, entry)
        package = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
        if new:
            progress(f"{source}: loading {len(new)} tables, {sum(entry.rows for entry in new):,} rows into Snowflake")
        for entry in new:
            self._stage(entry)
        self._commit(source, name, new, package, follows, position)
        for entry in new:
            self._session.run(sql.drop_staging(_staging(entry.table)), step="tidying up")
        self._comparison.follow(source, self._ledger(source), lambda _: None)
        return LoadResult(package, {entry.table.name: entry.rows for entry in new}, time.perf_counter() - started)

    def store_operations(self) -> None:
        """Bring over what is new in the local `raw_ops` tables."""
        for name, (moment, unit) in APPENDED.items():
            columns = self._operations(name)
            local = f"{CATALOG}.raw_ops.{name}"
            newest, there = self._session.run(sql.newest_operation(name, moment), step=f"raw_ops.{name}")[0]
            since = sql_text(newest.isoformat() if newest else "-infinity") + "::timestamptz"
            here = self._connection.execute(f"select count(*) from {local} where {moment} <= {since}").fetchone()
            if here != (there,):  # something older than what is there has come late, as Snowflake's own history does
                since = "'-infinity'::timestamptz"
            query = f"select * from {local} where {moment} >= {since}"
            staging = sql.staging_name("raw_ops", name)
            rows = self._send(staging, columns, query)
            if rows:
                self._copy(staging, columns, rows)
                self._session.run(sql.add_operations(name, columns, unit, staging), step=f"raw_ops.{name}")
            self._session.run(sql.drop_staging(staging), step="tidying up")
        self._replace_quarantine()

    def _replace_quarantine(self) -> None:
        local = f"{CATALOG}.raw_ops.{REPLACED}"
        here = self._connection.execute(f"select count(*), count(resolved_at), max(load_id) from {local}").fetchall()
        if here == self._session.run(sql.digest_of_quarantine(REPLACED), step=f"raw_ops.{REPLACED}"):
            return
        columns, staging = self._operations(REPLACED), sql.staging_name("raw_ops", REPLACED)
        rows = self._send(staging, columns, f"select * from {local}")
        if rows:
            self._copy(staging, columns, rows)
        with self._transaction(f"raw_ops.{REPLACED}"):
            for statement in sql.replace_operations(REPLACED, columns, staging):
                self._session.run(statement, step=f"raw_ops.{REPLACED}")
        self._session.run(sql.drop_staging(staging), step="tidying up")

    def _operations(self, name: str) -> tuple[tuple[str, str], ...]:
        """Name and type of the columns of a `raw_ops` table."""
        rows = self._connection.execute(f"describe {CATALOG}.raw_ops.{name}").fetchall()
        return tuple((column, sql_type.lower()) for column, sql_type, *_ in rows)

    # -- what exists ---------------------------------------------------------------------------------------------

    def _create_missing(self) -> None:
        """Create schemas and raw tables that are missing; of what exists, only `raw_ops` gains columns."""
        found = self._session.run(sql.EXISTING_TABLES, step="reading what exists")
        existing = {(str(schema).upper(), str(name).upper()) for schema, name in found}
        missing: dict[str, list[str]] = {}
        for name, ddl in sql.BOOKKEEPING_DDL.items():
            if (sql.OPS, name) not in existing:
                missing.setdefault(sql.OPS, []).append(ddl)
        for table in all_tables():
            for name in raw_table_names(table):
                if (table.raw_schema.upper(), name.upper()) not in existing:
                    columns = (*table.landed_columns, *DLT_COLUMNS)
                    ddl = sql.create_table(table.raw_schema, name, columns)
                    missing.setdefault(table.raw_schema, []).append(ddl)
        for name in (*APPENDED, REPLACED):
            if (sql.OPS, name.upper()) not in existing:
                missing.setdefault(sql.OPS, []).append(sql.create_table("raw_ops", name, self._operations(name)))
        for name, column in ADDED_COLUMNS:
            if (sql.OPS, name.upper()) in existing:
                self._session.run(
                    sql.add_column("raw_ops", name, *column.split(" ", 1)), step=f"adding a column to raw_ops.{name}"
                )
        for schema, statements in missing.items():
            for statement in (sql.create_schema(schema), *statements):
                self._session.run(statement, step=f"creating what is missing of {schema.lower()}")
        self._session.run(f'use schema "{sql.OPS}"', step="opening raw_ops")

    def _committed(self, name: str) -> tuple[str, dict[str, Any]]:
        """Id of the last package that moved a position ('' before the first), and the position."""
        self._session.run(sql.FIRST_STATE, (name,), step="preparing the position")
        rows = self._session.run(sql.READ_STATE, (name,), step="reading the position")
        if len(rows) != 1:
            raise LoadIncomplete(
                f"Snowflake holds {len(rows)} positions of {name}, not one",
                kept="everything loaded before; nothing was read",
                todo=f"keep the newest row of {name} in raw_ops.landed_state and delete the others",
            )
        package, state = rows[0]
        return package, json.loads(state)

    def _ledger(self, source: SourceName) -> set[tuple[str, str]]:
        rows = self._session.run(sql.READ_LEDGER, (source,), step="reading the ledger")
        return {(name, load_id) for name, load_id in rows}

    # -- staging -------------------------------------------------------------------------------------------------

    def _stage(self, entry: LandedTable) -> None:
        table, staging = entry.table, _staging(entry.table)
        if self._lake_stage:
            table_ddl, _ = sql.create_staging(staging, table.landed_columns)
            self._session.run(table_ddl, step=f"staging {table.qualified}")
            folder = f"{self._lake_stage}/{table.source}/{table.name}/{entry.load_id}/"
            files = [path.name for path in entry.files]
            self._copy(staging, table.landed_columns, entry.rows, location=folder, files=files)
            return
        rows = self._send(staging, table.landed_columns, _select(table, entry.files))
        if rows != entry.rows:
            raise _refused(table.qualified, "the lake files do not hold the rows that were counted")
        self._copy(staging, table.landed_columns, rows)

    def _send(self, staging: str, columns: sql.Columns, query: str) -> int:
        """Send a query's rows to a fresh temporary stage as Parquet parts; returns how many there were."""
        for statement in sql.create_staging(staging, columns):
            self._session.run(statement, step=f"preparing {staging.lower()}")
        rows = 0
        with _explained_locally(staging):
            for number, (part, part_rows) in enumerate(_parts(self._connection, query)):
                self._session.run(sql.put(staging, number), step=f"sending {staging.lower()}", stream=part)
                rows += part_rows
        return rows

    def _copy(
        self, staging: str, columns: sql.Columns, rows: int, *, location: str = "", files: Sequence[str] = ()
    ) -> None:
        step = f"copying {staging.lower()}"
        self._session.run(sql.copy(staging, columns, location=location, files=files), step=step)
        arrived = self._session.run(sql.count(staging), step=step)
        if arrived != [(rows,)]:
            raise _refused(staging.lower(), "Snowflake did not receive the rows that were sent")

    # -- the transaction -----------------------------------------------------------------------------------------

    def _commit(
        self, source: SourceName, name: str, new: Sequence[LandedTable], package: str, follows: str, position: Any
    ) -> None:
        run = self._session.run
        with self._transaction("the package"):
            # first, because it makes any other writer of this source wait until this transaction has ended
            moved = run(sql.MOVE_STATE, (package, json.dumps(position), name, follows), step="moving the position")
            if not moved or int(moved[0][0]) != 1:
                raise LoadIncomplete(
                    f"{source}: another writer loaded into Snowflake since this run began",
                    kept="what it loaded; nothing of this package",
                    todo="run `warehouse ingest` again: it goes on from the new position",
                )
            for entry in new:
                staging = _staging(entry.table)
                for statement, ids in (
                    *sql.replace_current(entry.table, staging, late_rows=bool(entry.late_rows)),
                    *sql.append_history(entry.table, staging),
                ):
                    run(statement, (package,) * ids, step=f"loading {entry.table.qualified}")
                ledger_row = (source, entry.table.name, entry.load_id, package, entry.rows)
                run(sql.ADD_TO_LEDGER, ledger_row, step="writing the ledger")

    @contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        """Everything inside, or nothing. DDL would commit what stands before it: there must be none."""
        self._session.run("begin", step=f"beginning {what}")
        try:
            yield
            self._session.run("commit", step=f"committing {what}")
        except BaseException:
            with suppress(WarehouseError):
                self._session.run("rollback", step=f"rolling back {what}")
            raise


def _staging(table: Table) -> str:
    return sql.staging_name(table.raw_schema, table.name)


def _position_name(source: SourceName, channel: Channel) -> str:
    return source if channel == "live" else f"{channel}_{source}"


def _select(table: Table, files: Sequence[LakePath]) -> str:
    names = ", ".join(f'"{name}"' for name, _ in table.landed_columns)
    return f"select {names} from {parts_sql(files)}"


def _parts(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[io.BytesIO, int]]:
    """The rows of a query as Parquet in memory, cut into parts of about PART_BYTES, with the rows in each."""
    described = connection.execute(f"describe {query}").fetchall()
    # JSON as plain text: Arrow would carry it as an extension type that Parquet readers need not know
    columns = ", ".join(
        f'"{row[0]}"::varchar as "{row[0]}"' if row[1] == "JSON" else f'"{row[0]}"' for row in described
    )
    batches = connection.execute(f"select {columns} from ({query})").to_arrow_reader(BATCH_ROWS)
    part, rows = io.BytesIO(), 0
    writer = pyarrow.parquet.ParquetWriter(part, batches.schema)
    for batch in batches:
        writer.write_batch(batch)
        rows += batch.num_rows
        if part.tell() >= PART_BYTES:
            writer.close()
            yield _rewound(part), rows
            part, rows = io.BytesIO(), 0
            writer = pyarrow.parquet.ParquetWriter(part, batches.schema)
    writer.close()
    if rows:
        yield _rewound(part), rows


def _rewound(part: io.BytesIO) -> io.BytesIO:
    part.seek(0)
    return part


def _connect(settings: Settings) -> snowflake.connector.SnowflakeConnection:
    needed = {
        "SNOWFLAKE_ACCOUNT": settings.snowflake_account,
        "SNOWFLAKE_USER": settings.snowflake_user,
        "SNOWFLAKE_PRIVATE_KEY_PATH": settings.snowflake_private_key_path,
    }
    if missing := [name for name, value in needed.items() if not value]:
        raise ConfigurationError(f"the target is Snowflake, but {', '.join(missing)} is not set", todo="set it in .env")
    address = urlsplit(settings.snowflake_url or "")
    where = (
        {"host": address.hostname, "port": address.port or 443, "protocol": address.scheme} if address.hostname else {}
    )
    try:
        return snowflake.connector.connect(
            account=settings.snowflake_account,
            user=settings.snowflake_user,
            private_key=_private_key(settings),
            authenticator="SNOWFLAKE_JWT",
            role=settings.snowflake_role,
            warehouse=settings.snowflake_warehouse,
            database=CATALOG.upper(),
            paramstyle="qmark",
            login_timeout=30,
            network_timeout=ANSWER_SECONDS,
            platform_detection_timeout_seconds=0,
            session_parameters={
                "TIMEZONE": "UTC",  # an instant keeps its meaning whatever the account's default is
                "LOCK_TIMEOUT": LOCK_SECONDS,
                "QUERY_TAG": "payments_warehouse",
                "CLIENT_TELEMETRY_ENABLED": False,
            },
            **where,
        )
    except (ForbiddenError, ProgrammingError, DatabaseError) as error:
        if _is_unreachable(error):
            raise _unreachable(error) from None
        raise ConfigurationError(
            f"Snowflake refuses this user, role or key ({_number(error)})",
            kept="everything landed and loaded before",
            todo="compare SNOWFLAKE_ACCOUNT, _USER and _ROLE and the user's RSA_PUBLIC_KEY with the private key",
        ) from None
    except (Error, OSError) as error:
        raise _unreachable(error) from None


def _private_key(settings: Settings) -> bytes:
    """The private key in the form the driver takes, decrypted in memory only."""
    secret = settings.dbt_env_secret_snowflake_passphrase
    password = secret.get_secret_value().encode() if secret and secret.get_secret_value() else None
    path = settings.snowflake_private_key_path or Path()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password)
    except (OSError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the key at SNOWFLAKE_PRIVATE_KEY_PATH cannot be used ({type(error).__name__})",
            todo="it is a PKCS#8 PEM file; its passphrase is DBT_ENV_SECRET_SNOWFLAKE_PASSPHRASE",
        ) from None
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@contextmanager
def _explained(step: str) -> Iterator[None]:
    try:
        yield
    except (Error, OSError) as error:
        if not isinstance(error, ProgrammingError) and _is_unreachable(error):
            raise _unreachable(error) from None
        raise _refused(step, f"Snowflake refused the statement ({_number(error)})") from None


@contextmanager
def _explained_locally(staging: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise _refused(staging.lower(), f"the rows cannot be read ({type(error).__name__})") from None


def _is_unreachable(error: BaseException) -> bool:
    return not isinstance(error, DatabaseError) or str(getattr(error, "errno", "")).startswith(("2500", "2510", "2900"))


def _number(error: BaseException) -> str:
    return f"{type(error).__name__} {getattr(error, 'errno', None) or ''}".strip()


def _unreachable(error: BaseException) -> WarehouseError:
    return WarehouseError(
        f"Snowflake does not answer ({_number(error)})",
        kept="the sealed files in the lake; no position moved unless the package was already committed",
        todo="check the network, SNOWFLAKE_ACCOUNT and SNOWFLAKE_URL; then run `warehouse ingest` again",
    )


def _refused(what: str, problem: str) -> LoadIncomplete:
    return LoadIncomplete(
        f"{what}: {problem}",
        kept="everything loaded before and the sealed files in the lake; nothing of this package",
        todo="look the number up in Snowflake's query history (tag payments_warehouse), then run "
        "`warehouse ingest` again: it reads from the last committed position",
    )
