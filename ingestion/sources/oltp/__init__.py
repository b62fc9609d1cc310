"""PostgreSQL `oltp_strip_project`."""

from ingestion.sources.oltp.reader import OltpReader

__all__ = ["OltpReader"]
