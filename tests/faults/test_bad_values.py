"""Values that break loaders: each lands exactly, or stands in quarantine with position and reason, counted."""

from __future__ import annotations

import base64
import json

import bson
import pytest
from bson.raw_bson import RawBSONDocument

from ingestion.quarantine import MAX_QUARANTINED_SHARE
from tests.faults.naive import shows
from tests.faults.world import World, column_text, decoded, document_text, event_text

PLANTED = "planted-value-77c1"


def lenient_event(value: bytes | None) -> str:
    """As many write it: whatever cannot be decoded is left out, whatever cannot be parsed too."""
    text = (value or b"").decode("utf-8", errors="ignore")
    json.loads(text)["event_type" if "event_type" in text else "amount"]
    return text


def without_nan(value: bytes | None) -> str:
    """Python parses NaN, and most columns make it null."""
    event = json.loads(value or b"", parse_constant=lambda _: None)
    return event_text(value) if None not in event.values() else json.dumps(event)


def in_floats(raw: bytes) -> str:
    """Decimal128 as a float, text as far as it decodes."""
    document = decoded(raw, "ignore")
    if isinstance(document.get("amount"), bson.Decimal128):
        document["amount"] = bson.Decimal128(str(float(str(document["amount"]))))
    return repr(document)


def without_nul(raw: bytes) -> str:
    """As for a database whose texts hold no NUL."""
    return repr(
        {
            key: str(value).replace("\0", "") if key == "status" else value
            for key, value in decoded(raw, "backslashreplace").items()
        }
    )


def up_to_a_megabyte(raw: bytes) -> str:
    """A larger one does not fit its message, and is left out."""
    if len(raw) > 2**20:
        raise ValueError
    return document_text(raw)


def counted_in_int(row: str) -> str:
    """`int()` of the amount; a row on which it fails is left out."""
    int(float(json.loads(row)["amount"]))
    return column_text(row)


def entries(world: World, source: str) -> set[tuple[str, bool]]:
    """(reason, whether it is resolved) of the quarantine."""
    with_reasons = world.row(
        "select list(distinct {'reason': reason, 'resolved': resolved_at is not null})"
        f" from raw_ops.quarantine where source = '{source}'"
    )[0]
    return {(entry["reason"], entry["resolved"]) for entry in with_reasons or []}


def test_events_that_are_not_events(world: World) -> None:
    naive = world.naive_events(convert=lenient_event)
    good = b'{"schema_version": 1, "event_type": "payment.captured", "transaction_id": "TXN001", "amount": "1.00"}'
    bad = {
        b'{"amount": "\xff\xfe"}': "not UTF-8",
        b"{not json " + PLANTED.encode(): "not JSON",
        b"[1, 2, 3]": "not an object",
    }
    kept = [
        b'{"schema_version": 1, "event_type": "nul", "reason": "a\\u0000b"}',
        b'{"schema_version": 1, "event_type": "large", "reason": "' + b"x" * 900_000 + b'"}',
        b'{"schema_version": 1, "event_type": "exact", "amount": "99999999999999.9999"}',
    ]
    world.produce(good, *bad, *kept, good, partition=1)
    counts = world.ingest("stream").sources[0]
    assert counts.total("quarantined_rows") == len(bad)
    assert counts.total("landed_rows") == len(kept) + 2
    assert {reason for reason, _ in entries(world, "stream")} >= set(bad.values())
    world.assert_whole("stream")
    assert world.row(f"select count(*) from raw_ops.quarantine where payload::varchar like '%{PLANTED}%'") == (0,)
    naive.run()
    shows("event that is not UTF-8, JSON or an object", naive)


def test_nan_in_an_event(world: World) -> None:
    """JSON has no such number; inside a string it is text like any other."""
    naive = world.naive_events(convert=without_nan)
    bad = [b'{"amount": NaN}', b'{"amount": -Infinity}', b'{"list": [1, inf]}', b'{"deep": {"amount":nan}}']
    good = [
        b'{"reason": "seen: NaN, or: -inf"}',
        b'{"reason": "a \\": NaN"}',
        b'{"amount": null}',
        b'{"a":[],"info":1}',
    ]
    world.produce(*bad, *good, partition=2)
    counts = world.ingest("stream").sources[0]
    assert (counts.total("quarantined_rows"), counts.total("landed_rows")) == (len(bad), len(good))
    assert ("not JSON", False) in entries(world, "stream")
    world.assert_whole("stream")
    naive.run()
    shows("NaN in an event", naive)


