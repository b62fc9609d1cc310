"""Kafka topics."""

from ingestion.sources.stream.reader import StreamReader, Topics

__all__ = ["StreamReader", "Topics"]
