"""A build whose tables would crowd its memory is cut into dbt runs that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSettings
from warehouse import build_parts
from warehouse.core.database import open_warehouse
from warehouse.core.errors import QualityFailure
from warehouse.core.paths import Home
from warehouse.core.rewrite import REMEMBERED_A_ROW
from warehouse.core.settings import CATALOG, Settings
from warehouse.dbt import DbtResult
from warehouse.deleted_rows import MAX_SHARE

ROWS = 10_000
# what each stands on; upper case is made anew by every build, and holds nothing
MODELS = {
    "events": ["source.p.raw.events"],
    "payments": ["model.p.events"],
    "REPORT": ["model.p.payments"],
    "clicks": ["source.p.raw.events"],
    "visits": ["model.p.clicks", "model.p.through"],
    "through": ["model.p.payments"],
}
CHECKS = {
    "payments_are_unique": ["model.p.payments"],
    "visits_have_payments": ["model.p.visits", "model.p.payments"],
    "macro_holds": [],
}


@pytest.fixture
def built(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A warehouse with four incremental models, a table made anew, and a view through which one of them is read."""
    settings = make_settings(tmp_path / "home")
    nodes: dict[str, dict[str, Any]] = {}
    with open_warehouse(settings) as connection:
        for name, parents in MODELS.items():
            materialized = "view" if name == "through" else "table" if name.isupper() else "incremental"
            if materialized != "view":
                connection.execute(f"create table {CATALOG}.main.{name} as select range as n from range({ROWS})")
            nodes[f"model.p.{name}"] = _node("model", name, parents, materialized)
    checks = {f"test.p.{name}": _node("test", name, parents, "test") for name, parents in CHECKS.items()}
    rule = {"unit_test.p.payments.rule": _node("unit_test", "rule", ["model.p.payments"], "unit")}
    source = _node("source", "events", [], None) | {"schema": "raw"}
    manifest = {"nodes": nodes | checks, "unit_tests": rule, "sources": {"source.p.raw.events": source}}
    Home.of(settings).dbt_target.mkdir(parents=True)
    (Home.of(settings).dbt_target / "manifest.json").write_text(json.dumps(manifest))
    return settings


def _node(kind: str, name: str, parents: list[str], materialized: str | None) -> dict[str, Any]:
    return {
        "resource_type": kind,
        "name": name,
        "fqn": ["p", name],
        "schema": "main",
        "alias": name,
        "config": {"materialized": materialized},
        "depends_on": {"nodes": parents},
    }


def _with_room_for(settings: Settings, tables: float) -> Settings:
    """With memory enough for what is remembered of so many tables."""
    megabytes = tables * ROWS * REMEMBERED_A_ROW / MAX_SHARE / 1e6
    return settings.model_copy(update={"warehouse_memory": f"{megabytes}MB"})


def test_where_all_fits_dbt_is_told_nothing(built: Settings) -> None:
    assert build_parts.selections(_with_room_for(built, 4)) == [[]]


def test_parts_go_one_after_the_other_and_checks_with_the_last_model_that_they_read(built: Settings) -> None:
    selected = build_parts.selections(_with_room_for(built, 3.5))
    assert [part[:3] for part in selected] == [["--indirect-selection", "cautious", "--select"]] * 2
    first, second = (part[3:] for part in selected)
    assert set(first) == {"fqn:p.events", "fqn:p.clicks", "fqn:p.payments", "fqn:p.REPORT", "fqn:p.through"} | {
        "fqn:p.macro_holds"  # it reads no model
    }
    # what reads models of both has to be named: dbt would leave it out of both
    assert second == ["fqn:p.visits", "fqn:p.visits_have_payments"]


@pytest.mark.parametrize("room", [0.5, 1, 2, 3, 3.5])
def test_every_model_is_built_once_after_what_it_reads_and_no_part_holds_too_much(built: Settings, room: float) -> None:
    parts = [part[3:] for part in build_parts.selections(_with_room_for(built, room))]
    order = [name.removeprefix("fqn:p.") for part in parts for name in part]
    models = [name for name in order if name in MODELS]
    assert sorted(models) == sorted(MODELS)
    for name, parents in MODELS.items():
        for parent in parents:
            if parent.startswith("model."):
                assert models.index(parent.removeprefix("model.p.")) < models.index(name)
    for part in parts:
        touched = {table for name in part for table in _touched(name.removeprefix("fqn:p."))}
        alone = [name for name in part if name.removeprefix("fqn:p.") in MODELS]
        assert len(touched) <= room or len(alone) == 1 or not touched


def _touched(name: str) -> set[str]:
    """The incremental models that a node changes or reads."""
    if name == "through":
        return {"payments"}
    found = {name} if name.islower() and name in MODELS else set()
    for parent in MODELS.get(name, []):
        short = parent.removeprefix("model.p.")
        if parent.startswith("model."):
            found |= _touched(short) if short == "through" else {short}
    return found


@pytest.mark.parametrize("target", ["snowflake", "duckdb"])
def test_nothing_is_cut_elsewhere_or_before_the_first_build(built: Settings, target: str) -> None:
    settings = _with_room_for(built, 1).model_copy(update={"dbt_target": target})
    if target == "duckdb":
        (Home.of(settings).dbt_target / "manifest.json").unlink()
    assert build_parts.selections(settings) == [[]]


def test_results_are_added_up_and_a_failed_part_is_the_last(built: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []
    fails_at = 0

    def run_dbt(_: Settings, arguments: list[str], **__: object) -> DbtResult:
        told.append(arguments)
        if len(told) == fails_at:
            raise QualityFailure("one failed")
        return DbtResult("build", counts={"success": len(told), "warn": 1}, warned=[f"of part {len(told)}"])

    monkeypatch.setattr(build_parts, "run_dbt", run_dbt)
    settings = _with_room_for(built, 3.5)
    said: list[str] = []
    result = build_parts.build_in_parts(settings, "build", progress=said.append)
    assert (result.command, result.counts) == ("build", {"success": 3, "warn": 2})
    assert result.warned == ["of part 1", "of part 2"]
    assert [arguments[0] for arguments in told] == ["build", "build"]
    told.clear()
    fails_at = 1
    with pytest.raises(QualityFailure):
        build_parts.build_in_parts(settings, "build")
    assert len(told) == 1
