"""Kafka topics."""

from ingestion.sources.stream.reader import StreamReader

__all__ = ["StreamReader"]
