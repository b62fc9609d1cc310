"""A Kafka message's key lands only where it is an identifier of ours; anything else could be a person's."""

from __future__ import annotations

import duckdb
import pytest

from ingestion import boundary, schema
from warehouse.privacy.canaries import CANARIES, planted
from warehouse.privacy.tokens import pseudonym

KEY = bytes(32)
(TOPIC,) = schema.tables("stream").values()


def landed(key: str) -> str:
    connection = duckdb.connect()
    boundary.install(connection, KEY)
    sql = dict(boundary.compile_boundary(TOPIC).landed)["message_key"]
    row = connection.execute(f"select {sql} from (select $key as message_key)", {"key": key}).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("key", ["TXN0010001", "TX1005", "MERCHANT0010001", "TXN-1"])
def test_an_identifier_lands(key: str) -> None:
    assert landed(key) == key


@pytest.mark.parametrize("key", [*CANARIES.values(), "4111111111111111", "ana", "Ana_Example", "+4912345678", ""])
def test_anything_else_becomes_a_token(key: str) -> None:
    assert landed(key) == pseudonym(KEY, "unknown", key)


def test_no_canary_lands_however_it_is_spelled() -> None:
    assert not [text for text in planted().values() if landed(text) == text]
