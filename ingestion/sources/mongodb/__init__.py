"""MongoDB `stripe_nosql`."""

from ingestion.sources.mongodb.reader import MongoReader

__all__ = ["MongoReader"]
