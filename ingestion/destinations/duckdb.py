"""dlt's DuckDB destination over a connection that we hold.

dlt opens database files itself and knows no encryption key. Here it borrows cursors of a connection on which
the encrypted warehouse is already attached, so the key never enters dlt's configuration, state or folders.
"""

from __future__ import annotations

import duckdb
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.schema import Schema
from dlt.destinations import duckdb as duckdb_destination
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration, DuckDbCredentials
from dlt.destinations.impl.duckdb.duck import DuckDbClient
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient

from warehouse.core.settings import CATALOG


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
