"""Models too large to be changed in place are built anew, files full of gaps written anew; what that stands on."""

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
from warehouse.deleted_rows import BYTES_A_ROW, MAX_GAPS, deletions_would_crowd_build, is_full_of_gaps
from warehouse.privacy.classification import Classification

ROWS = 1_000_000


@pytest.mark.parametrize(
    ("materialized", "memory", "crowded"),
    [("incremental", "24MB", True), ("incremental", "64MB", False), ("table", "24MB", False)],
)
def test_only_incremental_models_beyond_the_memory_crowd_a_build(
    make_settings: MakeSettings, tmp_path: Path, materialized: str, memory: str, crowded: bool
) -> None:
    settings = make_settings(tmp_path / "home", warehouse_memory=memory)
    with open_warehouse(settings) as connection:
        connection.execute(f"create schema {CATALOG}.public")
        connection.execute(f"create table {CATALOG}.public.fct as select range as number from range({ROWS})")
    assert not deletions_would_crowd_build(settings)  # nothing was built yet
    node = {"schema": "public", "alias": "fct", "config": {"materialized": materialized}}
    target = Home.of(settings).dbt_target
    target.mkdir(parents=True)
    (target / "manifest.json").write_text(json.dumps({"nodes": {"model.payments.fct": node}}))
    assert deletions_would_crowd_build(settings) is crowded


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


@pytest.mark.parametrize("opened", ["by us", "by dbt", "as DuckDB would"])
def test_a_checkpoint_leaves_the_gaps_of_deleted_rows_as_they_are(
    make_settings: MakeSettings, tmp_path: Path, opened: str
) -> None:
    """Whoever opens the file. As DuckDB would, it closes those of every table: when it does not, the setting may go."""
    settings = make_settings(tmp_path / "home")
    profile = yaml.safe_load((PROJECT_ROOT / "profiles.yml.example").read_text(encoding="utf-8"))
    options = profile["payments_warehouse"]["outputs"]["duckdb"]["config_options"]
    set_as = {"by us": None, "by dbt": options["max_vacuum_tasks"], "as DuckDB would": "100"}[opened]
    with open_warehouse(settings) as connection:
        connection.execute(f"create table {CATALOG}.fct as select range as number from range({ROWS})")
        connection.execute(f"checkpoint {CATALOG}")
        connection.execute(f"delete from {CATALOG}.fct where number % 10 < 4")
    with open_warehouse(settings) as connection:
        if set_as is not None:
            connection.execute(f"set max_vacuum_tasks = {set_as}")
        connection.execute(f"create table {CATALOG}.another as select 1 as number")
        connection.execute(f"checkpoint {CATALOG}")
        size = connection.execute("select estimated_size from duckdb_tables() where table_name = 'fct'").fetchone()
    assert size is not None
    assert (size[0] < ROWS) is (opened == "as DuckDB would")


@pytest.mark.parametrize(("share", "full"), [(0.0, False), (MAX_GAPS - 0.01, False), (MAX_GAPS + 0.01, True)])
def test_a_file_full_of_gaps_is_written_anew_after_the_build(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, full: bool
) -> None:
    settings = make_settings(tmp_path / "home")
    with open_warehouse(settings) as connection:
        connection.execute(f"create table {CATALOG}.fct as select range as number from range({ROWS})")
        connection.execute(f"checkpoint {CATALOG}")
        connection.execute(f"delete from {CATALOG}.fct where number % 100 < {round(share * 100)}")
    assert is_full_of_gaps(settings) is full
    before = Home.of(settings).warehouse.stat().st_ino
    _build(settings, monkeypatch)
    assert (Home.of(settings).warehouse.stat().st_ino != before) is full
    assert not is_full_of_gaps(settings)
    with open_warehouse(settings, read_only=True) as connection:
        rows = connection.execute("select count(*) from fct").fetchone()
    assert rows == (ROWS - round(share * 100) * ROWS // 100,)


@pytest.mark.parametrize("crowded", [True, False])
def test_the_refresh_then_builds_every_model_anew(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowded: bool
) -> None:
    settings = make_settings(tmp_path / "home")
    monkeypatch.setattr(refresh_module, "deletions_would_crowd_build", lambda _: crowded)
    monkeypatch.setattr(refresh_module, "is_full_of_gaps", lambda _: False)
    assert _build(settings, monkeypatch) == [["build", "--full-refresh"] if crowded else ["build"]]


def _build(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The build of a refresh, without dbt: what dbt was told."""
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
    refresh_module._build(settings, {}, state, unchanged=False, full=False, progress=silent)
    return told
