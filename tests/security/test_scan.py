"""The search finds what is planted in every channel and spelling, shows none of it, and is silent where nothing is."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pytest

from tests.conftest import MakeSettings, RecordFigure
from warehouse.core.database import add_lake_key, attach, blank_connection, open_warehouse
from warehouse.core.keys import file_key
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy.canaries import CANARIES, free_text
from warehouse.privacy.matcher import Needle
from warehouse.privacy.scan import Scan, ScanReport
from warehouse.privacy.scan_home import scan_home
from warehouse.privacy.scanner import luhn

TOKEN = "v1:" + "0123456789abcdef" * 4
CARD, EMAIL = CANARIES["card_number"], CANARIES["email"]
FOREIGN_CARD, FOREIGN_EMAIL = "5425 2334 3010 9903", "someone@a-bank.com"


def scanned(content: bytes, *needles: Needle) -> set[str]:
    scan = Scan(needles)
    scan.content("test", "content", content)
    return {finding.what for finding in scan.report.findings}


def searched(settings: Settings) -> ScanReport:
    """A search that leaves out what this checkout itself has compiled."""
    return scan_home(settings, project=settings.warehouse_home / "no project")


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.csv", content)
    return packed.getvalue()


ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda text: text.encode(),
    "upper": lambda text: text.upper().encode(),
    "base64": lambda text: base64.b64encode(f"ab{text}".encode()),
    "hex": lambda text: text.encode().hex().encode(),
    "url": lambda text: quote(text, safe="").encode(),
    "utf-16": lambda text: text.encode("utf-16-le"),
    "json": lambda text: json.dumps(text).encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "zstd": lambda text: pa.compress(text.encode(), codec="zstd", asbytes=True),
    "zip in gzip": lambda text: gzip.compress(zipped(text.encode())),
}


def test_every_class_in_every_encoding(record_figure: RecordFigure) -> None:
    missed = [
        (name, encoding)
        for name, value in CANARIES.items()
        for encoding, encode in ENCODINGS.items()
        if name not in scanned(b"\x00before " + encode(value) + b" after", Needle(name, value))
        and name not in scanned(encode(value), Needle(name, value))
    ]
    record_figure(
        "search: values planted in content", f"{len(missed)} of {len(CANARIES) * len(ENCODINGS)} missed", "0 missed"
    )
    assert len(CANARIES) >= 12
    assert luhn(CARD)
    assert not missed


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name != "upper"])
def test_patterns_are_found_in_every_encoding(encoding: str) -> None:
    encode = ENCODINGS[encoding]
    assert scanned(encode(f"paid with {FOREIGN_CARD.replace(' ', '')} today")) == {"card number"}
    assert scanned(encode(f"write to {FOREIGN_EMAIL} today")) == {"e-mail address"}


def test_a_whole_value_is_not_found_inside_another() -> None:
    assert scanned(b"customer CUST00017", Needle("subject", "CUST00017", whole=True)) == {"subject"}
    assert scanned(b"customer CUST000171", Needle("subject", "CUST00017", whole=True)) == set()


@pytest.mark.parametrize("kind", ["bigint", "hugeint", "varchar"])
def test_digits_are_found_in_whatever_column_has_room_for_them(kind: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"create table held as select 7 as id, {CARD}::{kind} as number, 1::integer as few")
        scan = Scan([Needle("card", CARD)], patterns=False)
        scan.database("test", connection, "memory")
    assert [finding.place for finding in scan.report.findings] == ["main.held.number"]
    assert (scan.report.columns["test"], scan.report.rows["test"]) == (3, 1)


def test_a_table_that_cannot_be_searched_is_named_and_the_others_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Scan._needles_in

    def damaged(scan: Scan, connection: duckdb.DuckDBPyConnection, relation: str, *others: Any) -> None:
        if "broken" in relation:
            raise duckdb.IOException("a block of it cannot be read")
        search(scan, connection, relation, *others)

    monkeypatch.setattr(Scan, "_needles_in", damaged)
    with duckdb.connect() as connection:
        connection.execute(f"create table broken as select '{CARD}' as number")
        connection.execute(f"create table held as select '{CARD}' as number")
        scan = Scan([Needle("card", CARD)], patterns=False)
        scan.database("test", connection, "memory")
    assert scan.report.unopened == {"test: main.broken": "IOException"}
    assert [finding.place for finding in scan.report.findings] == ["main.held.number"]


def test_short_values_are_counted_not_searched() -> None:
    scan = Scan([Needle("subject", "Anna"), Needle("subject", "long enough")])
    assert (scan.report.needles, scan.report.too_short) == (1, 1)


def test_what_a_tools_script_reads_as_when_decoded_is_known_too(tmp_path: Path) -> None:
    script = tmp_path / "tool.js"
    script.write_bytes(b"var x = '" + base64.b64encode(b"4111111111111111 and more of the script") + b"';")
    scan = Scan([], baseline=[script])
    scan.content("site", "docs.html", b"<script>" + script.read_bytes() + b"</script>")
    assert scan.report.findings == [] and scan.report.known == 1
    without = Scan([])
    without.content("site", "docs.html", script.read_bytes())
    assert [finding.encoding for finding in without.report.findings] == ["base64"]


def test_a_pattern_of_our_own_files_is_known_and_a_needle_never_is(tmp_path: Path) -> None:
    ours = tmp_path / "ours.md"
    ours.write_text(f"For example {FOREIGN_CARD} or {EMAIL}.")
    scan = Scan([Needle("canary email", EMAIL)], baseline=[ours])
    scan.content("test", "content", f"{FOREIGN_CARD} {EMAIL} 4111 1111 1111 1111".encode())
    assert scan.report.known == 2
    assert {item.what for item in scan.report.findings} == {"canary email", "card number"}


def small_home(settings: Settings) -> None:
    """Both databases, one load of the lake, and a file in every folder; nothing personal in any."""
    home = Home.of(settings)
    sample = (
        f"select 17 as id, '{TOKEN}' as email_token, 'gmail.com' as email_domain, '{{\"a\": [1]}}'::json as document"
    )
    with open_warehouse(settings) as connection:
        connection.execute("create schema raw_oltp")
        connection.execute(f"create table raw_oltp.customer as {sample}")
    home.published.parent.mkdir()
    connection = blank_connection(settings)
    attach(connection, home.published, CATALOG, file_key(settings, "published"))
    connection.execute(f"create schema {CATALOG}.public")
    connection.execute(f"create table {CATALOG}.public.dim_customer as {sample}")
    add_lake_key(connection, settings)
    load = home.lake / "oltp" / "customer" / "20240101T000000Z"
    load.mkdir(parents=True)
    connection.execute(f"copy ({sample}) to '{load}/part.parquet' (encryption_config {{footer_key: 'lake'}})")
    connection.close()
    for name in FILES:
        path = home.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'{"status": "completed", "rows": 17, "digest": "' + TOKEN.encode() + b'"}')


FILES = (
    "dlt/oltp/state.json", "dlt/oltp/load/loaded/part.jsonl", "target/manifest.json", "target/run_results.json",
    "target/compiled/dim_customer.sql", "logs/dbt.log", "runs/20240101.json", "site/index.html",
    "site/data_docs/validations/1.html", "spill/duckdb_temp_storage-0.tmp", "exports/analyst.csv", "snapshots/x.bak",
    "models/fraud/model.json", "audit/log.jsonl",
)  # fmt: skip


def plant_in_table(settings: Settings, value: str) -> None:
    with open_warehouse(settings) as connection:
        connection.execute("insert into raw_oltp.customer values (18, $value, null, null)", {"value": value})


def plant_in_document(settings: Settings, value: str) -> None:
    with open_warehouse(settings) as connection:
        document = json.dumps({"a": [{"b": {"note": value}}]})
        connection.execute("insert into raw_oltp.customer values (18, null, null, $value)", {"value": document})


def plant_in_published(settings: Settings, value: str) -> None:
    connection = blank_connection(settings)
    attach(connection, Home.of(settings).published, CATALOG, file_key(settings, "published"))
    connection.execute(f"update {CATALOG}.public.dim_customer set email_domain = $value", {"value": value})
    connection.close()


def plant_in_lake(settings: Settings, value: str) -> None:
    connection = blank_connection(settings)
    add_lake_key(connection, settings)
    load = Home.of(settings).lake / "oltp" / "customer" / "20240102T000000Z"
    load.mkdir()
    connection.execute(
        f"copy (select '{value}' as email_token) to '{load}/part.parquet' (encryption_config {{footer_key: 'lake'}})"
    )
    connection.close()


def plant_in_file(name: str) -> Callable[[Settings, str], None]:
    def plant(settings: Settings, value: str) -> None:
        with (Home.of(settings).root / name).open("ab") as file:
            file.write(value.encode())

    return plant


def plant_in_name(settings: Settings, value: str) -> None:
    (Home.of(settings).root / "logs" / f"{value.replace('/', ' ')}.log").write_text("")


def plant_packed(settings: Settings, value: str) -> None:
    (Home.of(settings).root / "dlt" / "package.jsonl.gz").write_bytes(gzip.compress(value.encode()))


PLANTS: dict[str, Callable[[Settings, str], None]] = {
    "warehouse column": plant_in_table,
    "nested in a document": plant_in_document,
    "published copy": plant_in_published,
    "lake": plant_in_lake,
    "file name": plant_in_name,
    "packed file": plant_packed,
    **{name: plant_in_file(name) for name in FILES},
}


@pytest.fixture(scope="module")
def clean_home(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Settings:
    settings = make_settings(tmp_path_factory.mktemp("clean"))
    small_home(settings)
    return settings


def test_a_clean_home_is_clean_and_says_what_was_searched(clean_home: Settings) -> None:
    report = searched(clean_home)
    assert report.findings == []
    assert report.unopened == {}
    assert report.clean
    assert {"warehouse", "published copy", "lake", "dbt target", "logs", "run reports"} <= set(report.files)
    assert {"warehouse", "published copy", "lake"} == set(report.columns)
    assert report.left_out["keys"]


@pytest.mark.parametrize("channel", PLANTS)
def test_a_leak_in_every_channel_is_caught_and_not_shown(
    tmp_path: Path, make_settings: MakeSettings, channel: str
) -> None:
    settings = make_settings(tmp_path)
    small_home(settings)
    PLANTS[channel](settings, EMAIL)
    report = searched(settings)
    assert "canary email" in {finding.what for finding in report.findings}
    assert not report.clean
    said = json.dumps(report.to_dict()) + "".join(map(str, report.findings))
    assert not any(value in said for value in CANARIES.values())


def test_a_lake_elsewhere_on_disk_is_searched_too(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path / "home")
    small_home(settings)
    plant_in_lake(settings, EMAIL)
    elsewhere = Home.of(settings).lake.rename(tmp_path / "the lake")
    report = searched(settings.model_copy(update={"lake_uri": elsewhere.as_uri()}))
    assert "canary email" in {finding.what for finding in report.findings if finding.channel == "lake"}


def test_every_class_is_caught_in_free_text_of_a_table(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path)
    small_home(settings)
    plant_in_document(settings, free_text())
    found = {item.what for item in searched(settings).findings if item.channel == "warehouse"}
    assert found >= {f"canary {name}" for name in CANARIES}


@pytest.mark.parametrize("value", [FOREIGN_CARD, FOREIGN_CARD.replace(" ", ""), FOREIGN_EMAIL])
def test_a_foreign_card_or_address_is_caught_in_a_column(
    tmp_path: Path, make_settings: MakeSettings, value: str
) -> None:
    settings = make_settings(tmp_path)
    small_home(settings)
    plant_in_table(settings, value)
    places = {item.place for item in searched(settings).findings}
    assert places == {"raw_oltp.customer.email_token"}


def test_a_token_with_two_runs_of_digits_is_no_card(tmp_path: Path, make_settings: MakeSettings) -> None:
    """What stands around its second run is not mistaken for what stands around the first."""
    settings = make_settings(tmp_path)
    small_home(settings)
    token = "v1:" + "77959820 51933cb2 7fdf010c 19fda832 1e8d350d 05a057fc ca587268 62305944".replace(" ", "")
    plant_in_table(settings, token)
    assert searched(settings).findings == []
    plant_in_table(settings, f"{token} {FOREIGN_CARD}")
    assert {item.what for item in searched(settings).findings} == {"card number"}


def test_what_does_not_open_is_a_failure(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path)
    small_home(settings)
    home = Home.of(settings)
    (home.root / "logs" / "cut.gz").write_bytes(gzip.compress(b"x" * 999)[:-9])
    key = home.keys / "published.key"
    key.write_text(base64.b64encode(b"\1" * 32).decode())
    report = searched(settings)
    assert {name.split(":")[0] for name in report.unopened} == {"logs", "published copy"}
    assert not report.clean


def test_an_empty_home_proves_nothing(tmp_path: Path, make_settings: MakeSettings) -> None:
    scan = Scan([])
    scan.folder("nothing", tmp_path / "missing")
    assert not scan.report.clean