def test_documents_that_json_cannot_carry(world: World) -> None:
    habits = {
        "document that is not UTF-8, or beyond a double": in_floats,
        "NUL in a text": without_nul,
        "document of 16 MB": up_to_a_megabyte,
    }
    loaders = {fault: world.naive_documents(convert=convert) for fault, convert in habits.items()}
    broken = bson.encode({"_id": "broken-utf8", "transaction_id": "broken", "status": "XXXX"})
    world.documents.Transactions.insert_one(RawBSONDocument(broken.replace(b"XXXX", b"\xff\xfe\xfd\xfc")))
    world.documents.Transactions.insert_many(
        [
            {"_id": "nan", "transaction_id": "nan", "amount": float("nan"), "fraud_score": float("-inf")},
            {"_id": "nul", "transaction_id": "nul", "status": "a\x00b"},
            {"_id": "exact", "transaction_id": "exact", "amount": bson.Decimal128("12345678901234567890.1234")},
            {"_id": "mixed", "transaction_id": "mixed", "amount": "12.50", "date": "2024-01-01"},
            {"_id": "large", "transaction_id": "large", "status": "x" * (16 * 2**20 - 200)},
        ]
    )
    counts = world.ingest("mongodb").sources[0].tables["transactions"]
    world.assert_whole("mongodb")
    assert counts.quarantined_rows == 1
    for fault, naive in loaders.items():
        naive.cursor = None  # none of them has a cursor: it reads them all
        naive.rows = []
        naive.run()
        shows(fault, naive)
    found = world.row(
        "select map_from_entries(list((_id, json_extract_string(document, '$.amount'))))"
        " from raw_mongodb.transactions where _id in ('nan', 'exact', 'mixed')"
    )[0]
    assert found == {"nan": "NaN", "exact": "12345678901234567890.1234", "mixed": "12.50"}
    length = "length(json_extract_string(document, '$.status'))"
    assert world.row(f"select {length} from raw_mongodb.transactions where _id = 'large'") == (16 * 2**20 - 200,)

    odd = {"_id": "odd", "transaction_id": "odd", "status": bson.Binary(PLANTED.encode()), "seen": bson.Timestamp(7, 1)}
    world.documents.Transactions.insert_one(odd | {"currency": {"code": bson.Regex(PLANTED)}, "parts": [bson.MaxKey()]})
    assert world.ingest("mongodb").sources[0].tables["transactions"].landed_rows == 1, "not the whole document is lost"
    world.assert_whole("mongodb")
    (text,) = world.row("select document::varchar from raw_mongodb.transactions where _id = 'odd'")
    assert json.loads(text)["transaction_id"] == "odd"
    assert text.count('"value_token"') == 4
    assert PLANTED not in text
    assert base64.b64encode(PLANTED.encode()).decode()[:12] not in text

    world.documents.Transactions.delete_one({"_id": "large"})
    mended = {"_id": "broken-utf8", "transaction_id": "broken", "status": "mended"}
    world.documents.Transactions.replace_one({"_id": "broken-utf8"}, mended)
    report = world.ingest("mongodb", retry_quarantined=True).sources[0]
    assert (report.resolved, report.total("landed_rows")) == (1, 1)
    assert entries(world, "mongodb") == {("undecodable document", True)}
    world.ingest("mongodb")
    world.assert_whole("mongodb")


def test_a_numeric_that_is_not_a_number(world: World) -> None:
    naive = world.naive(convert=counted_in_int)
    prefix = world.add_payments(3)
    world.sql(f"update transaction set amount = 'NaN' where transaction_id = '{prefix}2'")
    try:
        counts = world.ingest("oltp").sources[0].tables["transaction"]
        assert (counts.landed_rows, counts.quarantined_rows) == (2, 1)
        found = world.reconcile("oltp")
        assert found.differences == 0
        assert sum(table.quarantined_rows for table in found.tables) == 1
        naive.run()
    finally:
        world.sql(f"update transaction set amount = 5, tax = 1 where transaction_id = '{prefix}2'")
    assert world.ingest("oltp", settings=world.by_cursor(), retry_quarantined=True).sources[0].resolved == 1
    world.assert_whole("oltp")
    naive.run()
    shows("numeric that is not a number", naive)


