"""Status, doctor and site of a published warehouse."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import MakeSettings
from tests.integration.small_warehouse import build
from warehouse.core.database import open_warehouse
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.publish import publish
from warehouse.report import RunReport
from warehouse.site import build_site
from warehouse.status import doctor, status


def quiet(_: str) -> None:
    """Progress for nobody."""


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A small warehouse, published."""
    settings = make_settings(tmp_path / "home")
    build(settings)
    publish(settings, quiet)
    return settings


def test_status_tells_loads_rows_and_ages(settings: Settings) -> None:
    now = status(settings, now=datetime(2024, 1, 2, 5, 0, 5, tzinfo=UTC))
    loads = {f"{load.source}.{load.table}": load for load in now.loads}
    assert len(loads) == 19
    assert loads["oltp.transaction"].age_hours == 2.0
    assert loads["oltp.transaction"].landed_rows == 1
    assert now.published_rows["public.fct_sales"] == 2
    assert now.running is None
    assert now.problem is None
    assert now.to_dict()["loads"][0]["finished_at"] == "2024-01-02T03:00:05+00:00"


def test_status_shows_the_newest_completed_load(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        for load, state, landed in (("load-2", "completed", 5), ("load-3", "failed", 9)):
            connection.execute(
                "insert into raw_ops.load_manifest (load_id, source, table_name, mode, status, started_at, finished_at,"
                " source_rows, landed_rows, quarantined_rows)"
                " values (?, 'oltp', 'customer', 'full', ?, '2024-01-03', '2024-01-03', ?, ?, 0)",
                [load, state, landed, landed],
            )
    publish(settings, quiet)
    [customer] = [load for load in status(settings).loads if load.table == "customer"]
    assert (customer.landed_rows, customer.mode) == (5, "full")


def test_status_answers_while_a_writer_holds_the_warehouse(settings: Settings) -> None:
    with writer_lock(settings, "refresh"), open_warehouse(settings):
        now = status(settings)
    assert now.running is not None
    assert now.running.startswith("refresh, process ")
    assert now.published_rows


def test_broken_copy_is_said_and_not_raised(settings: Settings) -> None:
    Home.of(settings).published.write_bytes(b"not a database")
    assert status(settings).problem
    [finding] = [item for item in doctor(settings, server_statuses=lambda _: []) if "does not open" in item.what]
    assert finding.severity == "error"


def test_quarantine_above_the_threshold_is_found(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        connection.execute(
            "update raw_ops.load_manifest set source_rows = 100, quarantined_rows = 2 where table_name = 'device'"
        )
        connection.execute(
            "update raw_ops.load_manifest set source_rows = 100, quarantined_rows = 1 where table_name = 'product'"
        )
    publish(settings, quiet)
    found = [item for item in doctor(settings, server_statuses=lambda _: []) if item.what.endswith("in quarantine")]
    assert [item.what for item in found] == ["oltp.device: 2 of the 100 rows of its newest load are in quarantine"]
    told = "oltp.device: 2 of the 100 rows that were read are in quarantine"
    assert status(settings).alerts == (told,)
    assert status(settings).to_dict()["alerts"] == (told,)


class Page(HTMLParser):
    """Tags and text of a page; every opened tag is closed in order."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_site_is_one_page_that_loads_nothing(settings: Settings) -> None:
    home = Home.of(settings)
    home.dbt_target.mkdir()
    (home.dbt_target / "static_index.html").write_text("<html>models</html>")
    run = RunReport.start()
    with run.step("ingest"):
        pass

    path = build_site(settings, quiet, run=run.to_dict())

    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == home.site / "index.html"
    assert (home.site / "docs.html").read_text() == "<html>models</html>"
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"(src|href)=.https?:|@import|url\(", text)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == ["docs.html", "controls.html", "sbom.json"]
    assert all((home.site / link).is_file() for link in links)
    assert "fct_sales" in page.text
    assert "Landed from PostgreSQL" in page.text
    assert run.run_id in page.text
    assert dict(page.tags)["html"] == {"lang": "en"}


def test_site_escapes_what_it_shows(settings: Settings) -> None:
    run = RunReport.start()
    report = run.to_dict() | {"error": {"what": "<script>alert(1)</script>", "kept": "&", "todo": '"'}}
    text = build_site(settings, quiet, run=report).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_site_shows_no_row(settings: Settings) -> None:
    text = build_site(settings, quiet).read_text(encoding="utf-8")
    for value in ("Laptop", "Corner Shop", "TXN001", "890.5"):
        assert value not in text
