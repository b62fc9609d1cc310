"""Models too large to be changed in place, or full of gaps, are built anew; what these rules stand on is still so."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import duckdb
import pytest
import yaml

from tests.conftest import MakeSettings
from warehouse import refresh as refresh_module
from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.progress import silent
from warehouse.core.settings import CATALOG, PROJECT_ROOT, Settings
from warehouse.dbt import DbtResult
from warehouse.deleted_rows import BYTES_A_ROW, reason_to_build_anew
from warehouse.privacy.classification import Classification

ROWS = 1_000_000


@pytest.mark.parametrize(
    ("materialized", "memory", "deleted", "reason"),
    [
        ("incremental", "24MB", 0.0, "the build's memory"),
        ("incremental", "64MB", 0.0, None),
        ("incremental", "64MB", 0.19, None),
        ("incremental", "64MB", 0.21, "21% of the incremental models' rows"),
        ("table", "24MB", 0.21, None),
    ],
)
def test_incremental_models_beyond_the_memory_or_full_of_gaps_are_built_anew(
    make_settings: MakeSettings, tmp_path: Path, materialized: str, memory: str, deleted: float, reason: str | None
) -> None:
    settings = make_settings(tmp_path / "home", warehouse_memory=memory)
    with open_warehouse(settings) as connection:
        _build_setting(connection)
        connection.execute(f"create schema {CATALOG}.public")
        connection.execute(f"create table {CATALOG}.public.fct as select range as number from range({ROWS})")
        connection.execute(f"checkpoint {CATALOG}")
        connection.execute(f"delete from {CATALOG}.public.fct where number % 100 < {deleted * 100}")
    assert reason_to_build_anew(settings) is None  # nothing was built yet
    node = {"schema": "public", "alias": "fct", "config": {"materialized": materialized}}
    target = Home.of(settings).dbt_target
    target.mkdir(parents=True)
    (target / "manifest.json").write_text(json.dumps({"nodes": {"model.payments.fct": node}}))
    given = reason_to_build_anew(settings)
    assert given is None if reason is None else given is not None and reason in given


def test_a_day_does_not_merge_what_deleted_rows_have_left(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Without the setting of the profile a checkpoint does, and the day pays for it."""
    sizes = []
    for merging in (False, True):
        settings = make_settings(tmp_path / f"home_{merging}")
        with open_warehouse(settings) as connection:
            if not merging:
                _build_setting(connection)
            connection.execute(f"create table {CATALOG}.fct as select range as number from range({ROWS})")
            connection.execute(f"checkpoint {CATALOG}")
            connection.execute(f"delete from {CATALOG}.fct where number % 10 < 4")
            connection.execute(f"checkpoint {CATALOG}")
            sizes.append(
                connection.execute("select estimated_size from duckdb_tables() where table_name = 'fct'").fetchone()
            )
    assert sizes[0] == (ROWS,)
    assert sizes[1] is not None and sizes[1][0] < ROWS  # else the setting may go


def test_duckdb_remembers_as_much_as_the_rule_says(tmp_path: Path) -> None:
    """When this fails, DuckDB has learnt to give the memory back, and the rule may go."""
    path = tmp_path / "file.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(f"create table fct as select range as number from range({ROWS})")
        connection.execute("delete from fct where number % 1000 = 0")
    with duckdb.connect(path) as connection:
        connection.execute("select count(*) from fct").fetchall()
        held = connection.execute("select memory_usage_bytes from duckdb_memory() where tag = 'BASE_TABLE'").fetchone()
    assert held is not None
    assert 0.9 * BYTES_A_ROW < held[0] / ROWS < 1.2 * BYTES_A_ROW


@pytest.mark.parametrize("reason", ["a reason", None])
def test_the_refresh_then_builds_every_model_anew_and_says_why(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str | None
) -> None:
    settings = make_settings(tmp_path / "home")
    state: refresh_module.BuildState = {"newest_load": "1", "models": "as they were", "target": "duckdb"}
    Home.of(settings).root.mkdir(parents=True, exist_ok=True)
    Home.of(settings).build_state.write_text(json.dumps(state))
    told: list[list[str]] = []

    def run_dbt(_: Settings, arguments: list[str], **__: object) -> DbtResult:
        told.append(arguments)
        return DbtResult("build")

    classified = Classification(relations=1, classes=Counter(public=1), traced=1)
    monkeypatch.setattr(refresh_module, "run_dbt", run_dbt)
    monkeypatch.setattr(refresh_module, "classify_compiled", lambda _: classified)
    monkeypatch.setattr(refresh_module, "reason_to_build_anew", lambda _: reason)
    detail: dict[str, object] = {}
    refresh_module._build(settings, detail, state, unchanged=False, full=False, progress=silent)
    assert told == [["build", "--full-refresh"] if reason else ["build"]]
    assert detail.get("why_full") == reason


def _build_setting(connection: duckdb.DuckDBPyConnection) -> None:
    """As the profile says: nothing is merged."""
    profile = yaml.safe_load((PROJECT_ROOT / "profiles.yml.example").read_text(encoding="utf-8"))
    options = profile["payments_warehouse"]["outputs"]["duckdb"]["config_options"]
    connection.execute(f"set max_vacuum_tasks = {options['max_vacuum_tasks']}")