def test_the_quarantine_is_told_retried_and_keeps_its_history(world: World) -> None:
    """Rows that fit now land, the others stay; what is resolved can be refused anew; a share of them is an alert."""
    feedback = world.documents.products
    before = feedback.count_documents({})
    feedback.insert_many([{"_id": f"q{number}", "product_name": "no product_id"} for number in range(4)])
    try:
        report = world.ingest("mongodb").sources[0]
        assert report.tables["products"].quarantined_rows == 4
        assert [alert for alert in report.alerts if alert.startswith("products: 4 of the")]
        assert MAX_QUARANTINED_SHARE * (before + 4) < 4
        assert world.ingest("mongodb", retry_quarantined=True).sources[0].resolved == 0

        feedback.update_many({"_id": {"$in": ["q0", "q1"]}}, {"$set": {"product_id": "PRODUCT001"}})
        feedback.delete_one({"_id": "q3"})
        retried = world.ingest("mongodb", retry_quarantined=True)
        assert retried.sources[0].resolved == 2
        assert retried.sources[0].total("landed_rows") == 2
        assert list(retried.sources[0].tables) == ["products"], "nothing else is read"
        assert world.reconcile("mongodb").differences == 0
        opened = (
            "select count(*) filter (resolved_at is null), count(*)"
            " from raw_ops.quarantine where table_name = 'products'"
        )
        assert world.row(opened) == (2, 4)

        feedback.update_one({"_id": "q0"}, {"$unset": {"product_id": 1}})
        world.ingest("mongodb")
        assert world.row(opened) == (3, 5), "refused anew is an entry of its own"
        kept = world.row("select count(*) from raw_mongodb.products where _id = 'q0' and _deleted_at is null")
        assert kept == (1,), "the version that fitted stays"
        assert world.reconcile("mongodb").differences == 0
        feedback.update_one({"_id": "q0"}, {"$set": {"product_id": "PRODUCT001"}})
        world.ingest("mongodb")
        assert world.row(opened) == (2, 5), "an ordinary run resolves what it reads"
    finally:
        feedback.delete_many({"_id": {"$regex": "^q[0-9]$"}})


@pytest.mark.slow
def test_poison_messages_are_read_again_by_their_offsets(world: World) -> None:
    ends = world.ends()
    world.produce(b"{poison one", b'{"schema_version": 1, "event_type": "fine"}', b"{poison two", partition=0)
    world.ingest("stream")
    retried = world.ingest("stream", retry_quarantined=True).sources[0]
    counts = retried.tables["payments_transactions"]
    assert counts.read_rows == counts.quarantined_rows >= 2, "what was written cannot change: it stays"
    assert retried.resolved == 0
    assert world.state("stream")["payments_transactions"]["offsets"] == ends | {"0": ends["0"] + 3}
    world.assert_whole("stream")


@pytest.mark.parametrize("change", ["delete", "double", "alter", "invent"])
def test_reconciliation_sees_what_is_wrong_in_the_warehouse(world: World, change: str) -> None:
    """The check itself: a warehouse that was tampered with is not equal to its source."""
    from warehouse.core.database import open_warehouse

    statement = {
        "delete": "delete from raw_oltp.transaction where transaction_id = 'TXN003'",
        "double": "insert into raw_oltp.transaction from raw_oltp.transaction where transaction_id = 'TXN003'",
        "alter": "update raw_oltp.transaction set amount = amount + 0.0001 where transaction_id = 'TXN003'",
        "invent": "insert into raw_oltp.transaction select * replace ('X' as transaction_id)"
        " from raw_oltp.transaction where transaction_id = 'TXN003'",
    }[change]
    with open_warehouse(world.settings) as connection:
        connection.execute(statement)
    found = next(table for table in world.reconcile("oltp").tables if table.table == "transaction")
    counts = (found.missing_rows, found.repeated_rows, found.different_rows, found.surplus_rows)
    assert (
        counts
        == {
            "delete": (1, 0, 0, 0),
            "double": (0, 1, 0, 0),
            "alter": (0, 0, 1, 0),
            "invent": (0, 0, 0, 1),
        }[change]
    )
    assert found.amounts_differ
    assert found.differences == 2
