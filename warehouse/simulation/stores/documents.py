"""MongoDB: the nine collections of `stripe_nosql`, written in unordered batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo import ASCENDING, IndexModel, MongoClient, ReplaceOne
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from warehouse.core.errors import SourceUnavailable

DATABASE = "stripe_nosql"
Document = dict[str, Any]

INDEXES: dict[str, list[list[str]]] = {
    "Transactions": [["transaction_id"], ["date.updated"], ["customer_id"], ["status", "amount"]],
    "country_region_codes": [["alpha2"]],
    "currency_exchange_rates": [["date", "base"]],
    "customer_feedback": [["created_at"], ["customer_id"]],
    "error_logs": [["occurred_at"]],
    "machine_learning_features": [["entity_type", "entity_id"], ["computed_at"]],
    "merchants": [["merchant_id"], ["updated_at"]],
    "products": [["product_id"], ["updated_at"]],
    "user_interactions": [["occurred_at"], ["customer_id"]],
}
"""Collection → its indexes: natural key, cursor, look-ups. None is unique: the company's own data has duplicates."""

BATCH = 2_000


class DocumentStore:
    """One client of `stripe_nosql`."""

    def __init__(self, client: MongoClient[dict[str, Any]]) -> None:
        # Journalled acknowledgement is not needed: a killed fill is emptied and filled again.
        self._database = client.get_database(DATABASE, write_concern=WriteConcern(w=1, j=False))
        self.rows: dict[str, int] = {}

    @classmethod
    @contextmanager
    def open(cls, uri: str) -> Iterator[DocumentStore]:
        """Connect with the right to write.

        Raises:
            SourceUnavailable: the server does not answer or refuses.
        """
        client: MongoClient[dict[str, Any]] = MongoClient(uri, tz_aware=True, serverSelectionTimeoutMS=10_000)
        try:
            client.admin.command("ping")
        except PyMongoError as error:
            client.close()
            raise SourceUnavailable(
                f"MongoDB cannot be filled: {type(error).__name__}",
                todo="`warehouse sources status` tells whether it runs",
            ) from None
        with client:
            yield cls(client)

    def rebuild(self) -> None:
        """Drop the nine collections with their documents and create them, empty and without indexes."""
        for name in INDEXES:
            self._database.drop_collection(name)
            self._database.create_collection(name)

    def add_indexes(self) -> None:
        """Cheaper after the load than during it."""
        for name, indexes in INDEXES.items():
            self._database[name].create_indexes(
                [IndexModel([(field, ASCENDING) for field in fields]) for fields in indexes]
            )

    def is_filled(self) -> bool:
        """Whether every collection holds something."""
        return all(self._database[name].estimated_document_count() for name in INDEXES)

    def insert(self, collection: str, documents: Sequence[Document]) -> None:
        """Append documents."""
        target = self._database[collection]
        for start in range(0, len(documents), BATCH):
            target.insert_many(documents[start : start + BATCH], ordered=False)
        self._count(collection, len(documents))

    def upsert(self, collection: str, documents: Sequence[Document]) -> None:
        """Write documents under their `_id`, whether they exist or not."""
        target = self._database[collection]
        for start in range(0, len(documents), BATCH):
            target.bulk_write(
                [
                    ReplaceOne({"_id": document["_id"]}, document, upsert=True)
                    for document in documents[start : start + BATCH]
                ],
                ordered=False,
            )
        self._count(collection, len(documents))

    def delete(self, collection: str, ids: Sequence[object]) -> None:
        """Delete documents by `_id`; absent ones are fine."""
        if ids:
            self._database[collection].delete_many({"_id": {"$in": list(ids)}})

    def _count(self, collection: str, written: int) -> None:
        if written:
            name = f"mongodb.{collection}"
            self.rows[name] = self.rows.get(name, 0) + written
