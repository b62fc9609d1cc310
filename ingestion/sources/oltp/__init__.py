"""PostgreSQL `oltp_strip_project`."""

from ingestion.sources.oltp.changes import Batch, ChangedReader, Changes, slot_health
from ingestion.sources.oltp.reader import OltpReader

__all__ = ["Batch", "ChangedReader", "Changes", "OltpReader", "slot_health"]
