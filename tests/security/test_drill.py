"""Exercises end in a timeline, a count, a deadline, an entry and new keys, and leave the real home as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conftest import MakeSettings, RecordFigure
from tests.integration.landed_home import copy_home, query
from tests.security.few_marts import publish_few_marts
from warehouse import drill as drilling
from warehouse import rotation
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.drill import SCENARIOS, DrillReport, drill
from warehouse.privacy.alerts import Watch
from warehouse.privacy.audit import verify
from warehouse.privacy.breaches import Breach, breaches, overdue, register
from warehouse.privacy.vault import entries_of, open_vault
from warehouse.query import run_query

UNTOUCHED = ("lake", "keys", "published", "exports", "dlt")


@pytest.fixture(scope="module")
def landed(landed_reference: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The reference data, landed, with a few marts, published."""
    settings = copy_home(landed_reference, tmp_path_factory.mktemp("drill") / "home")
    publish_few_marts(settings)
    return settings


def digests(settings: Settings) -> dict[str, str]:
    """Every file that an exercise may not touch."""
    root = Home.of(settings).root
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in UNTOUCHED
        for path in (root / name).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def reports(landed: Settings) -> dict[str, DrillReport]:
    """Every scenario, run once."""
    with pytest.MonkeyPatch.context() as patch:
        # the models of the whole project take minutes and are built in other tests
        patch.setattr(rotation, "run_dbt", lambda *args, **named: None)
        patch.setattr(
            rotation, "classify_compiled", lambda settings: type("Passed", (), {"demand": lambda self: None})()
        )
        before, raw = digests(landed), query(landed, "select * from raw_oltp.customer order by all")
        found = {}
        for scenario in SCENARIOS:
            with writer_lock(landed, "drill"):
                found[scenario] = drill(landed, scenario)
        assert digests(landed) == before
        assert query(landed, "select * from raw_oltp.customer order by all") == raw
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_exercise_yields_what_an_authority_asks_for(
    landed: Settings, reports: dict[str, DrillReport], scenario: str, record_figure: RecordFigure
) -> None:
    report = reports[scenario]
    breach = report.breach
    assert breach.subjects > 0
    assert breach.records >= breach.subjects
    assert datetime.fromisoformat(breach.deadline) - datetime.fromisoformat(breach.detected_at) == timedelta(hours=72)
    whats = [str(item["what"]) for item in breach.timeline]
    assert any(what.startswith("alert: ") for what in whats)
    assert "key_rotate" in whats
    assert sorted(str(item["at"]) for item in breach.timeline) == [str(item["at"]) for item in breach.timeline]
    assert report.receipt.broken == 0
    assert report.receipt.matched_before == report.receipt.matched_after > 0
    assert report.rotated
    assert report.copy is None
    assert not list((Home.of(landed).root / "drills").iterdir())
    record_figure(
        f"drill {scenario}",
        f"{breach.subjects} people, {report.seconds_to_detect:.1f} s to detect, {report.receipt.broken} broken joins",
        "deadline, register, 0 broken joins",
    )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_who_is_affected_is_in_the_vault_and_nowhere_else(
    landed: Settings, reports: dict[str, DrillReport], scenario: str
) -> None:
    breach = reports[scenario].breach
    with open_vault(landed) as connection:
        rows = connection.execute(
            "select subject from vault.main.incident_subject where incident = ?", [breach.incident]
        ).fetchall()
        owners = [owner for (owner,) in connection.execute("select owner from vault.main.subject_key").fetchall()]
        values = {entry.value for entry in entries_of(connection, landed, owners) if len(entry.value) > 6}
    assert len(rows) == breach.subjects
    home = Home.of(landed)
    kept = [path.read_text() for path in (home.breaches, *home.receipts.glob("*.json"))]
    told = json.dumps(reports[scenario].to_dict()) + "".join(kept)
    assert not [subject for (subject,) in rows if str(subject) in told]
    assert values
    assert not [value for value in values if value in told]


def test_the_register_holds_every_exercise(landed: Settings, reports: dict[str, DrillReport]) -> None:
    entries = breaches(landed)
    assert {entry.incident for entry in entries} >= {report.breach.incident for report in reports.values()}
    assert all(entry.exercise and entry.reason and not overdue(entry) for entry in entries)
    assert stat.S_IMODE(Home.of(landed).breaches.stat().st_mode) == 0o600
    assert verify(landed).intact


