"""Which destination a run loads into: the one that DBT_TARGET names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb

from ingestion.destinations.protocol import Destination
from ingestion.load import Channel, LandedTable, LoadResult, drain_pending, load_packages, read_state
from ingestion.schema import SourceName
from warehouse.core.progress import Progress
from warehouse.core.settings import Settings


class DuckDBDestination:
    """The encrypted warehouse file itself, loaded by dlt."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings

    def drain_pending(self, source: SourceName, progress: Progress, *, channel: Channel = "live") -> bool:
        """Finish the package that a killed run left behind."""
        return drain_pending(self._connection, self._settings, source, progress, channel=channel)

    def read_state(self, source: SourceName, *, channel: Channel = "live") -> dict[str, Any]:
        """The position committed with the last package."""
        return read_state(self._connection, self._settings, source, channel=channel)

    def load_packages(
        self,
        source: SourceName,
        landed: Sequence[LandedTable],
        state: Mapping[str, Any],
        progress: Progress,
        *,
        channel: Channel = "live",
    ) -> LoadResult:
        """Load the files and commit the state with them."""
        return load_packages(self._connection, self._settings, source, landed, state, progress, channel=channel)

    def store_operations(self) -> None:
        """Nothing to do: `raw_ops` is in this file already."""


@contextmanager
def open_destination(connection: duckdb.DuckDBPyConnection, settings: Settings) -> Iterator[Destination]:
    """The destination of this run. `connection` holds the local file, where the raw tables exist.

    Raises:
        WarehouseError: it cannot be reached, or refuses us.
    """
    if settings.dbt_target != "snowflake":
        yield DuckDBDestination(connection, settings)
        return
    # imported here: the driver takes a second to import, which a run into DuckDB need not pay
    from ingestion.destinations.snowflake import SnowflakeDestination, snowflake_session

    with snowflake_session(settings) as session:
        yield SnowflakeDestination(session, connection, settings)
