"""What DuckDB keeps of deleted rows: what the rules about it stand on, and files full of gaps written anew."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import duckdb
import pytest
import yaml

from tests.conftest import MakeSettings
from warehouse import deleted_rows
from warehouse import refresh as refresh_module
from warehouse.core.database import open_warehouse
from warehouse.core.errors import WarehouseError
from warehouse.core.paths import Home
from warehouse.core.progress import silent
from warehouse.core.rewrite import REMEMBERED_A_ROW
from warehouse.core.settings import CATALOG, PROJECT_ROOT, Settings
from warehouse.dbt import DbtResult
from warehouse.deleted_rows import (
    MAX_GAPS,
    MAX_SHARE,
    is_full_of_gaps,
    most_remembered,
    remembered_by_table,
    rewrite_if_due,
)
from warehouse.privacy.classification import Classification

ROWS = 1_000_000


def test_what_a_build_may_remember_is_that_of_changed_tables_and_of_those_with_deleted_rows(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(tmp_path / "home", warehouse_memory="64MB")
    with open_warehouse(settings) as connection:
        for name in ("fct", "dim", "raw"):
            connection.execute(f"create table {CATALOG}.main.{name} as select range as number from range(5000)")
        connection.execute(f"delete from {CATALOG}.main.raw where number = 7")
    expected = {"main.fct": 5000 * REMEMBERED_A_ROW, "main.raw": 5000 * REMEMBERED_A_ROW}
    assert remembered_by_table(settings, {"main.fct", "main.not_built_yet"}) == expected
    assert most_remembered(settings) == MAX_SHARE * 64_000_000


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
    assert 0.9 * REMEMBERED_A_ROW < held[0] / ROWS < 1.2 * REMEMBERED_A_ROW


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


@pytest.mark.parametrize("asked", [False, True])
def test_a_file_that_cannot_be_written_anew_stops_only_what_retention_asked_for(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    settings = make_settings(tmp_path / "home")
    with open_warehouse(settings) as connection:
        connection.execute(f"create table {CATALOG}.fct as select range as number from range({ROWS})")
        connection.execute(f"checkpoint {CATALOG}")
        connection.execute(f"delete from {CATALOG}.fct where number % 2 = 0")
    if asked:
        Home.of(settings).rewrite_due.touch()

    def fails(*_: object, **__: object) -> None:
        raise WarehouseError("warehouse.duckdb could not be written anew (IOException)", todo="free some space")

    monkeypatch.setattr(deleted_rows, "rewrite", fails)
    if asked:
        with pytest.raises(WarehouseError):
            rewrite_if_due(settings)
    else:
        said = rewrite_if_due(settings)
        assert said is not None
        assert "could not be written anew (IOException); free some space" in said
    assert Home.of(settings).rewrite_due.exists() is asked  # the next build tries again
    assert is_full_of_gaps(settings)


def _build(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build of a refresh, without dbt."""
    state: refresh_module.BuildState = {"newest_load": "1", "models": "as they were", "target": "duckdb"}
    Home.of(settings).build_state.write_text(json.dumps(state))
    classified = Classification(relations=1, classes=Counter(public=1), traced=1)
    monkeypatch.setattr(refresh_module, "build_in_parts", lambda *_, **__: DbtResult("build"))
    monkeypatch.setattr(refresh_module, "classify_compiled", lambda _: classified)
    refresh_module._build(settings, {}, state, unchanged=False, full=False, progress=silent)
