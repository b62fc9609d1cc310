"""Messages of `pgoutput`, made by hand: what a real server sends is in tests/integration/test_follow_oltp.py."""

from __future__ import annotations

import struct

import pytest

from ingestion.sources.oltp.pgoutput import Change, Decoder, UnknownMessage

TABLE = 16_384


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def relation(*columns: str, schema: str = "public", table: str = "sale") -> bytes:
    described = b"".join(b"\1" + text(name) + struct.pack(">Ii", 25, -1) for name in columns)
    head = struct.pack(">cI", b"R", TABLE) + text(schema) + text(table)
    return head + b"d" + struct.pack(">h", len(columns)) + described


def row(*values: str | None, unchanged: tuple[int, ...] = ()) -> bytes:
    parts = [struct.pack(">h", len(values))]
    for place, value in enumerate(values):
        if value is None:
            parts.append(b"u" if place in unchanged else b"n")
        else:
            parts.append(b"t" + struct.pack(">i", len(value.encode())) + value.encode())
    return b"".join(parts)


def message(kind: bytes, *rows: bytes) -> bytes:
    return struct.pack(">cI", kind, TABLE) + b"".join(rows)


def decoder(*columns: str, key: tuple[str, ...] = ("id",), **table: str) -> Decoder:
    made = Decoder({"sale": key})
    assert list(made.decode(relation(*columns, **table))) == []
    return made


def test_a_composite_key_is_told_in_the_pinned_order() -> None:
    found = decoder("shop", "note", "id", key=("id", "shop")).decode(message(b"I", b"N" + row("S1", None, "7")))
    assert list(found) == [Change("sale", (("7", "S1"),))]


def test_an_update_of_the_key_tells_both_and_any_other_one() -> None:
    both = decoder("id").decode(message(b"U", b"K" + row("ä"), b"N" + row("b")))
    assert list(both) == [Change("sale", (("ä",), ("b",)))]
    assert list(decoder("id").decode(message(b"U", b"N" + row("b")))) == [Change("sale", (("b",),))]


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(message(b"U", b"N" + row(None, unchanged=(0,))), id="a long key is not repeated"),
        pytest.param(message(b"D", b"K" + row(None)), id="no key at all"),
    ],
)
def test_a_change_without_a_key_means_the_whole_table(told: bytes) -> None:
    assert list(decoder("id").decode(told)) == [Change("sale", whole=True)]


def test_a_key_that_is_not_published_means_the_whole_table() -> None:
    assert list(decoder("note").decode(message(b"I", b"N" + row("x")))) == [Change("sale", whole=True)]


@pytest.mark.parametrize("other", [{"table": "audit"}, {"schema": "private"}])
def test_other_tables_are_passed_over(other: dict[str, str]) -> None:
    made = decoder("id", **other)
    assert list(made.decode(message(b"I", b"N" + row("x")))) == []
    assert list(made.decode(struct.pack(">cibI", b"T", 1, 0, TABLE))) == []


def test_a_commit_is_the_position_after_it() -> None:
    made = Decoder({})
    assert made.end_lsn is None
    list(made.decode(struct.pack(">cbQQq", b"C", 0, 1, (3 << 32) + 255, 0)))
    assert made.end_lsn == "3/FF"


@pytest.mark.parametrize("kind", [b"B", b"Y", b"O", b"M"])
def test_what_names_no_row_is_passed_over(kind: bytes) -> None:
    assert list(Decoder({}).decode(kind + bytes(20))) == []


def test_what_the_protocol_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownMessage):
        list(Decoder({}).decode(b"S" + bytes(20)))
