"""Great Expectations on one DuckDB connection that we hold, so that everything is computed inside DuckDB.

Great Expectations expects to open and close connections itself. Ours is in memory with an encrypted file attached:
closed, it is gone, and no connection string can describe it. So the engine below always hands out the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Type  # noqa: UP035  # `type` is a field below

import duckdb
import sqlalchemy as sa
from duckdb_engine import ConnectionWrapper
from great_expectations.compatibility import pydantic
from great_expectations.datasource.fluent.sql_datasource import SQLDatasource
from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
from sqlalchemy.pool import StaticPool


class QueryFailed(Exception):
    """A query of an expectation failed. Carries the kind of error and no message: DuckDB's quote the data."""


class HeldEngine(SqlAlchemyExecutionEngine):
    """Keeps its connection open between executing and fetching, and its errors free of values."""

    _held: sa.Connection | None = None

    @contextmanager
    def get_connection(self) -> Iterator[sa.Connection]:
        """The one connection; what fails in it is raised without its message."""
        if self._held is None:
            self._held = self.engine.connect()
        try:
            yield self._held
        except sa.exc.DBAPIError as error:
            raise QueryFailed(type(error.orig).__name__) from None

    def get_inspector(self) -> Catalogue:
        """Looks up columns of one table; SQLAlchemy's own reads the whole catalogue for each."""
        return Catalogue(self)


class Catalogue:
    """The part of SQLAlchemy's inspector that Great Expectations uses."""

    def __init__(self, engine: HeldEngine) -> None:
        self._engine = engine
        self.dialect = engine.dialect

    def get_columns(self, table_name: str, schema: str | None) -> list[dict[str, Any]]:
        """Names and types, in order."""
        rows = self._engine.execute_query(sa.text(f'describe "{schema}"."{table_name}"')).fetchall()
        return [{"name": row[0], "type": row[1]} for row in rows]

    def get_pk_constraint(self, table_name: str, schema: str | None) -> dict[str, list[str]]:
        """None: neither landed nor published tables have any."""
        return {"constrained_columns": []}


class HeldDuckDBDatasource(SQLDatasource):
    """One schema of the database that is attached to the held connection."""

    type: Literal["duckdb_held"] = "duckdb_held"  # type: ignore[assignment]  # how every GX datasource names its type
    connection_string: str = "duckdb:///:memory:"
    """Never opened: `hold` gives the connection."""
    database_schema: str
    _held_connection: duckdb.DuckDBPyConnection | None = pydantic.PrivateAttr(None)

    def hold(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Use this connection for every query; whoever opened it closes it."""
        self._held_connection = connection

    @property
    def schema_(self) -> str | None:
        """Where the tables of this datasource are."""
        return self.database_schema

    @property
    def execution_engine_type(self) -> Type[SqlAlchemyExecutionEngine]:  # noqa: UP006  # `type` is a field here
        """The engine that holds."""
        return HeldEngine

    def _create_engine(self) -> sa.Engine:
        connection = self._held_connection
        if connection is None:
            raise RuntimeError("call hold() before the datasource is used")
        return sa.create_engine(self.connection_string, poolclass=StaticPool, creator=lambda: _Borrowed(connection))

    def get_execution_engine(self) -> SqlAlchemyExecutionEngine:
        """One engine for all suites of this schema; it writes nothing, not even temporary tables."""
        if not self._execution_engine:
            self._execution_engine = HeldEngine(engine=self.get_engine(), create_temp_table=False)
        return self._execution_engine


class _Borrowed(ConnectionWrapper):
    """A connection that SQLAlchemy may use but not close: the datasources of several schemas share it.

    Nor may it open transactions on it, for the same reason: one failed query would fail all that follow.
    """

    def begin(self) -> None:
        """Stay in autocommit: the database is attached read-only."""

    def commit(self) -> None:
        """Nothing was begun."""

    def rollback(self) -> None:
        """Nothing was begun."""

    def close(self) -> None:
        """Leave it open for the other schemas."""
