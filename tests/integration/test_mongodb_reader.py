"""MongoDB: every value by its rule, cursors with lag, deletions, documents of 16 MB, ids of any type."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference
from pymongo.database import Database
from pymongo.errors import OperationFailure

from ingestion.load import read_state
from ingestion.run import SourceReport, ingest
from ingestion.schema import Table, tables
from ingestion.sources import Plan
from ingestion.sources.mongodb import MongoReader, batches
from ingestion.sources.mongodb.columns import Block
from tests.conftest import MakeSettings
from warehouse import servers
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import LoadIncomplete, SourceUnavailable
from warehouse.core.settings import Settings

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Store:
    """A MongoDB of the test's own with every pinned collection, and a warehouse beside it."""

    def __init__(self, settings: Settings, endpoints: Endpoints, database: Database[dict[str, Any]]) -> None:
        self.settings = settings
        self.endpoints = endpoints
        self.database = database

    def ingest(self, settings: Settings | None = None, **options: Any) -> SourceReport:
        return ingest(
            settings or self.settings, self.endpoints, run_id="test", sources=("mongodb",), **options
        ).sources[0]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with open_warehouse(self.settings, read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def documents(self, table: str) -> dict[str, Any]:
        found = self.rows(f"select _id, document::varchar from raw_mongodb.{table} where _deleted_at is null")
        return {identifier: json.loads(text) for identifier, text in found}


@pytest.fixture(scope="module")
def mongodb(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Endpoints]:
    settings = make_settings(tmp_path_factory.mktemp("mongodb"))
    try:
        yield servers.up(settings)
    except servers.ServerMissing as error:
        pytest.skip(error.what)
    finally:
        servers.down(settings)


@pytest.fixture
def store(mongodb: Endpoints, tmp_path: Any, make_settings: MakeSettings) -> Iterator[Store]:
    """Empty collections, an empty warehouse."""
    with MongoClient[dict[str, Any]](mongodb.mongodb_admin_uri) as client:
        client.drop_database("stripe_nosql")
        database = client["stripe_nosql"]
        for table in tables("mongodb").values():
            database.create_collection(table.origin)
        yield Store(make_settings(tmp_path / "home"), mongodb, database)


def payment(number: int, updated: Any = NOON, **values: Any) -> dict[str, Any]:
    return {"_id": bson.ObjectId(), "transaction_id": f"TX{number}", "date": {"updated": updated}, **values}


def test_every_value_lands_by_its_rule(store: Store) -> None:
    values: dict[str, tuple[Any, Any]] = {
        "double": (12.0, 12.0),
        "small": (1e-7, 1e-07),
        "int": (12, 12),
        "long": (bson.Int64(2**60 + 1), 2**60 + 1),
        "decimal": (bson.Decimal128("12.50"), "12.50"),
        "decimal_long": (bson.Decimal128("1234567890123456789012345678901.234"), "1234567890123456789012345678901.234"),
        "text": ("12.50", "12.50"),
        "nul": ("a\x00b ☕", "a\x00b ☕"),
        "nan": (float("nan"), "NaN"),
        "infinite": (float("-inf"), "-Infinity"),
        "decimal_nan": (bson.Decimal128("NaN"), "NaN"),
        "id": (bson.ObjectId("65f0c0ffee65f0c0ffee65f0"), "65f0c0ffee65f0c0ffee65f0"),
        "date": (datetime(2024, 2, 3, 4, 5, 6, 7000, UTC), "2024-02-03T04:05:06.007000Z"),
        "early": (datetime(999, 1, 2, tzinfo=UTC), "0999-01-02T00:00:00Z"),
        "beyond": (bson.datetime_ms.DatetimeMS(2**55), f"{2**55}ms"),
        "yes": (True, True),
        "none": (None, None),
    }
    documents = {name: payment(0, amount=given, status=name) for name, (given, _) in values.items()}
    store.database.Transactions.insert_many(documents.values())
    report = store.ingest()
    assert report.total("quarantined_rows") == 0
    landed = {item["status"]: item["amount"] for item in store.documents("transactions").values()}
    assert landed == {name: expected for name, (_, expected) in values.items()}
    text = dict(store.rows("select document ->> 'status', document -> 'amount' from raw_mongodb.transactions"))
    assert (text["double"], text["int"], text["decimal"]) == ("12.0", "12", '"12.50"'), "types stay told apart"


def test_what_cannot_land_is_quarantined_with_its_position(store: Store) -> None:
    collection = store.database.get_collection(
        "Transactions", codec_options=CodecOptions(document_class=RawBSONDocument)
    )
    broken = bson.encode(payment(1, status="abcd")).replace(b"abcd", b"\xff\xfe\xfd\xfc")
    identifier = bson.ObjectId()
    collection.insert_one(RawBSONDocument(broken))
    store.database.Transactions.insert_many(
        [
            {**payment(2, amount=bson.Binary(b"secret-bytes")), "_id": identifier},
            {"_id": "no transaction_id"},
            payment(3),
        ]
    )
    counts = store.ingest().tables["transactions"]
    assert (counts.source_rows, counts.landed_rows, counts.quarantined_rows) == (4, 2, 2)
    found = dict(store.rows("select reason, position from raw_ops.quarantine"))
    assert found.keys() == {"undecodable document", "missing: transaction_id"}
    landed = str(store.rows(f"select document from raw_mongodb.transactions where _id = '{identifier}'"))
    assert "v1:" in landed, "a binary where a number was declared lands as a token"
    assert "secret-bytes" not in landed
    assert base64.b64encode(b"secret-bytes").decode() not in landed
    assert found["undecodable document"] == str(_id(broken))
    assert "secret-bytes" not in str(store.rows("select payload from raw_ops.quarantine"))


def _id(raw: bytes) -> bson.ObjectId:
    """The ObjectId that a document begins with."""
    return bson.ObjectId(raw[9:21])


def test_a_document_of_16_mb_lands(store: Store) -> None:
    comment = "x" * (16 * 2**20 - 200)
    store.database.customer_feedback.insert_many([{"_id": 1, "comment": comment}, {"_id": 2, "comment": "short"}])
    counts = store.ingest().tables["customer_feedback"]
    assert counts.landed_rows == 2
    assert store.documents("customer_feedback")["1"]["comment_length"] == len(comment)


def test_many_documents_and_few_land_alike(store: Store) -> None:
    """Whether a document has company of its shape, and takes the fast way, must not show in what lands."""
    lone = payment(0, amount=1.5, signals=[{"rule": "r", "weight": 1e22}], location={"ip": "10.1.2.3"})
    store.database.Transactions.insert_one(lone)
    store.ingest()
    company = [{**lone, "_id": bson.ObjectId()} for _ in range(200)]
    store.database.Transactions.insert_many(company)
    counts = store.ingest().tables["transactions"]
    assert (counts.landed_rows, counts.unchanged_rows) == (200, 1)
    assert store.rows("select count(distinct document::varchar) from raw_mongodb.transactions") == [(1,)]


@pytest.mark.parametrize("as_text", [False, True])
def test_a_cursor_reads_its_lag_again_and_no_more(store: Store, as_text: bool) -> None:
    """Dates exactly, texts by day; what has no cursor is read every time."""
    settings = store.settings.model_copy(update={"compare_below_rows": 0, "cursor_lag_seconds": 600})

    def moment(value: datetime) -> Any:
        return value.isoformat() if as_text else value

    old, late, new = NOON - timedelta(days=9), NOON - timedelta(seconds=300), NOON
    store.database.Transactions.insert_many(
        [
            payment(1, moment(old)),
            payment(2, moment(late)),
            payment(3, moment(new)),
            payment(4, None),
            payment(5, "soon"),
        ]
    )
    assert store.ingest(settings).tables["transactions"].source_rows == 5
    store.database.Transactions.update_many({}, {"$set": {"status": "review"}})
    counts = store.ingest(settings).tables["transactions"]
    assert (counts.source_rows, counts.landed_rows) == (4, 4), "all but the one behind the lag"
    store.database.Transactions.insert_one(payment(6, moment(NOON + timedelta(days=3))))
    assert store.ingest(settings).tables["transactions"].landed_rows == 1
    counts = store.ingest(settings).tables["transactions"]
    assert (counts.source_rows, counts.landed_rows) == (3, 0), "the newest, and the two without a usable cursor"
    assert store.ingest(settings, full=True).tables["transactions"].landed_rows == 1


def test_a_deletion_is_found_by_comparison_and_undone_by_insertion(store: Store) -> None:
    document = payment(1)
    store.database.Transactions.insert_many([document, payment(2)])
    store.ingest()
    store.database.Transactions.delete_one({"_id": document["_id"]})
    assert store.ingest().tables["transactions"].deleted_rows == 1
    assert str(document["_id"]) not in store.documents("transactions")
    store.database.Transactions.insert_one(document)
    store.ingest()
    assert len(store.documents("transactions")) == 2


def test_ids_that_differ_in_type_only_are_refused(store: Store) -> None:
    """They would share a key, and one of the two would vanish."""
    store.database.Transactions.insert_many([{**payment(1), "_id": 5}, {**payment(2), "_id": "5"}])
    with pytest.raises(LoadIncomplete, match="share their key"):
        store.ingest()
    assert store.documents("transactions") == {}


def test_a_snapshot_that_the_server_gave_up_names_the_parameter(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.database.Transactions.insert_one(payment(1))

    def too_old(*_: object, **__: object) -> None:
        raise OperationFailure("read timestamp is older than the oldest", 239)

    monkeypatch.setattr("pymongo.database.Database.command", too_old)
    with pytest.raises(SourceUnavailable, match="gave up the snapshot of Transactions") as caught:
        store.ingest()
    assert "minSnapshotHistoryWindowInSeconds" in caught.value.todo


def test_every_way_of_asking_for_batches_gives_the_same_documents(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By commands of our own, batch after batch, and by pymongo's where batches may come from several servers."""
    monkeypatch.setattr(batches, "BATCH_BYTES", 20_000)
    documents = [payment(number, note="x" * (number % 97)) for number in range(3_000)]
    store.database.Transactions.insert_many(documents)
    found: list[list[bytes]] = []
    with MongoClient[dict[str, Any]](str(store.endpoints.mongodb_uri)) as client:
        for preference in (ReadPreference.PRIMARY, ReadPreference.SECONDARY_PREFERRED):
            database = client.get_database("stripe_nosql", read_preference=preference)
            with client.start_session(snapshot=True) as session:
                read = list(batches.batches(database, "Transactions", {}, session))
            assert len(read) > 1 or preference is not ReadPreference.PRIMARY
            blocks = [Block(batch) for batch in read]
            found.append([block.document(number) for block in blocks for number in range(len(block))])
    assert found[0] == found[1] == [bson.encode(document) for document in documents]


def test_a_collection_that_is_what_it_was_is_not_compared_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two sides changes, and whatever says how one becomes the other, all of it is compared."""
    documents = [payment(number, amount=number, surprise=1) for number in range(40)]
    store.database.Transactions.insert_many(documents)
    compared: list[str] = []
    chunks = MongoReader.chunks

    def noted(reader: MongoReader, table: Table, plan: Plan) -> Iterator[Any]:
        compared.append(table.name)
        yield from chunks(reader, table, plan)

    monkeypatch.setattr(MongoReader, "chunks", noted)

    def counts(**options: Any) -> tuple[int, int, int, int, bool]:
        compared.clear()
        found = store.ingest(**options).tables["transactions"]
        assert found.unknown_keys == len(documents)
        rows = (found.landed_rows, found.unchanged_rows, found.deleted_rows)
        return (*rows, found.quarantined_rows, "transactions" in compared)

    assert counts() == (40, 0, 0, 0, True)
    assert counts() == (0, 40, 0, 0, False)
    with open_warehouse(store.settings, read_only=True) as connection:
        state = read_state(connection, store.settings, "mongodb")
    assert state["transactions"]["cursor"] == NOON.isoformat()
    assert counts(full=True) == (0, 40, 0, 0, True)
    store.database.Transactions.update_one({"_id": documents[3]["_id"]}, {"$set": {"amount": 5}})
    assert counts() == (1, 39, 0, 0, True)
    assert counts() == (0, 40, 0, 0, False)
    with open_warehouse(store.settings) as connection:
        connection.execute("delete from raw_mongodb.transactions where document ->> 'transaction_id' = 'TX7'")
    assert counts() == (1, 39, 0, 0, True)
    with open_warehouse(store.settings) as connection:
        connection.execute("update raw_mongodb.transactions set _row_hash = md5('x') where document ->> 'amount' = '9'")
    assert counts() == (1, 39, 0, 0, True)
    monkeypatch.setattr("ingestion.landing.rules", lambda *_: "of another release")
    assert counts() == (0, 40, 0, 0, True)
    assert counts() == (0, 40, 0, 0, False)
    store.database.Transactions.delete_one({"_id": documents.pop(3)["_id"]})
    assert counts() == (0, 39, 1, 0, True)
    bad = store.database.Transactions.insert_one(payment(99, amount=-1, surprise=1)).inserted_id
    for _ in range(2):  # what is in quarantine may be mended by the schema as well
        assert counts() == (0, 39, 0, 1, True)
    store.database.Transactions.delete_one({"_id": bad})
    assert counts() == (0, 39, 0, 0, True)


def test_each_collection_is_read_from_one_moment(store: Store) -> None:
    """What is written between the count and the reading is of the next run."""
    store.database.Transactions.insert_many([payment(number) for number in range(3)])
    table = tables("mongodb")["transactions"]
    with (
        open_warehouse(store.settings) as connection,
        MongoReader(connection, store.settings, str(store.endpoints.mongodb_uri)) as reader,
    ):
        plan = reader.plan(table, {}, full=True)
        store.database.Transactions.insert_one(payment(9))
        read = 0
        for chunk in reader.chunks(table, plan):
            for piece in chunk.pieces:
                row = connection.execute(f"select count(*) from ({piece.relation})").fetchone()
                read += row[0] if row else 0
    assert (plan.source_rows, read) == (3, 3)
