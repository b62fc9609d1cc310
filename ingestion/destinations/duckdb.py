"""dlt's DuckDB destination over a connection that we hold.

dlt opens database files itself and knows no encryption key. Here it borrows cursors of a connection on which
the encrypted warehouse is already attached, so the key never enters dlt's configuration, state or folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, AnyStr

import duckdb
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.dataset import DBApiCursor
from dlt.common.schema import Schema
from dlt.destinations import duckdb as duckdb_destination
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration, DuckDbCredentials
from dlt.destinations.impl.duckdb.duck import DuckDbClient
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.destinations.sql_client import raise_database_error

from warehouse.core.settings import CATALOG

VALUE_FREE = (duckdb.CatalogException, duckdb.BinderException, duckdb.TransactionException)
"""Errors about names and statements. Any other may quote the value that could not be stored."""


class HeldSqlClient(DuckDbSqlClient):
    """Names the attached catalog in every statement and leaves the connection's own settings alone."""

    def __init__(
        self,
        dataset_name: str,
        staging_dataset_name: str,
        credentials: DuckDbCredentials,
        capabilities: DestinationCapabilitiesContext,
    ) -> None:
        super().__init__(dataset_name, staging_dataset_name, credentials, capabilities)
        # dlt would set a 1 GB checkpoint threshold for the whole process and keep it after the load
        self._pragmas = []
        self._global_config = {}

    def catalog_name(self, quote: bool = True, casefold: bool = True) -> str:
        """The alias the warehouse is attached under."""
        name = self.capabilities.casefold_identifier(CATALOG) if casefold else CATALOG
        return self.capabilities.escape_identifier(name) if quote else name

    @contextmanager
    @raise_database_error
    def execute_query(self, query: AnyStr, *args: Any, **kwargs: Any) -> Iterator[DBApiCursor]:
        """Run one statement. dlt writes error messages to its folder, so values are taken out of them here."""
        statement = str(query).replace("%s", "?") if args else str(query)
        try:
            result = self._conn.execute(statement, args or None)
        except duckdb.Error as error:
            with suppress(duckdb.Error):
                self._conn.rollback()
            if isinstance(error, VALUE_FREE):
                raise
            raise type(error)("the database's message is withheld: it may quote a value") from None
        yield self.cursor_impl(result)  # type: ignore[arg-type]  # a connection is its own cursor


class HeldClient(DuckDbClient):
    """A job client whose statements all go through :class:`HeldSqlClient`."""

    def __init__(
        self, schema: Schema, config: DuckDbClientConfiguration, capabilities: DestinationCapabilitiesContext
    ) -> None:
        super().__init__(schema, config, capabilities)
        self.sql_client = HeldSqlClient(
            config.normalize_dataset_name(schema),
            config.normalize_staging_dataset_name(schema),
            config.credentials,
            capabilities,
        )


class HeldDuckDB(duckdb_destination):
    """The destination; build it with :func:`held_warehouse`."""

    @property
    def client_class(self) -> type[HeldClient]:
        """The job client of this destination."""
        return HeldClient

    def _raw_capabilities(self) -> DestinationCapabilitiesContext:
        capabilities = super()._raw_capabilities()
        # the raw tables exist with the pinned names: `_id` and `_row_hash` stay what they are
        capabilities.naming_convention = "direct"
        return capabilities


def held_warehouse(connection: duckdb.DuckDBPyConnection) -> HeldDuckDB:
    """A destination that loads through cursors of `connection`, which must have the warehouse attached.

    The connection stays open and stays the caller's: dlt closes only the cursors it made.
    """
    return HeldDuckDB(credentials=DuckDbCredentials(connection))
