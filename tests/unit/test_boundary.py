"""The boundary: every class gets its treatment, nothing undeclared or malformed slips through."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion import boundary, schema
from warehouse.privacy.tokens import pseudonym

KEY = bytes(range(32))
CARD = "4111111111111111"


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    boundary.install(connection, KEY)
    return connection


def land_document(connection: duckdb.DuckDBPyConnection, table: schema.Table, document: Any) -> dict[str, Any]:
    """What one document lands as, with `reason` and `unknown`."""
    compiled = boundary.compile_boundary(table)
    positions = {name: "null" for name, _ in table.position_columns} | {"_id": "'id'", "cursor_at": "null"}
    positions |= {"kafka_topic": "'t'", "kafka_partition": "0", "kafka_offset": "1", "message_key": "'TXN1'"}
    names = [name for name, _ in table.position_columns]
    incoming = ", ".join(f'{positions[name]} as "{name}"' for name in names)
    connection.execute(
        f"create or replace temp table incoming as select {incoming}, $doc::varchar as doc, null::varchar as problem",
        {"doc": json.dumps(document)},
    )
    landed = ", ".join(f'{sql} as "{name}"' for name, sql in compiled.landed)
    row = connection.execute(
        f"select document, reason, {compiled.unknown} from (select {landed}, {compiled.reason} as reason from incoming)"
    ).fetchone()
    assert row is not None
    vault = [
        connection.execute(f"select {rule.token_sql}, {rule.value_sql} from incoming").fetchone()
        for rule in compiled.vault
    ]
    return {"document": json.loads(row[0]), "reason": row[1], "unknown": row[2], "vault": vault, "text": row[0]}


def table(source: schema.SourceName, name: str) -> schema.Table:
    return schema.tables(source)[name]


def test_nested_personal_values_become_tokens_and_safe_parts(connection: duckdb.DuckDBPyConnection) -> None:
    landed = land_document(
        connection,
        table("mongodb", "transactions"),
        {"transaction_id": "TX1", "location": {"ip": "10.1.2.3", "geo": {"lat": 48.85, "lon": 2.35}}},
    )
    location = landed["document"]["location"]
    assert location["ip_token"] == pseudonym(KEY, "ip", "10.1.2.3")
    assert location["ip_network"] == "10.1.2.0/24"
    assert (location["geo"]["lat_degree"], location["geo"]["lon_degree"]) == (49, 2)
    assert "ip" not in location
    assert (pseudonym(KEY, "ip", "10.1.2.3"), "10.1.2.3") in landed["vault"]


def test_people_in_arrays_are_treated(connection: duckdb.DuckDBPyConnection) -> None:
    owner = {"name": "Zoë Grün", "date_of_birth": "1980-02-01", "share": 0.5, "passport": "X123"}
    landed = land_document(
        connection, table("mongodb", "merchants"), {"merchant_id": "MERCH1", "beneficial_owners": [owner]}
    )
    found = landed["document"]["beneficial_owners"][0]
    assert found["name_token"] == pseudonym(KEY, "name", "Zoë Grün")
    assert (found["birth_year"], found["share"]) == (1980, 0.5)
    assert found["_unknown"] == [{"key": "passport", "value_token": pseudonym(KEY, "unknown", '"X123"')}]
    assert "Gr" not in landed["text"] and "X123" not in landed["text"]


@pytest.mark.parametrize("key", sorted(schema.FORBIDDEN_KEYS))
@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_forbidden_keys_are_dropped_wherever_they_stand(
    connection: duckdb.DuckDBPyConnection, key: str, spelling: Any
) -> None:
    name = spelling(key)
    event = {"event_id": "e", name: "987", "attributes": {name: "987", "three_ds": {name: "987"}}}
    landed = land_document(connection, table("stream", "payments_transactions"), event)
    assert landed["unknown"] == 0
    assert name.lower() not in landed["text"].lower().replace("raw_decline_code", "")
    assert "987" not in landed["text"]
    assert all("987" not in str(entry) for entry in landed["vault"])


def test_forbidden_keys_are_dropped_from_open_maps(connection: duckdb.DuckDBPyConnection) -> None:
    landed = land_document(
        connection, table("mongodb", "products"), {"product_id": "P", "attributes": {"cvv": "987", "colour": "red"}}
    )
    assert landed["document"]["attributes"] == {"colour": "red"}


def test_structures_where_scalars_are_declared_land_as_tokens_only(connection: duckdb.DuckDBPyConnection) -> None:
    landed = land_document(
        connection,
        table("mongodb", "transactions"),
        {"transaction_id": "TX1", "status": {"note": CARD}, "signals": "no list: " + CARD, "date": [CARD]},
    )
    assert CARD not in landed["text"]
    assert landed["unknown"] == 3


def test_free_text_leaves_only_length_and_flags(connection: duckdb.DuckDBPyConnection) -> None:
    text = "Call +49 30 1234567 or mail jo@example.org, card 4111 1111-1111 1111 \u0000 ☕"
    landed = land_document(connection, table("mongodb", "customer_feedback"), {"comment": text})
    document = landed["document"]
    assert document["comment_length"] == len(text)
    assert document["comment_has_card_number"] and document["comment_has_email"] and document["comment_has_phone"]
    assert "example.org" not in landed["text"]
    assert landed["vault"] == [(document["comment_token"], text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4111111111111111", True),
        ("4111-1111-1111-1111", True),
        ("378282246310005", True),
        ("4111111111111112", False),
        ("order 1234567", False),
        ("", False),
    ],
)
def test_card_numbers_are_recognised_by_luhn(connection: duckdb.DuckDBPyConnection, text: str, expected: bool) -> None:
    assert connection.execute("select has_card_number($t)", {"t": text}).fetchone() == (expected,)


def test_missing_keys_and_nulls_are_null(connection: duckdb.DuckDBPyConnection) -> None:
    landed = land_document(connection, table("mongodb", "transactions"), {"transaction_id": "TX1", "location": None})
    assert landed["document"]["location"] is None
    assert landed["document"]["currency"] is None
    assert landed["unknown"] == 0


def test_a_missing_required_key_is_a_reason(connection: duckdb.DuckDBPyConnection) -> None:
    landed = land_document(connection, table("mongodb", "transactions"), {"amount": 1})
    assert landed["reason"] == "missing: transaction_id"


def test_a_mixed_type_field_lands_as_it_is(connection: duckdb.DuckDBPyConnection) -> None:
    for amount in (890.5, 12, "12.50", "n/a"):
        landed = land_document(connection, table("mongodb", "transactions"), {"transaction_id": "T", "amount": amount})
        assert landed["document"]["amount"] == amount


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
transaction_keys = st.sampled_from([node.name for node in table("mongodb", "transactions").document])


@given(document=st.dictionaries(transaction_keys | st.text(max_size=10), json_values, max_size=6))
def test_whatever_is_smuggled_never_lands_in_clear(
    connection: duckdb.DuckDBPyConnection, document: dict[str, Any]
) -> None:
    """A marker under every personal or undeclared key of an arbitrary document appears nowhere in what lands."""
    marker = "MARKER7f3a"
    poisoned = {**document, "location": {"ip": marker, "x": [marker]}, "surprise": {marker: document}, marker: marker}
    landed = land_document(connection, table("mongodb", "transactions"), poisoned)
    assert marker not in landed["text"]


def test_flat_rows(connection: duckdb.DuckDBPyConnection) -> None:
    compiled = boundary.compile_boundary(table("oltp", "payment_method"))
    card = "card_number_token, card_number_bin, card_number_last4"
    connection.execute("""create or replace temp table incoming as
        select 'PM1' as payment_method_id, 'CUSTOMER001' as customer_id,
        'card' as method_type, 'visa' as card_brand, '4111 1111 1111 1111' as card_number, '12/30' as card_expiry,
        'DE' as issuer_country, null::varchar as wallet, now() as created_at, now() as updated_at""")
    columns = ", ".join(f'{sql} as "{name}"' for name, sql in compiled.landed)
    row = connection.execute(f"select {card} from (select {columns} from incoming)")
    assert row.fetchone() == (pseudonym(KEY, "pan", "4111111111111111"), "41111111", "1111")
    assert not compiled.vault, "a card number is kept nowhere"


def test_a_value_that_does_not_fit_its_type_is_a_reason(connection: duckdb.DuckDBPyConnection) -> None:
    compiled = boundary.compile_boundary(table("oltp", "status"))
    connection.execute("""create or replace temp table incoming as
        select 'captured' as status_code, 'd' as description, 'perhaps' as is_final, now() as updated_at""")
    assert connection.execute(f"select {compiled.reason} from incoming").fetchone() == ("type: is_final",)


@pytest.mark.parametrize(
    ("quantity", "amount", "reason"), [(1, 0, None), (0, 5, "range: quantity"), (1, -5, "range: amount")]
)
def test_a_number_below_its_minimum_is_a_reason(
    connection: duckdb.DuckDBPyConnection, quantity: int, amount: int, reason: str | None
) -> None:
    compiled = boundary.compile_boundary(table("oltp", "transaction"))
    values = {
        "quantity": str(quantity),
        "amount": str(amount),
        "tax": "0",
        "created_at": "now()",
        "updated_at": "now()",
    }
    names = [column.name for column in table("oltp", "transaction").columns]
    columns = ", ".join(f"""{values.get(name, "'X'")} as {name}""" for name in names)
    connection.execute(f"create or replace temp table incoming as select {columns}")
    assert connection.execute(f"select {compiled.reason} from incoming").fetchone() == (reason,)


def test_every_pinned_column_is_classified_and_lands_by_its_class() -> None:
    for pinned in schema.all_tables():
        names = {name for name, _ in pinned.landed_columns}
        for leaf in pinned.columns:
            if leaf.data_class not in schema.PLAIN_CLASSES:
                assert leaf.name not in names, f"{pinned.qualified}.{leaf.name} lands in clear"
        compiled = boundary.compile_boundary(pinned)
        bookkeeping = {name for name, _ in schema.BOOKKEEPING}
        assert [name for name, _ in compiled.landed] == [n for n, _ in pinned.landed_columns if n not in bookkeeping]


@pytest.mark.parametrize(
    ("options", "problem"),
    [({}, "no class"), ({"class": "secret"}, "no class"), ({"class": "personal", "safe": ["iq"]}, "safe part")],
)
def test_an_unclassified_column_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        schema._leaf("column", options)


def test_a_declared_forbidden_value_lands_as_nothing_and_goes_nowhere() -> None:
    leaf = schema.Leaf("code", "forbidden", "varchar")
    assert boundary.leaf_parts(leaf, "code::varchar", typed="code") == []
    assert boundary._vault_rules(leaf, "code", "code::varchar") == []
