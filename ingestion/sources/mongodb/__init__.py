"""MongoDB `stripe_nosql`."""

from ingestion.sources.mongodb.changes import Batch, ChangedReader, Changes
from ingestion.sources.mongodb.reader import MongoReader

__all__ = ["Batch", "ChangedReader", "Changes", "MongoReader"]
