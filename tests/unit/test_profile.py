"""The profile that plain `dbt` and the refresh share: it bounds a build's memory, and a build that spills goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from jinja2 import Environment

from warehouse.core.database import blank_connection
from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.dbt import build_memory, dbt_environment


@pytest.fixture
def settings(tmp_path: Path, make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(tmp_path)


@pytest.fixture
def profile(settings: Settings) -> dict[str, Any]:
    """The output `duckdb` of the example, with the environment that the refresh gives to dbt."""
    environment = dbt_environment(settings.model_copy(update={"warehouse_memory": "100MB"}))
    text = (PROJECT_ROOT / "profiles.yml.example").read_text(encoding="utf-8")
    rendered = Environment(autoescape=False).from_string(text).render(env_var=environment.get)  # noqa: S701 - YAML
    output: dict[str, Any] = yaml.safe_load(rendered)["payments_warehouse"]["outputs"]["duckdb"]
    return output


def test_a_build_that_has_spilled_can_begin_another_model(profile: dict[str, Any], settings: Settings) -> None:
    blank_connection(settings).close()  # copies the extension to where the profile looks for it
    with duckdb.connect(":memory:", config=profile["config_options"]) as connection:
        for extension in profile["extensions"]:
            connection.load_extension(extension)
        connection.execute("create table wide as select i, sha256(i::varchar) as words from range(3_000_000) as t(i)")
        assert list(Path(profile["config_options"]["temp_directory"]).iterdir()) != [], "nothing was spilled"
        for name, value in profile["settings"].items():  # dbt-duckdb does so on every cursor
            connection.cursor().execute(f"set {name} = '{value}'")
        row = connection.execute(
            "select current_setting('temp_file_encryption'), current_setting('memory_limit')"
        ).fetchone()
    assert row == (True, "95.3 MiB")


def test_a_build_takes_no_more_than_half_the_machine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**31 // 4096}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    assert build_memory(settings) == "1024MB"
    pages["SC_PHYS_PAGES"] *= 32
    assert build_memory(settings) == "2800MB"
    assert build_memory(settings.model_copy(update={"warehouse_memory": "8GB"})) == "8GB"
