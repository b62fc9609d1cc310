"""What sources do to a loader: late, equal, repeated, reordered, deleted and reshaped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal

import psycopg
import pytest

from tests.faults.naive import shows
from tests.faults.world import World, column_text, event_text
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
    shows("commit behind the cursor", naive, at_least=20)


@pytest.mark.slow
def test_a_commit_further_behind_than_the_lag_is_found_by_comparison(world: World) -> None:
    naive = world.naive()
    world.add_payments(5, updated_at="timestamptz '2024-01-01 00:00:00+00'")
    world.ingest("oltp", settings=world.by_cursor())
    assert world.reconcile("oltp").differences > 0, "reconciliation must see what the lag did not cover"
    world.ingest("oltp", settings=world.by_cursor(), full=True)
    naive.run()
    world.assert_whole("oltp")
    shows("commit further behind than the lag", naive, at_least=5)


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
    shows("update or insert with an equal cursor", naive, at_least=3)


def test_a_hard_delete_and_a_reinsert(world: World) -> None:
    prefix = world.add_payments(30)
    naive = world.naive()
    world.ingest("oltp")
    world.sql(f"delete from transaction where transaction_id like '{prefix}%'")
    assert world.ingest("oltp").sources[0].total("deleted_rows") == 30
    naive.run()
    world.assert_whole("oltp")
    shows("hard delete", naive, at_least=30)

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
    shows("delete and re-insert", naive)


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
    shows("hard delete", naive, at_least=30)


def test_a_delete_between_two_runs_by_cursor_is_found_when_the_keys_are_due(world: World) -> None:
    prefix = world.add_payments(30)
    world.ingest("oltp", settings=world.by_cursor())
    world.sql(f"delete from transaction where transaction_id like '{prefix}%'")
    world.ingest("oltp", settings=world.by_cursor())
    found = {table.table: table.surplus_rows for table in world.reconcile("oltp").tables if table.differences}
    assert found == {"transaction": 30}, "not due: compared less than a day ago"
    due = world.by_cursor().model_copy(update={"reconcile_keys_hours": 1e-6})
    assert world.ingest("oltp", settings=due).sources[0].tables["transaction"].deleted_rows == 30
    world.assert_whole("oltp")


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
        shows("truncate", naive, at_least=before[0])
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
    shows("duplicate and reordered deliveries", naive, at_least=30)  # by event time, all of them are old


def test_one_unread_message_is_read_and_an_unknown_event_lands(world: World) -> None:
    """Counted in the manifest and the run's report, and told: nothing that no model reads is silent."""

    def known_only(value: bytes | None) -> str:
        event = json.loads(value or b"")
        return {"payment.captured": event_text(value)}[event["event_type"]]

    naive = world.naive_events(convert=known_only)
    world.produce(b'{"schema_version": 99, "event_type": "payment.captured", "who": "nobody"}')
    report = world.ingest("stream").sources[0]
    assert (report.total("landed_rows"), report.total("unknown_keys"), report.total("unknown_events")) == (1, 1, 1)
    assert report.alerts == ["payments.transactions: 1 events landed that no model knows the type or version of"]
    world.produce(b'{"schema_version": 1, "event_type": "from.the.future"}', b'{"event_type": "payment.captured"}')
    assert world.ingest("stream").sources[0].total("unknown_events") == 2
    counted = (
        "select unknown_events from raw_ops.load_manifest where source = 'stream' order by finished_at desc limit 1"
    )
    assert world.row(counted) == (2,)
    naive.run()
    world.assert_whole("stream")
    shows("event of an unknown type or version", naive)


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
        shows("column added", naive, at_least=10)  # rows loaded before do not have the column


def absent_is_null(row: str) -> str:
    """By name, with what is not there as null."""
    return column_text(json.dumps({"category": None} | json.loads(row)))


def whole_numbers(row: str) -> str:
    """`int()`, and a row on which it fails is left out."""
    values = json.loads(row, parse_float=str, parse_int=str)
    int(values["quantity"])
    round(float(values["amount"]))
    return json.dumps(values, sort_keys=True)


def old_scale(row: str) -> str:
    """Rounded to the four decimals there used to be."""
    values = json.loads(row, parse_float=str, parse_int=str)
    return json.dumps(values | {"amount": str(round(Decimal(values["amount"]), 4))}, sort_keys=True)


KEPT_CATEGORY = "update product set category = kept.category from kept where kept.product_id = product.product_id"


@pytest.mark.parametrize(
    ("fault", "change", "back", "problem", "convert"),
    [
        (
            "column dropped",
            "alter table product drop column category",
            f"alter table product add column category text; {KEPT_CATEGORY}",
            "product.category is missing",
            absent_is_null,
        ),
        (
            "column renamed",
            "alter table product rename column category to kind",
            "alter table product rename column kind to category",
            "product.category is missing",
            absent_is_null,
        ),
        (
            "integer becomes text",
            "alter table transaction alter column quantity type text using 'n' || quantity",
            "alter table transaction alter column quantity type integer using substr(quantity, 2)::integer",
            "transaction.quantity is now text",
            whole_numbers,
        ),
        (
            "numeric widened",
            "alter table transaction alter column amount type numeric(24, 8)",
            "alter table transaction alter column amount type numeric(18, 4)",
            "transaction.amount is now numeric.24,8.",
            old_scale,
        ),
    ],
    ids=["dropped", "renamed", "int to text", "numeric widened"],
)
@pytest.mark.slow
def test_another_shape_is_refused_and_nothing_is_coerced(
    world: World, fault: str, change: str, back: str, problem: str, convert: Callable[[str], str]
) -> None:
    naive = world.naive("product" if "table product" in change else "transaction", convert=convert)
    before = world.row("select count(*), sum(amount) from raw_oltp.transaction")
    world.sql("create table kept as table product")
    world.sql("alter table transaction drop constraint if exists transaction_quantity_check")
    try:
        with reshaped(world, change, back):
            prefix = world.add_payments(10)
            world.sql("update product set updated_at = clock_timestamp()")
            if fault == "numeric widened":
                world.sql(f"update transaction set amount = 100.00005 where transaction_id like '{prefix}%'")
            with pytest.raises(SchemaDrift, match=problem):
                world.ingest("oltp")
            assert world.row("select count(*), sum(amount) from raw_oltp.transaction") == before
            naive.run()
            if fault == "numeric widened":
                shows(fault, naive, at_least=10)
    finally:
        world.sql("drop table kept")
    if fault != "numeric widened":
        naive.run()
        shows(fault, naive)
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
    shows("document changed, its cursor not", naive, at_least=10)
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
    shows("document without a cursor", naive, at_least=40)
