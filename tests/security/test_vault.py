"""The vault: no plain value in its file, a key for each subject, damage told from ignorance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.conftest import MakeSettings
from warehouse.core.database import attach, blank_connection
from warehouse.core.errors import ConfigurationError
from warehouse.core.keys import file_key
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.file_keys import rotate_file_key
from warehouse.privacy import vault
from warehouse.privacy.subject_keys import VaultDamaged
from warehouse.privacy.subjects import canonical_sql, canonical_subject, spellings_of

ROWS = (
    ("oltp", "customer", "CUSTOMER005", "email", "v1:1", "anna@example.com", "CUSTOMER005"),
    ("mongodb", "transactions", "65a1", "$.location.ip", "v1:2", "10.9.8.7", "CUST005"),
    ("oltp", "customer", "CUSTOMER006", "email", "v1:3", "bert@example.com", "CUSTOMER006"),
    ("oltp", "location", "LOC1", "postal_code", "v1:4", "10115", None),
    ("oltp", "location", "LOC1", "latitude", "v1:5", "52.520008 \ud83d", None),
    ("oltp", "location", "LOC2", "postal_code", None, "10117", None),
)


def incoming(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(f"create or replace temp table incoming ({vault.ENTRY_COLUMNS})")
    connection.executemany(
        "insert into incoming values (?, ?, ?, ?, ?, ?, ?, 'load', now())",
        [[text.encode("utf-8", "replace").decode() if text else text for text in row] for row in ROWS],
    )


@pytest.fixture
def settings(tmp_path: Path, make_settings: MakeSettings) -> Iterator[Settings]:
    settings = make_settings(tmp_path)
    connection = blank_connection(settings)
    try:
        vault.attach_vault(connection, settings)
        incoming(connection)
        assert vault.store_entries(connection, "incoming", settings) == 5
        assert vault.store_entries(connection, "incoming", settings) == 0, "safe to repeat"
    finally:
        connection.close()
    yield settings


def tables(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    with vault.open_vault(settings) as connection:
        return connection.execute(sql).fetchall()


def damage(settings: Settings, sql: str) -> None:
    with vault.open_vault(settings, read_only=False) as connection:
        connection.execute(sql)


def test_both_spellings_are_one_subject_with_one_key(settings: Settings) -> None:
    for name in ("CUSTOMER005", "CUST005", "CUST0005"):
        assert [entry.value for entry in vault.subject_entries(settings, name)] == ["10.9.8.7", "anna@example.com"]
    owners = {owner for (owner,) in tables(settings, "select owner from vault.subject_key")}
    assert owners == {"CUSTOMER005", "CUSTOMER006", "row|oltp.location|LOC1"}
    wrapped = tables(settings, "select count(distinct wrapped), min(octet_length(wrapped)) from vault.subject_key")
    assert wrapped == [(3, 60)]


def test_no_plain_value_is_in_any_column(settings: Settings) -> None:
    (rows,) = tables(settings, "select string_agg(sealed_entry::varchar, chr(10)) from vault.sealed_entry")[0]
    for *_, value, subject in ROWS:
        assert value.strip() not in str(rows) or subject == value
    (nonces,) = tables(settings, "select count(distinct left(hex(sealed), 24)) from vault.sealed_entry")[0]
    assert nonces == 5


def test_an_unknown_subject_is_said_so(settings: Settings) -> None:
    with pytest.raises(vault.UnknownSubject, match="no such subject"):
        vault.subject_entries(settings, "CUSTOMER999")


@pytest.mark.parametrize(
    "sql",
    [
        "update vault.sealed_entry set path = 'phone' where owner = 'CUSTOMER005'",
        "update vault.sealed_entry set owner = 'CUSTOMER005' where owner = 'CUSTOMER006'",
        "update vault.sealed_entry set sealed = 'xx'::blob where owner = 'CUSTOMER005'",
        "update vault.subject_key set wrapped = (select wrapped from vault.subject_key where owner = 'CUSTOMER006')",
        "delete from vault.subject_key where owner = 'CUSTOMER005'",
    ],
)
def test_what_was_moved_or_changed_does_not_open(settings: Settings, sql: str) -> None:
    damage(settings, sql)
    with pytest.raises(VaultDamaged, match="damaged") as error:
        vault.subject_entries(settings, "CUSTOMER005")
    assert "anna" not in str(error.value)
    assert "nothing was revealed" in error.value.kept


def test_a_damaged_file_says_so(settings: Settings) -> None:
    path = Home.of(settings).vault
    content = bytearray(path.read_bytes())
    for place in range(20_000, len(content), 4_096):
        content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises((VaultDamaged, ConfigurationError)) as error:
        vault.subject_entries(settings, "CUSTOMER005")
    assert "anna" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "missing"), ("c2hvcnQ=", "not base64 of 32 bytes"), ("?", "not base64")]
)
def test_a_missing_or_short_key_is_refused(settings: Settings, text: str | None, message: str) -> None:
    path = Home.of(settings).keys / "vault.key"
    path.unlink()
    if text is not None:
        path.write_text(text)
        path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=message):
        vault.subject_entries(settings, "CUSTOMER005")


def test_another_key_does_not_open_it(settings: Settings) -> None:
    keys = Home.of(settings).keys
    (keys / "vault.key").write_text((keys / "lake.key").read_text())
    with pytest.raises(ConfigurationError, match="does not open with this key"):
        vault.subject_entries(settings, "CUSTOMER005")


def test_a_vault_of_plain_values_is_sealed_and_written_anew(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path)
    path = Home.of(settings).vault
    path.parent.mkdir(mode=0o700)
    connection = blank_connection(settings)
    attach(connection, path, "vault", file_key(settings, "vault"))
    incoming(connection)
    connection.execute("create table vault.main.entry as from incoming")
    connection.close()
    before = path.stat().st_ino
    connection = blank_connection(settings)
    vault.attach_vault(connection, settings)
    assert connection.execute("select count(*) from vault.main.sealed_entry").fetchone() == (5,)
    assert connection.execute("select table_name from duckdb_tables() where table_name = 'entry'").fetchall() == []
    connection.close()
    assert path.stat().st_ino != before
    assert [left.name for left in path.parent.iterdir()] == ["vault.duckdb"]
    assert [entry.value for entry in vault.subject_entries(settings, "CUSTOMER006")] == ["bert@example.com"]


@pytest.mark.parametrize(
    ("subject", "canonical"),
    [
        ("CUST005", "CUSTOMER005"), ("CUST5", "CUSTOMER005"), ("CUSTOMER00012345", "CUSTOMER12345"),
        ("MERCH0003", "MERCHANT003"), ("CUST000", "CUSTOMER000"), ("SHOP7", "SHOP7"), ("CUSTX", "CUSTX"),
    ],
)  # fmt: skip
def test_ids_are_canonical_in_python_and_sql(subject: str, canonical: str) -> None:
    assert canonical_subject(subject) == canonical
    row = duckdb.execute(f"select {canonical_sql('id')} from (select ? as id)", [subject]).fetchone()
    assert row == (canonical,)
    assert canonical_subject(spellings_of(subject)[-1]) == canonical


def test_a_new_vault_key_opens_what_was_sealed_under_the_old_one(settings: Settings) -> None:
    """Subject keys are wrapped under the vault's key, and follow it."""
    known = vault.subject_entries(settings, "CUSTOMER005")
    old = file_key(settings, "vault")
    assert rotate_file_key(settings, "vault").key == "vault"
    assert file_key(settings, "vault") != old
    assert vault.subject_entries(settings, "CUSTOMER005") == known
