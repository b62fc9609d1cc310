"""The three source systems as the simulation writes them: set-based, batched, nothing read back."""

from __future__ import annotations

from dataclasses import dataclass

from warehouse.simulation.stores.documents import DocumentStore
from warehouse.simulation.stores.oltp import OltpStore
from warehouse.simulation.stores.stream import StreamStore


@dataclass(frozen=True)
class Stores:
    """The three systems, open. The document store and the stream are None where they are not ours to fill."""

    oltp: OltpStore
    documents: DocumentStore | None
    stream: StreamStore | None

    def rows(self) -> dict[str, int]:
        """Rows written so far, by system and name."""
        rows = dict(self.oltp.rows)
        if self.documents is not None:
            rows |= self.documents.rows
        if self.stream is not None:
            rows |= self.stream.rows
        return rows

    def are_filled(self) -> bool:
        """Whether the systems that keep no state of their own still hold their data."""
        return (self.documents is None or self.documents.is_filled()) and (
            self.stream is None or self.stream.is_filled()
        )
