"""PostgreSQL: the nine tables, written with COPY, and the one row that remembers how far the company is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, cast

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv

from warehouse.core.errors import SourceUnavailable

TABLES: dict[str, str] = {
    "currency": "currency_code",
    "location": "location_id",
    "customer": "customer_id",
    "merchant": "merchant_id",
    "product": "product_id",
    "device": "device_id",
    "payment_method": "payment_method_id",
    "status": "status_code",
    "transaction": "transaction_id",
}
"""Table → primary key, parents before children."""

Status = Literal["filling", "advancing", "ready"]


@dataclass(frozen=True)
class State:
    """The simulation's one row. `current_day` days have been lived; `target_day` is where a run in progress ends."""

    dataset: str
    seed: int
    transactions: int
    days: int
    start_date: dt.date
    current_day: int
    target_day: int
    status: Status


class OltpStore:
    """One connection to `oltp_strip_project`; nothing is visible to others before `commit`."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.rows: dict[str, int] = {}

    @classmethod
    @contextmanager
    def open(cls, uri: str) -> Iterator[OltpStore]:
        """Connect as the owner of the schema.

        Raises:
            SourceUnavailable: the server does not answer or refuses.
        """
        try:
            connection = psycopg.connect(uri, connect_timeout=10)
        except psycopg.Error as error:
            raise SourceUnavailable(
                f"PostgreSQL cannot be filled: {type(error).__name__}",
                todo="`warehouse sources status` tells whether it runs",
            ) from None
        with connection:
            # Simulated rows can be made again, so waiting for the disk buys nothing.
            connection.execute("set synchronous_commit = off")
            connection.execute("set time zone 'UTC'")
            connection.commit()
            yield cls(connection)

    def commit(self) -> None:
        """Make everything since the last commit visible."""
        self._connection.commit()

    def rebuild_schema(self) -> None:
        """Drop the nine tables with their rows and create them without keys, ready for bulk loading."""
        self._connection.execute(f"drop table if exists {_qualified(TABLES)} cascade".encode())
        self._run_script("schema.sql")

    def add_constraints(self) -> None:
        """Keys, foreign keys and indexes: also proves that the load is coherent. Refreshes the statistics."""
        self._run_script("constraints.sql")
        self._connection.execute(f"analyze {_qualified(TABLES)}".encode())

    def copy_csv(self, table: str, csv_with_header: bytes) -> None:
        """Append rows from CSV whose header names the columns. An empty unquoted field is NULL."""
        columns = csv_with_header.split(b"\n", 1)[0].decode().strip().replace('"', "")
        statement = f"copy public.{table} ({columns}) from stdin (format csv, header match)"
        with self._connection.cursor() as cursor:
            with cursor.copy(statement.encode()) as copy:
                copy.write(csv_with_header)
            self._count(table, cursor.rowcount)

    def copy(self, table: str, rows: pa.Table) -> None:
        """Append rows whose columns are named as the table's."""
        if rows.num_rows:
            self.copy_csv(table, to_csv(rows))

    def upsert(self, table: str, rows: pa.Table) -> None:
        """Insert rows; where the key exists, take the new values."""
        if not rows.num_rows:
            return
        key = TABLES[table]
        columns = rows.column_names
        assignments = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
        names = ", ".join(columns)
        with self._connection.cursor() as cursor:
            cursor.execute(f"create temp table incoming as select {names} from public.{table} with no data".encode())
            with cursor.copy(f"copy incoming ({names}) from stdin (format csv, header match)".encode()) as copy:
                copy.write(to_csv(rows))
            cursor.execute(
                f"insert into public.{table} ({names}) select {names} from incoming"
                f" on conflict ({key}) do update set {assignments}".encode()
            )
            self._count(table, cursor.rowcount)
            cursor.execute("drop table incoming")

    def delete(self, table: str, keys: list[str]) -> None:
        """Delete rows by primary key; absent ones are fine."""
        if keys:
            statement = f"delete from public.{table} where {TABLES[table]} = any(%s)"
            self._connection.execute(statement.encode(), [keys])

    def read_state(self) -> State | None:
        """How far the company is; None for a system that was never filled."""
        self._run_script("state.sql")
        row = self._connection.execute(
            "select dataset, seed, transactions, days, start_date, current_day, target_day, status"
            " from simulation.state"
        ).fetchone()
        return State(*row) if row else None

    def write_state(self, state: State) -> None:
        """Remember how far the company is; takes part in the open transaction."""
        self._connection.execute(
            "insert into simulation.state"
            " (dataset, seed, transactions, days, start_date, current_day, target_day, status)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s)"
            " on conflict (only_row) do update set"
            " (dataset, seed, transactions, days, start_date, current_day, target_day, status, updated_at)"
            " = (excluded.dataset, excluded.seed, excluded.transactions, excluded.days, excluded.start_date,"
            " excluded.current_day, excluded.target_day, excluded.status, now())",
            [
                state.dataset,
                state.seed,
                state.transactions,
                state.days,
                state.start_date,
                state.current_day,
                state.target_day,
                state.status,
            ],
        )

    def try_lock(self) -> bool:
        """Be the only simulation on this server until the connection ends; False when another one is."""
        row = self._connection.execute("select pg_try_advisory_lock(hashtext('simulation'))").fetchone()
        self._connection.commit()
        return bool(row and row[0])

    def _run_script(self, name: str) -> None:
        script = files("warehouse.simulation").joinpath(name).read_text(encoding="utf-8")
        self._connection.execute(script.encode())

    def _count(self, table: str, written: int) -> None:
        name = f"oltp.{table}"
        self.rows[name] = self.rows.get(name, 0) + written


def to_csv(rows: pa.Table) -> bytes:
    """CSV as COPY reads it: a header, NULL as an empty unquoted field."""
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(rows, sink, pa_csv.WriteOptions(quoting_style="needed"))
    return cast(bytes, sink.getvalue().to_pybytes())


def _qualified(names: dict[str, str]) -> str:
    return ", ".join(f"public.{name}" for name in names)
