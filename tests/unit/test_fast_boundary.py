"""The two ways around the general boundary give what it gives: by document shape (MongoDB), and verbatim (Kafka)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import bson
import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion import boundary, schema
from ingestion.shapes import compile_shape
from ingestion.sources.mongodb import columns
from ingestion.sources.mongodb.batches import in_stream
from ingestion.sources.mongodb.columns import Block
from ingestion.sources.mongodb.reader import MongoReader
from ingestion.treatment import Treatment, treated_sql
from ingestion.verbatim import MAX_BYTES, MAX_PATTERN, is_clean, pattern_of, skeleton_sql, verbatim_boundary

KEY = bytes(range(32))
TRANSACTIONS = schema.tables("mongodb")["transactions"]
EVENTS = schema.tables("stream")["payments_transactions"]
MARKER = "MARKER7f3a"
COPIES = columns.MIN_DOCUMENTS

Landed = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    boundary.install(connection, KEY)
    return connection


def by_shape(connection: duckdb.DuckDBPyConnection, table: schema.Table, documents: list[dict[str, Any]]) -> Landed:
    """What lands, by `_id`, of the documents that need no general boundary."""
    block = Block(in_stream(b"".join(bson.encode(document) for document in documents)))
    found: Landed = {}
    for part in block.walk(lambda shape: compile_shape(table, shape) is not None).columns:
        compiled = compile_shape(table, part.shape)
        assert compiled is not None
        connection.register("shaped", part.table)
        found |= rows(connection, compiled, "shaped")
    return found


def in_general(connection: duckdb.DuckDBPyConnection, table: schema.Table, documents: list[dict[str, Any]]) -> Landed:
    """What the general boundary makes of the same documents, read one at a time."""
    reader = MongoReader(connection, None, "")  # it is not asked to connect
    path = tuple(table.cursor.split(".")) if table.cursor else ()
    texts = [reader._row(table.name, bson.encode(document), path) for document in documents]
    return rows(connection, boundary.compile_boundary(table), f"({reader._relation(texts)})")


def rows(connection: duckdb.DuckDBPyConnection, compiled: boundary.Boundary, relation: str) -> Landed:
    found = connection.execute(f"""
        select _id, cursor_at::varchar, document::varchar, reason, unknown,
            list_filter(vault, lambda entry: entry.value is not null)::varchar, subject
        from ({treated_sql(compiled, relation)})
    """).fetchall()
    return {row[0]: row[1:] for row in found}


DECIMAL128_DIGITS = 34
moments = st.integers(-30_610_224_000_000, 253_402_300_799_999).map(
    lambda number: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)
)
decimals = (
    st.decimals(allow_nan=True, allow_infinity=True, places=3)
    .filter(lambda number: len(number.as_tuple().digits) <= DECIMAL128_DIGITS)
    .map(bson.Decimal128)
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=20)
    | moments
    | decimals
    | st.binary(min_size=12, max_size=12).map(bson.ObjectId)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", max_size=3), inner, max_size=2),
    max_leaves=5,
)
pinned_documents = st.fixed_dictionaries(
    {"transaction_id": st.text(max_size=15)},
    optional={
        "customer_id": scalars,
        "amount": anything,
        "status": scalars,
        "date": st.fixed_dictionaries({}, optional={"created": scalars, "updated": scalars, "timezone": scalars}),
        "signals": st.lists(
            st.fixed_dictionaries({}, optional={"rule": scalars, "weight": scalars}) | st.none(), max_size=3
        ),
        "location": st.fixed_dictionaries(
            {},
            optional={
                "city": st.text(max_size=20),
                "ip": scalars,
                "geo": st.none() | st.fixed_dictionaries({}, optional={"lat": scalars, "lon": anything}),
            },
        ),
    },
)


@given(document=pinned_documents)
def test_by_shape_and_in_general_the_same_lands(
    connection: duckdb.DuckDBPyConnection, document: dict[str, Any]
) -> None:
    """Byte for byte: a document may take either way from one run to the next and must not look changed."""
    documents = [{"_id": bson.ObjectId(), **document} for _ in range(COPIES)]
    fast = by_shape(connection, TRANSACTIONS, documents)
    general = in_general(connection, TRANSACTIONS, documents)
    assert {key: general[key] for key in fast} == fast


def test_most_documents_take_the_way_by_shape(connection: duckdb.DuckDBPyConnection) -> None:
    """Mixed types and array lengths are shapes of their own, not exceptions."""
    amounts = [12, 12.5, "12.50", bson.Decimal128("12.50"), bson.Decimal128("-0.05"), bson.Int64(2**40), None, True]
    documents = [
        {
            "_id": bson.ObjectId(),
            "transaction_id": f"TX{number}",
            "date": {"created": datetime(2024, 1, 1, 1, 2, 3, 4000, UTC), "updated": datetime(2024, 1, 1, tzinfo=UTC)},
            "amount": amount,
            "signals": [{"rule": "velocity", "weight": 0.5}] * (number % 3),
            "location": {"ip": f"10.0.0.{number}", "geo": {"lat": 1e-7, "lon": -0.0}},
        }
        for amount in amounts
        for number in range(3 * COPIES)
    ]
    fast = by_shape(connection, TRANSACTIONS, documents)
    assert len(fast) == len(documents)
    assert fast == in_general(connection, TRANSACTIONS, documents)


@pytest.mark.parametrize("negative", [-1, -0.01, "-12.50", bson.Decimal128("-0.05"), bson.Int64(-(2**40))])
def test_a_negative_amount_is_refused_whatever_its_type(connection: duckdb.DuckDBPyConnection, negative: Any) -> None:
    documents = [
        {"_id": bson.ObjectId(), "transaction_id": "TX1", "amount": negative, "location": {"ip": "10.0.0.1"}}
        for _ in range(COPIES)
    ]
    fast = by_shape(connection, TRANSACTIONS, documents)
    assert len(fast) == len(documents)
    assert {row[2] for row in fast.values()} == {"range: amount"}
    assert fast == in_general(connection, TRANSACTIONS, documents)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"cvv": "987"},
        {"surprise": MARKER},
        {"location": {"ip": [MARKER]}},
        {"status": {"note": MARKER}},
        {"signals": [{"rule": "r", "extra": MARKER}]},
        {"amount": float("nan")},
        {"date": {"created": bson.datetime_ms.DatetimeMS(2**60)}},
        {"amount": bson.Decimal128("NaN")},
        {"amount": bson.Binary(b"x")},
        {"amount": bson.Regex("x")},
    ],
)
def test_what_needs_the_general_boundary_is_left_to_it(
    connection: duckdb.DuckDBPyConnection, spoilt: dict[str, Any]
) -> None:
    documents = [{"_id": bson.ObjectId(), "transaction_id": "T", **spoilt} for _ in range(COPIES)]
    assert by_shape(connection, TRANSACTIONS, documents) == {}
    landed = in_general(connection, TRANSACTIONS, documents)
    assert all(MARKER not in str(row[1]) and "987" not in str(row[1]) for row in landed.values())


def test_a_block_that_is_damaged_or_twisted_loses_nothing() -> None:
    good = [bson.encode({"_id": number, "text": "x" * number}) for number in range(COPIES)]
    twice = b"\x10a\0\x01\0\0\0" * 2
    twisted = (len(twice) + 5).to_bytes(4, "little") + twice + b"\0"
    long_text = bson.encode({"_id": 1, "text": "abc"}).replace(b"\x04\0\0\0abc", b"\xff\xff\xff\x7fabc")
    bad_text = bson.encode({"_id": 1, "text": "abcd"}).replace(b"abcd", b"\xff\xfe\xfd\xfc")
    for odd in (twisted, long_text, bad_text):
        walked = Block(in_stream(b"".join([*good, *[odd] * COPIES]))).walk(lambda shape: True)
        read = sum(part.table.num_rows for part in walked.columns)
        assert read + len(walked.left) == 2 * COPIES
    with pytest.raises(ValueError, match="whole documents"):
        in_stream(good[5][:-1])


@given(moments=st.lists(st.integers(-(10**17), 3 * 10**17), min_size=1, max_size=200))
def test_a_moment_is_hashed_as_its_cast_would_be(connection: duckdb.DuckDBPyConnection, moments: list[int]) -> None:
    """Another text would be another hash, and every event that has landed would look changed."""
    edges = [-62_135_596_800_000_000, -30_610_224_000_000_000, 253_402_214_400_000_000, 253_402_300_800_000_000]
    around = [edge + off for edge in edges for off in (-1, 0, 1)]
    rounded = [moment // unit * unit for moment in moments for unit in (1, 1000, 10**6, 60 * 10**6)]
    connection.register(
        "moments", pa.table({"moment": pa.array([*around, *rounded, None], pa.timestamp("us", tz="UTC"))})
    )
    other = connection.execute(f"""
        select moment::varchar, {schema.utc_text_sql("moment")} as text from moments
        where text is distinct from moment::varchar
    """).fetchall()
    assert other == []
    hashed = schema.row_hash_sql(EVENTS)
    assert schema.utc_text_sql('"produced_at"') in hashed


def skeleton_of(connection: duckdb.DuckDBPyConnection, text: str) -> str | None:
    row = connection.execute(
        f"select {skeleton_sql(EVENTS)} from (select $doc::varchar as doc, null::varchar as problem)", {"doc": text}
    ).fetchone()
    return row[0] if row else None


def matches(connection: duckdb.DuckDBPyConnection, text: str, pattern: str | None) -> bool:
    row = connection.execute("select regexp_full_match($text, $pattern)", {"text": text, "pattern": pattern}).fetchone()
    return bool(row and row[0])


class Pairs(list[tuple[str, Any]]):
    """An object with every one of its keys."""


def marked(value: Any, key: str = "") -> str:
    """The skeleton of a document that was read."""
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{marked(child, name)}" for name, child in value) + "}"
    if isinstance(value, list):
        is_texts = key == "movement_ids" and all(isinstance(item, str) for item in value)
        return "#" if is_texts else "[" + ",".join(map(marked, value)) + "]"
    return "@" if value is None and key in {"attributes", "three_ds", "movement_ids"} else "~"


KNOWN: list[str] = []
"""Skeletons that were judged clean in these tests, the newest first."""


def verbatim(connection: duckdb.DuckDBPyConnection, text: str) -> str | None:
    """The text that lands when it may land as it came; None when the general boundary has to rebuild it.

    Whatever the pattern of everything clean so far lets through is held against what Python reads in it, and has to
    be clean by its own skeleton as well.
    """
    is_known = matches(connection, text, pattern_of(KNOWN))
    if is_known:
        assert is_clean(EVENTS, marked(json.loads(text, object_pairs_hook=Pairs, parse_constant=pytest.fail)))
    skeleton = skeleton_of(connection, text)
    if skeleton is None or not is_clean(EVENTS, skeleton):
        assert not is_known or len(text) > MAX_BYTES
        return None
    KNOWN.insert(0, skeleton)
    sql = dict(verbatim_boundary(EVENTS, boundary.compile_boundary(EVENTS)).landed)["document"]
    landed = connection.execute(f"select ({sql})::varchar from (select $doc::varchar as doc)", {"doc": text}).fetchone()
    assert landed is not None
    return str(landed[0])


def rebuilt(connection: duckdb.DuckDBPyConnection, text: str) -> Any:
    sql = dict(boundary.compile_boundary(EVENTS).landed)["document"]
    row = connection.execute(f"select ({sql})::varchar from (select $doc::varchar as doc)", {"doc": text}).fetchone()
    assert row is not None
    return json.loads(row[0])


def without_nulls(value: Any) -> Any:
    """Missing and null are the same to staging."""
    if isinstance(value, dict):
        kept = {key: without_nulls(child) for key, child in value.items()}
        return {key: child for key, child in kept.items() if child not in (None, {})}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


awkward = st.text(st.sampled_from(list('a:",{}[]~\\ 0tn')), max_size=12) | st.text(max_size=8)
event_keys = st.sampled_from([node.name for node in EVENTS.document if not node.fields])
attribute_keys = st.sampled_from(["capture_id", "refund_id", "rule", "is_fraud"])
plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, width=32) | awkward
containers = st.fixed_dictionaries(
    {},
    optional={
        "three_ds": st.none() | st.dictionaries(st.sampled_from(["outcome", "eci"]), plain, max_size=2),
        "movement_ids": st.none() | st.lists(awkward, max_size=3),
    },
)
events = st.builds(
    lambda top, attributes, more: {**top, "attributes": attributes and {**attributes, **more}},
    st.dictionaries(event_keys, plain, max_size=5),
    st.none() | st.dictionaries(attribute_keys, plain, max_size=3),
    containers,
)


@given(event=events, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_a_clean_event_lands_verbatim_and_says_the_same(
    connection: duckdb.DuckDBPyConnection, event: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(event, indent=indent, ensure_ascii=ascii_only)
    landed = verbatim(connection, text)
    assert landed in (text, None)
    if landed is not None:
        assert without_nulls(json.loads(landed)) == without_nulls(rebuilt(connection, text))


def test_numbers_keep_their_spelling(connection: duckdb.DuckDBPyConnection) -> None:
    text = '{"amount": 12.50, "schema_version": 1e2, "attributes": {"attempt_number": 12345678901234567890.12}}'
    assert verbatim(connection, text) == text


@given(
    event=events,
    place=st.sampled_from(["key", "attribute", "array", "texts", "scalar", "nested", "twice", "swallowed"]),
    around=awkward,
)
def test_nothing_undeclared_lands_verbatim(
    connection: duckdb.DuckDBPyConnection, event: dict[str, Any], place: str, around: str
) -> None:
    """A marker under an undeclared key, however the texts around it try to hide it, is never waved through."""
    smuggled: Any = {**event}
    match place:
        case "key":
            smuggled = {**event, "reason": around, around + MARKER: around, "actor": around}
        case "attribute":
            smuggled["attributes"] = {"rule": around, "cvv": MARKER, "network": around}
        case "array":
            smuggled["attributes"] = {"movement_ids": [around, {"ssn": MARKER}, around + ": "]}
        case "texts":
            smuggled["attributes"] = {"movement_ids": [around], "rule" + MARKER: [around, MARKER]}
        case "scalar":
            smuggled["attributes"] = {"three_ds": around + MARKER, "movement_ids": None}
        case "nested":
            smuggled["reason"] = {around: MARKER}
        case "swallowed":
            smuggled = {"reason": around + ": ", "x" + MARKER: around + ":", "actor": '": "' + around}
    text = json.dumps(smuggled)
    if place == "twice":
        text = text[:-1] + f', "attributes": {{"ssn": "{MARKER}"}}}}'
    landed = verbatim(connection, text)
    assert landed is None


@pytest.mark.parametrize(
    "text",
    [
        '{"amount": NaN}',
        '{"amount": 1,}',
        '{"amount": -Infinity}',
        '["a"]',
        '"a:"',
        "1",
        '{"amount~": 1}',
        '{"attributes": ' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"reason": "' + "x" * 70_000 + '"}',
    ],
)
def test_what_is_odd_is_rebuilt(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    assert verbatim(connection, text) is None


@pytest.mark.parametrize(
    "attributes",
    [
        "null",
        '{"three_ds": null}',
        '{"three_ds" :\n null, "rule": "null"}',
        '{"movement_ids": ["a", "b:\\"]"], "rule": 1}',
        '{"movement_ids":[]}',
        '{"movement_ids":null}',
    ],
)
def test_a_null_object_and_an_array_of_texts_are_clean(connection: duckdb.DuckDBPyConnection, attributes: str) -> None:
    text = f'{{"event_id": "E1", "attributes": {attributes}}}'
    assert verbatim(connection, text) == text
    assert matches(connection, text, pattern_of([str(skeleton_of(connection, text))]))


CLEAN = '{"event_id": "E1", "amount": 1, "attributes": {"rule": null, "network": true}}'
LISTED = '{"attributes": {"movement_ids": ["a"], "three_ds": null}}'


@pytest.mark.parametrize(
    ("text", "is_known"),
    [
        (CLEAN.replace("1,", "-0.50,").replace("E1", '\\"b:\\u00e4\\ud83d\\ude00,}').replace(" null", '\n"ä"'), True),
        (CLEAN.replace("1,", "01,"), False),
        (CLEAN.replace("1,", "1.,"), False),
        (CLEAN.replace("1,", "NaN,"), False),
        (CLEAN.replace("1,", "1e5,"), False),
        (CLEAN.replace("1,", '"\\x41",'), False),
        (CLEAN.replace("1,", '"\\ud800",'), False),
        (CLEAN.replace("1,", '"\n",'), False),
        (CLEAN.replace("1,", "\f1,"), False),
        (CLEAN.replace("1,", "[1],"), False),
        (CLEAN.replace("1,", '{"amount": 1},'), False),
        (CLEAN.replace("1,", '1, "cvv": 1,'), False),
        (CLEAN.replace("event_id", "event~id"), False),
        (LISTED.replace('["a"]', '[ "b]" ,"\\"c"\n]'), True),
        (LISTED.replace('["a"]', "[]"), True),
        (LISTED.replace('["a"]', '["a",]'), False),
        (LISTED.replace('["a"]', '["\\x41"]'), False),
        (LISTED.replace('["a"]', '["a", 1]'), False),
        (LISTED.replace('["a"]', '["a", {"cvv": "1"}]'), False),
        (LISTED.replace("null", '"a"'), False),
        (CLEAN + " ", False),
        (" " + CLEAN, False),
    ],
)  # fmt: skip
def test_a_pattern_knows_the_documents_of_its_skeletons_only(
    connection: duckdb.DuckDBPyConnection, text: str, is_known: bool
) -> None:
    others = ['{"event_id": "E1", "amount": 1}', '{"event_id": "E1", "attributes": {"rule": 1}}']
    skeletons = [str(skeleton_of(connection, known)) for known in (*others, CLEAN, LISTED)]
    assert matches(connection, text, pattern_of(skeletons)) is is_known
    assert matches(connection, CLEAN, pattern_of(skeletons)) and matches(connection, others[1], pattern_of(skeletons))


def test_a_pattern_grows_to_its_limit() -> None:
    names = [node.name for node in EVENTS.document if node.leaf is not None]
    many = ["{" + ", ".join(f'"{name}":~' for name in chosen) + "}" for chosen in permutations(names, 3)]
    pattern = pattern_of(many)
    assert pattern is not None and MAX_PATTERN / 2 < len(pattern) <= MAX_PATTERN
    assert pattern_of([]) is None


def treated(connection: duckdb.DuckDBPyConnection, treatment: Treatment, chunk: list[str]) -> list[tuple[Any, ...]]:
    """What lands of a chunk of events: (offset, document, reason), by offset."""
    connection.register(
        "chunk",
        pa.table({
            "kafka_topic": ["t"] * len(chunk), "kafka_partition": pa.array([0] * len(chunk), pa.int32()),
            "kafka_offset": range(len(chunk)), "produced_at": pa.nulls(len(chunk), pa.timestamp("us", tz="UTC")),
            "message_key": pa.nulls(len(chunk), pa.string()), "doc": chunk,
            "problem": pa.nulls(len(chunk), pa.string()),
        }),
    )  # fmt: skip
    return connection.execute(
        f"select kafka_offset, document::varchar, reason from ({treatment.sql('select * from chunk')}) order by all"
    ).fetchall()


def test_chunks_are_judged_one_by_one_whatever_the_last_one_was(connection: duckdb.DuckDBPyConnection) -> None:
    clean, odd = '{"event_id":"E1","amount":12.50}', '{"event_id":"E2","nickname":"MARKER7f3a"}'
    treatment = Treatment(connection, EVENTS)
    assert not treatment.boundary.vault, "the first chunk is to be judged without a copy"
    for chunk in ([clean], [clean, odd], [odd, clean, clean], [clean], [odd], [clean, clean]):
        found = treated(connection, treatment, chunk)
        assert [offset for offset, _, _ in found] == list(range(len(chunk)))
        for offset, document, reason in found:
            assert reason is None
            assert (document == clean) if chunk[offset] == clean else ("_unknown" in document)
            assert MARKER not in document


@pytest.mark.parametrize(
    "reason",
    [
        "x" * (MAX_BYTES - 30),
        "x" * MAX_BYTES,
        "ends:",
        "ends: ",
        ", begins",
        " ]",
        ":",
        "see [1]",
        "[ :",
        "[{",
        " ",
        "",
    ],
)
def test_an_event_lands_the_same_whatever_came_before(connection: duckdb.DuckDBPyConnection, reason: str) -> None:
    """Read again among others, as reconciliation does, it must not look changed."""
    event, alike = (json.dumps({"amount": 1.5, "reason": text}) for text in (reason, "alike"))
    ((_, alone, _),) = treated(connection, Treatment(connection, EVENTS), [event])
    ((_, after, _), _) = treated(connection, Treatment(connection, EVENTS), [event, alike])
    treatment = Treatment(connection, EVENTS)
    treated(connection, treatment, [alike])
    ((_, later, _),) = treated(connection, treatment, [event])
    assert alone == after == later


def test_every_skeleton_of_a_chunk_is_judged(connection: duckdb.DuckDBPyConnection) -> None:
    """However many there are: with a limit, what its chunk holds beside it would decide how an event lands."""
    names = [node.name for node in EVENTS.document if node.leaf is not None]
    events = ["{" + ", ".join(f'"{name}": 1' for name in chosen) + "}" for chosen in permutations(names, 4)]
    assert len(events) > 2_000
    odd = f'{{"nickname": "{MARKER}"}}'
    *landed, last = [document for _, document, _ in treated(connection, Treatment(connection, EVENTS), [*events, odd])]
    assert landed == events
    assert MARKER not in last