def test_an_incident_that_nothing_detects_fails_the_exercise(landed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drilling, "Watch", lambda settings: Blind(settings))
    before = len(breaches(landed))
    with pytest.raises(WarehouseError, match="no detection saw"), writer_lock(landed, "drill"):
        drill(landed, "leaked_key")
    assert len(breaches(landed)) == before
    assert not list((Home.of(landed).root / "drills").iterdir())


class Blind(Watch):
    """Detections that see nothing."""

    def look(self, *_: Any, **__: Any) -> Any:
        return type("Round", (), {"new": ()})()


@pytest.mark.slow
def test_an_exercise_with_the_real_models(company: Settings, tmp_path: Path, record_figure: RecordFigure) -> None:
    """Nothing is stubbed: the copy's models are built and tested anew under the new keys, published and exported."""
    home = tmp_path / "home"
    shutil.copytree(
        company.warehouse_home, home, ignore=shutil.ignore_patterns("servers", "spill"), ignore_dangling_symlinks=True
    )
    settings = company.model_copy(update={"warehouse_home": home})
    sales = (
        "select currency_code, count(*), sum(amount), count(distinct customer_key) from public.fct_sales group by all"
    )
    before, sold = digests(settings), query(settings, f"{sales} order by all")
    started = time.perf_counter()
    with writer_lock(settings, "drill"):
        report = drill(settings, "leaked_key", keep=True)
    seconds = time.perf_counter() - started
    assert report.receipt.rebuilt and report.receipt.broken == 0 and report.receipt.snapshot_rows == 0
    assert set(report.rotated) == {"vault", "lake", "published", "roles"}
    assert report.breach.subjects > 100
    assert report.copy is not None
    copy = settings.model_copy(update={"warehouse_home": report.copy})
    results = json.loads((Home.of(copy).dbt_target / "run_results.json").read_text())["results"]
    assert len(results) > 800
    assert {result["status"] for result in results} <= {"success", "pass", "no-op"}
    assert query(copy, f"{sales} order by all") == sold
    assert verify(copy).intact and verify(settings).intact
    published = run_query(copy, "select count(*) as sold from fct_sales")
    assert published.to_pylist() == [{"sold": sum(count for _, count, *_ in sold)}]
    assert digests(settings) == before
    record_figure("drill with the real models", f"{seconds:.0f} s, 3,000 payments", "no stub")


def test_an_unknown_scenario_is_refused(landed: Settings) -> None:
    with pytest.raises(ConfigurationError, match="no scenario"):
        drill(landed, "meteor")


def entry(**facts: Any) -> Breach:
    values: dict[str, Any] = {
        "incident": "20240101T000000Z-real", "exercise": False, "nature": "a laptop was stolen",
        "detected_at": "2024-01-01T00:00:00+00:00", "deadline": "2024-01-04T00:00:00+00:00", "subjects": 3,
        "records": 9, "categories": ("names",), "consequences": "none known", "measures": ("locked",),
        "audit_head": "0:0", "timeline": ({"at": "2024-01-01", "what": "reported"},),
    }  # fmt: skip
    return Breach(**values | facts)


@pytest.mark.parametrize(
    ("facts", "now", "late"),
    [
        ({}, "2024-01-03T23:59:59+00:00", False),
        ({}, "2024-01-04T00:00:01+00:00", True),
        ({"notified_at": "2024-01-02T00:00:00+00:00"}, "2024-01-09T00:00:00+00:00", False),
        ({"reason": "no risk to anybody: encrypted"}, "2024-01-09T00:00:00+00:00", False),
    ],
)
def test_the_clock(facts: dict[str, Any], now: str, late: bool) -> None:
    assert overdue(entry(**facts), datetime.fromisoformat(now)) is late


def test_the_register_comes_back_as_written_and_tells_what_is_overdue(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(tmp_path)
    assert breaches(settings) == []
    register(settings, entry())
    register(settings, entry(incident="second", exercise=True))
    assert breaches(settings) == [entry(), entry(incident="second", exercise=True)]
    monkeypatch.setattr(context, "get_settings", lambda: settings)
    result = CliRunner().invoke(app, ["privacy", "breaches"])
    assert result.exit_code == 1
    assert "OVERDUE" in result.stdout
    with Home.of(settings).breaches.open("a") as file:
        file.write("{}\n")
    with pytest.raises(ConfigurationError, match="no entry"):
        breaches(settings)
