"""dlt's DuckDB destination over a connection that we hold.

dlt opens database files itself and knows no encryption key. Here it borrows cursors of a connection on which
the encrypted warehouse is already attached, so the key never enters dlt's configuration, state or folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, AnyStr, cast

import duckdb
from dlt.common.configuration import configspec
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.client import FollowupJobRequest, LoadJob
from dlt.common.destination.dataset import DBApiCursor
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema
from dlt.common.schema.utils import get_columns_names_with_prop, get_dedup_sort_tuple
from dlt.destinations import duckdb as duckdb_destination
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration, DuckDbCredentials
from dlt.destinations.impl.duckdb.duck import DuckDbClient
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.destinations.job_client_impl import ModelLoadJob
from dlt.destinations.sql_client import raise_database_error

from warehouse.core.settings import CATALOG

VALUE_FREE = (duckdb.CatalogException, duckdb.BinderException, duckdb.TransactionException)
"""Errors about names and statements. Any other may quote the value that could not be stored."""

HISTORY_LOAD = '"_load_id"'
"""What a history's rows are replaced by."""


@configspec(init=False)
class HeldConfiguration(DuckDbClientConfiguration):
    """A connection that is held has no address. dlt would import SQLAlchemy to write one down: half a second a run."""

    def __str__(self) -> str:
        return CATALOG


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


class JobInterrupted(Exception):
    """A job was ended by what is no error, like Ctrl-C: its cause.

    dlt keeps for itself what is not an `Exception`, and waits for the job for ever.
    """


class ReplacingModelJob(ModelLoadJob):
    """Puts a model's rows in the place of those it replaces, in one transaction: run twice, it leaves the same rows.

    That is delete-insert without dlt's staging table, which would write every row a second time. Current rows are
    replaced by key; of keys that stand twice in the model the newest wins. History has no key: the loads that the
    model holds are replaced as a whole.
    """

    def run(self) -> None:
        """Load. Raises JobInterrupted for what dlt would swallow."""
        try:
            super().run()
        except Exception:
            raise
        except BaseException as interruption:
            raise JobInterrupted from interruption

    def _insert_statement_from_select_statement(self, select_dialect: Any, select_statement: str) -> str:
        client = self._job_client.sql_client
        table = cast(TTableSchema, self._load_table)
        target = client.make_qualified_table_name(str(table["name"]))
        keys = [client.escape_column_name(name) for name in get_columns_names_with_prop(table, "primary_key")]
        replaced = " and ".join(f"kept.{key} = model.{key}" for key in keys or [HISTORY_LOAD])
        delete = (
            f"DELETE FROM {target} AS kept WHERE EXISTS (SELECT 1 FROM ({select_statement}) AS model WHERE {replaced})"
        )
        if keys and not self._load_table.get("x-stage-data-deduplicated"):
            select_statement = self._newest_only(select_statement, keys)
        insert = super()._insert_statement_from_select_statement(select_dialect, select_statement)
        # of an empty table DuckDB would still read every key of the model, to find that there is none to replace
        statements = [insert] if self._is_empty(target) else [delete, insert]
        return "; ".join(("BEGIN TRANSACTION", *statements, "COMMIT"))

    def _is_empty(self, target: str) -> bool:
        with self._job_client.sql_client.execute_query(f"SELECT 1 FROM {target} LIMIT 1") as found:
            return found.fetchone() is None

    def _newest_only(self, select_statement: str, keys: list[str]) -> str:
        """The select, limited to one row per key when a key stands there twice: sorting is not free."""
        client = self._job_client.sql_client
        by = ", ".join(keys)
        with client.execute_query(
            f"SELECT 1 FROM ({select_statement}) GROUP BY {by} HAVING count(*) > 1 LIMIT 1"
        ) as found:
            if found.fetchone() is None:
                return select_statement
        sort = get_dedup_sort_tuple(cast(TTableSchema, self._load_table))
        order = f" ORDER BY {client.escape_column_name(sort[0])} {sort[1]}" if sort else ""
        return f"{select_statement} QUALIFY row_number() OVER (PARTITION BY {by}{order}) = 1"


class HeldClient(DuckDbClient):
    """A job client whose statements all go through :class:`HeldSqlClient`, and which stages nothing."""

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

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        """Models replace; what dlt stores of itself is appended as it always is."""
        if ModelLoadJob.is_model_job(file_path):
            return ReplacingModelJob(file_path)
        return super().create_load_job(table, file_path, load_id, restore)

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Never: :class:`ReplacingModelJob` reads the lake's files in place."""
        return False

    def _create_merge_followup_jobs(self, table_chain: Sequence[PreparedTableSchema]) -> list[FollowupJobRequest]:
        return []


class HeldDuckDB(duckdb_destination):
    """The destination; build it with :func:`held_warehouse`."""

    spec: type[DuckDbClientConfiguration] = HeldConfiguration

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
