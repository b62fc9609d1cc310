"""What a landing run needs of the place it loads into. DuckDB is the default; Snowflake keeps the same promises.

The promises: current rows are replaced by key, history is appended, and the position in the source is committed in
the same transaction as the rows it belongs to. Killed anywhere, the next run goes on from the last committed package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ingestion.load import Channel, LandedTable, LoadResult
    from ingestion.schema import SourceName
    from warehouse.core.progress import Progress


class Destination(Protocol):
    """One open warehouse, for the time of one run."""

    def drain_pending(self, source: SourceName, progress: Progress, *, channel: Channel = "live") -> bool:
        """Put in order what a killed run left behind; True when there was something and it is now loaded."""
        ...

    def read_state(self, source: SourceName, *, channel: Channel = "live") -> dict[str, Any]:
        """The position committed with the last complete package of a source's channel; empty before the first."""
        ...

    def load_packages(
        self,
        source: SourceName,
        landed: Sequence[LandedTable],
        state: Mapping[str, Any],
        progress: Progress,
        *,
        channel: Channel = "live",
    ) -> LoadResult:
        """Load sealed lake files and commit `state` with them, all or nothing."""
        ...

    def store_operations(self) -> None:
        """Bring what the run wrote down about itself (`raw_ops`) to where dbt reads it."""
        ...
