"""The three example queries of the design, verbatim, each against the system it was written for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import tuple_row
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from warehouse.core.database import open_published
from warehouse.core.endpoints import Endpoints
from warehouse.core.settings import Settings

POSTGRES_SQL = """SELECT transaction_id, merchant_id, customer_id, amount, tax
FROM OLTP_STRIP_PROJECT.PUBLIC.Transaction
WHERE amount > 100;"""
MONGODB_FILTER: dict[str, Any] = {"amount": {"$gt": 500}, "status": "fraudulent"}
WAREHOUSE_SQL = """SELECT p.product_name, p.category, p.total_sell
FROM OLAP_STRIP_PROJECT.PUBLIC.Dim_product p
WHERE p.total_sell > 100;"""

_MONGODB_FIELDS = ("transaction_id", "customer_id", "merchant_id", "amount", "fraud_score")


@dataclass(frozen=True)
class Answer:
    """One query and its rows; `problem` instead of rows where the system did not answer."""

    system: str
    query: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    problem: str | None = None


def run_examples(settings: Settings, endpoints: Endpoints) -> list[Answer]:
    """Ask all three systems."""
    return [_postgres(endpoints), _mongodb(endpoints), _warehouse(settings)]


def _postgres(endpoints: Endpoints) -> Answer:
    system = "PostgreSQL"
    if endpoints.postgres_uri is None:
        return Answer(system, POSTGRES_SQL, (), [], "no address")
    try:
        with psycopg.connect(endpoints.postgres_uri, row_factory=tuple_row, connect_timeout=10) as connection:
            cursor = connection.execute(POSTGRES_SQL)
            columns = tuple(column.name for column in cursor.description or ())
            return Answer(system, POSTGRES_SQL, columns, cursor.fetchall())
    except psycopg.Error as error:
        return Answer(system, POSTGRES_SQL, (), [], type(error).__name__)


def _mongodb(endpoints: Endpoints) -> Answer:
    system, query = "MongoDB", 'stripe_nosql.Transactions.find({ "amount": { "$gt": 500 }, "status": "fraudulent" })'
    if endpoints.mongodb_uri is None:
        return Answer(system, query, (), [], "no address")
    try:
        with MongoClient[dict[str, Any]](endpoints.mongodb_uri, serverSelectionTimeoutMS=10_000) as client:
            found = list(client["stripe_nosql"]["Transactions"].find(MONGODB_FILTER))
    except PyMongoError as error:
        return Answer(system, query, (), [], type(error).__name__)
    rows = [tuple(document.get(name) for name in _MONGODB_FIELDS) for document in found]
    return Answer(system, query, _MONGODB_FIELDS, rows)


def _warehouse(settings: Settings) -> Answer:
    with open_published(settings) as connection:
        cursor = connection.execute(WAREHOUSE_SQL)
        columns = tuple(column[0] for column in cursor.description or ())
        return Answer("warehouse", WAREHOUSE_SQL, columns, cursor.fetchall())
