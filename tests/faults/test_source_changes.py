"""What sources do to a loader: late, equal, repeated, reordered, deleted and reshaped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.faults.world import World
from warehouse.core.errors import LoadIncomplete, SchemaDrift


def test_a_commit_behind_the_cursor(world: World) -> None:
    """A transaction that began first and commits last: its rows are older than the cursor when they appear."""
    naive = world.naive()
    settings = world.by_cursor()
    with psycopg.connect(str(world.endpoints.postgres_admin_uri)) as late:
        late.execute(
            "insert into transaction select 'LATE' || gen_random_uuid(), merchant_id, customer_id, payment_method_id,"
            " product_id, quantity, device_id, location_id, currency_code, amount, tax, status_code, created_at,"
            " clock_timestamp() from transaction, generate_series(1, 20) where transaction_id = 'TXN001'"
        )
        world.add_payments(30)
        world.ingest("oltp", settings=settings)
        naive.run()
        late.commit()
    world.ingest("oltp", settings=settings)
    naive.run()
    world.assert_whole("oltp")
    assert naive.differences == 20


@pytest.mark.slow
def test_a_commit_further_behind_than_the_lag_is_found_by_comparison(world: World) -> None:
    naive = world.naive()
    world.add_payments(5, updated_at="timestamptz '2024-01-01 00:00:00+00'")
    world.ingest("oltp", settings=world.by_cursor())
    assert world.reconcile("oltp").differences > 0, "reconciliation must see what the lag did not cover"
    world.ingest("oltp", settings=world.by_cursor(), full=True)
    naive.run()
    world.assert_whole("oltp")
    assert naive.differences == 5


def test_an_update_that_shares_the_cursor_value(world: World) -> None:
    moment = world.ask("select clock_timestamp()")[0].isoformat()
    prefix = world.add_payments(40, updated_at=f"timestamptz '{moment}'")
    naive = world.naive()
    settings = world.by_cursor()
    world.ingest("oltp", settings=settings)
    world.sql(f"update transaction set amount = amount + 7 where transaction_id like '{prefix}%2'")
    world.add_payments(3, updated_at=f"timestamptz '{moment}'")
    world.ingest("oltp", settings=settings)
    naive.run()
    world.assert_whole("oltp")
    assert naive.differences >= 3


def test_a_hard_delete_and_a_reinsert(world: World) -> None:
    prefix = world.add_payments(30)
    naive = world.naive()
    world.ingest("oltp")
    world.sql(f"delete from transaction where transaction_id like '{prefix}%'")
    assert world.ingest("oltp").sources[0].total("deleted_rows") == 30
    naive.run()
    world.assert_whole("oltp")
    assert naive.differences == 30

    world.sql(
        f"insert into transaction select '{prefix}1', merchant_id, customer_id, payment_method_id, product_id,"
        " quantity, device_id, location_id, currency_code, 999, tax, status_code, created_at, timestamptz '2024-01-02'"
        " from transaction where transaction_id = 'TXN001'"
    )
    world.ingest("oltp")
    naive.run()
    world.assert_whole("oltp")
    history = f"select count(*) from raw_oltp.transaction_history where transaction_id = '{prefix}1'"
    assert world.row(history) == (3,), "landed, deleted, landed again"
    assert naive.differences > 0


@pytest.mark.slow
def test_a_delete_between_two_runs_by_cursor_is_found_by_comparison(world: World) -> None:
    prefix = world.add_payments(30)
    naive = world.naive()
    world.ingest("oltp", settings=world.by_cursor())
    world.sql(f"delete from transaction where transaction_id like '{prefix}%'")
    world.ingest("oltp", settings=world.by_cursor())
    found = {table.table: table.surplus_rows for table in world.reconcile("oltp").tables if table.differences}
    assert found == {"transaction": 30}
    world.ingest("oltp", full=True, settings=world.by_cursor())
    naive.run()
    world.assert_whole("oltp")
    assert naive.differences == 30


def test_a_truncated_table_stops_and_can_be_accepted(world: World) -> None:
    naive = world.naive()
    before = world.row("select count(*) from raw_oltp.transaction where _deleted_at is null")
    world.sql("create table kept as table transaction", "truncate transaction")
    try:
        with pytest.raises(LoadIncomplete, match="are gone at the source"):
            world.ingest("oltp")
        assert world.row("select count(*) from raw_oltp.transaction where _deleted_at is null") == before
        world.ingest("oltp", accept_deletes=True)
        naive.run()
        assert world.reconcile("oltp").differences == 0
        assert naive.differences == before[0]
    finally:
        world.sql("insert into transaction table kept", "drop table kept")
    world.ingest("oltp")
    world.assert_whole("oltp")


def test_duplicate_and_reordered_deliveries(world: World) -> None:
    """The same event twice, and events older than those before them: every offset is kept, in its place."""
    naive = world.naive_events()
    event = {"schema_version": 1, "event_type": "payment.captured", "transaction_id": "TXN001", "amount": "2.50"}
    messages = [json.dumps(event | {"event_id": f"again-{n % 10}"}).encode() for n in range(30)]
    times = [1_700_000_000_000 - n * 1000 for n in range(30)]
    world.produce(*messages, partition=2, times=times)
    assert world.ingest("stream").landed_rows == 30
    naive.run()
    world.assert_whole("stream")
    same = "json_extract_string(document, '$.event_id') = 'again-3'"
    assert world.row(f"select count(*) from raw_stream.payments_transactions where {same}")[0] >= 3
    assert naive.differences >= 30, "by event time, all of them are old"


@pytest.mark.slow
def test_one_unread_message_is_read_and_an_unknown_event_lands(world: World) -> None:
    naive = world.naive_events()
    world.produce(
        b'{"schema_version": 99, "event_type": "from.the.future", "who": "nobody"}', times=[1_600_000_000_000]
    )
    report = world.ingest("stream").sources[0]
    assert (report.total("landed_rows"), report.total("unknown_keys")) == (1, 1)
    naive.run()
    world.assert_whole("stream")
    assert naive.differences == 1


# -- another shape ----------------------------------------------------------------------------------------------


@contextmanager
def reshaped(world: World, change: str, back: str) -> Iterator[None]:
    world.sql(change)
    try:
        yield
    finally:
        world.sql(back)


@pytest.mark.slow
def test_an_added_column_is_told_and_lands_nothing_else(world: World) -> None:
    naive = world.naive()
    with reshaped(
        world,
        "alter table transaction add column channel text default 'web'",
        "alter table transaction drop column channel",
    ):
        world.add_payments(10)
        report = world.ingest("oltp").sources[0]
        assert report.alerts == ["transaction.channel is new at the source and does not land"]
        assert report.tables["transaction"].landed_rows == 10
        naive.run()
        world.assert_whole("oltp")
        assert naive.differences > 10, "rows loaded before do not have the column"


@pytest.mark.parametrize(
    ("change", "back", "problem"),
    [
        (
            "alter table product drop column category",
            "alter table product add column category text;"
            " update product set category = kept.category from kept where kept.product_id = product.product_id",
            "product.category is missing",
        ),
        (
            "alter table product rename column category to kind",
            "alter table product rename column kind to category",
            "product.category is missing",
        ),
        (
            "alter table transaction alter column quantity type text using 'n' || quantity",
            "alter table transaction alter column quantity type integer using substr(quantity, 2)::integer",
            "transaction.quantity is now text",
        ),
        (
            "alter table transaction alter column amount type numeric(24, 8)",
            "alter table transaction alter column amount type numeric(18, 4)",
            "transaction.amount is now numeric.24,8.",
        ),
    ],
    ids=["dropped", "renamed", "int to text", "numeric widened"],
)
@pytest.mark.slow
def test_another_shape_is_refused_and_nothing_is_coerced(world: World, change: str, back: str, problem: str) -> None:
    naive = world.naive("product" if "table product" in change else "transaction")
    before = world.row("select count(*), sum(amount) from raw_oltp.transaction")
    world.sql("create table kept as table product")
    world.sql("alter table transaction drop constraint if exists transaction_quantity_check")
    try:
        with reshaped(world, change, back):
            world.add_payments(10)
            with pytest.raises(SchemaDrift, match=problem):
                world.ingest("oltp")
            assert world.row("select count(*), sum(amount) from raw_oltp.transaction") == before
            naive.run()
            coerced = naive.differences
    finally:
        world.sql("drop table kept")
    assert coerced > 0, "what it loaded before has the old shape"
    world.ingest("oltp")
    world.assert_whole("oltp")


# -- documents --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_documents_changed_late_replaced_and_deleted(world: World) -> None:
    naive = world.naive_documents()
    collection = world.documents.Transactions
    chosen = [document["_id"] for document in collection.find({"transaction_id": {"$regex": "^DOC"}}).limit(30)]
    collection.update_many({"_id": {"$in": chosen[:10]}}, {"$set": {"status": "changed, cursor untouched"}})
    collection.update_many({"_id": {"$in": chosen[10:20]}}, {"$unset": {"date": ""}})
    kept = list(collection.find({"_id": {"$in": chosen[20:]}}))
    collection.delete_many({"_id": {"$in": chosen[20:]}})
    world.ingest("mongodb")
    world.assert_whole("mongodb")
    naive.run()
    assert naive.differences >= 30
    collection.insert_many([document | {"amount": "1.00"} for document in kept])
    world.ingest("mongodb")
    world.assert_whole("mongodb")


def test_documents_by_cursor(world: World) -> None:
    """Equal cursor values and documents without one are read again; nothing is lost between two runs."""
    naive = world.naive_documents()
    newest = world.documents.Transactions.find_one({"date.updated": {"$type": "date"}}, sort=[("date.updated", -1)])
    assert newest is not None
    moment = newest["date"]["updated"]
    world.documents.Transactions.insert_many(
        [{"transaction_id": f"same{n}", "amount": n, "date": {"updated": moment}} for n in range(20)]
        + [{"transaction_id": f"none{n}", "amount": n} for n in range(20)]
    )
    world.ingest("mongodb", settings=world.by_cursor())
    world.assert_whole("mongodb")
    naive.run()
    assert naive.differences == 40
