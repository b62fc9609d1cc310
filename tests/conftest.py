"""Fixtures for every test: settings that touch nothing of the developer's, and the real source systems."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from warehouse import servers as embedded
from warehouse.core.endpoints import Endpoints
from warehouse.core.keys import create_missing_keys
from warehouse.core.settings import PROJECT_ROOT, Settings, load_settings
from warehouse.privacy.controls import RESULTS_FILE

# how long an example takes says nothing about whether it is right, and machines are shared
hypothesis.settings.register_profile("sample", deadline=None, max_examples=40)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=300)

MakeSettings = Callable[..., Settings]
RecordFigure = Callable[[str, str, str], None]
"""What was measured, what came out, what was to be reached."""
RESULTS: dict[str, list[str]] = {}
"""Test → outcome and moment, of this run."""
FIGURES: list[tuple[str, str, str]] = []
FIGURE = "figure"
"""Name of the property in which a test's report carries one, from whichever process ran it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-full` gives `--run-slow`."""
    parser.addoption("--run-slow", action="store_true", help="run the tests that take minutes, too")


def pytest_configure(config: pytest.Config) -> None:
    """`make test` tries some examples of each property, others each time; `make test-full` many."""
    hypothesis.settings.load_profile("thorough" if config.getoption("--run-slow") else "sample")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked slow, saying so, unless it was asked for; to be shared out, the longest comes first."""
    if hasattr(config, "workerinput"):
        tests = Counter(_scope(item.nodeid) for item in items)
        items.sort(key=lambda item: (_scope(item.nodeid) not in _HOMES, -tests[_scope(item.nodeid)]))
    if not config.getoption("--run-slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: `make test-full` (pytest --run-slow) runs it"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """The tests of a file share what they have built, so they stay in one process.

    Files that want a refreshed home, which takes minutes to fill, stay in one, too, and begin: whoever comes last keeps
    the other processes waiting.
    """
    config.option.loadscopereorder = False  # by number of tests alone, the longest come last
    return _ByHome(config, log)


class _ByHome(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


def _scope(nodeid: str) -> str:
    """What a process takes as a whole: a file, or the files of one home."""
    return _scope_of_file(nodeid.partition("::")[0])


@cache
def _scope_of_file(file: str) -> str:
    source = (PROJECT_ROOT / file).read_text(encoding="utf-8")
    return next((name for name, asked in _HOMES.items() if asked.search(source)), file)


_HOMES = {
    "planted company": re.compile(r"\bplanted_company: Settings\b"),
    "refreshed homes": re.compile(r"\b(company|reference): Settings\b"),
}
"""A process → how a test asks for what is refreshed in it."""


@pytest.fixture
def record_figure(record_property: Callable[[str, object], None]) -> RecordFigure:
    """Put a figure into the table that ends the run: `record_figure(name, measured, goal)`."""
    return lambda name, measured, goal: record_property(FIGURE, (name, measured, goal))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember how each test ended, for the page of controls, and what it measured."""
    if report.when == "teardown":
        FIGURES.extend(tuple(value) for name, value in report.user_properties if name == FIGURE)
    if report.when == "call" or report.outcome != "passed":
        test = report.nodeid.partition("[")[0]  # what it was given may be a canary, which must lie nowhere
        worst = max(report.outcome, RESULTS.get(test, ["passed"])[0], key=("passed", "skipped", "failed").index)
        RESULTS[test] = [worst, datetime.now(UTC).isoformat(timespec="minutes")]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Put the outcomes beside those of earlier runs."""
    if not RESULTS or hasattr(session.config, "workerinput"):
        return
    try:
        known = json.loads(RESULTS_FILE.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        known = {}
    RESULTS_FILE.parent.mkdir(exist_ok=True)
    RESULTS_FILE.write_text(json.dumps(known | RESULTS, indent=0), encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """All figures of the run in one table, last."""
    if not FIGURES:
        return
    rows = [("figure", "measured", "to reach"), *FIGURES]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    terminalreporter.section("figures")
    for name, measured, goal in rows:
        terminalreporter.write_line(f"{name:<{widths[0]}}  {measured:<{widths[1]}}  {goal}".rstrip())


@pytest.fixture(scope="session")
def make_settings() -> MakeSettings:
    """Settings of a new home with fresh keys: `make_settings(home, **overrides)`.

    Addresses that the developer's environment or `.env` may hold do not count, and `.env` is not written.
    """

    def make(home: Path, **overrides: object) -> Settings:
        values: dict[str, object] = {
            "warehouse_home": home,
            "postgres_uri": None,
            "mongodb_uri": None,
            "kafka_bootstrap": None,
            "dbt_env_secret_warehouse_key": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        settings = load_settings(**values | overrides)
        create_missing_keys(settings)
        return settings

    return make


@pytest.fixture(scope="session")
def servers(
    tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings
) -> Iterator[tuple[Settings, Endpoints]]:
    """PostgreSQL, MongoDB and Kafka, running and empty, shared by the session; stopped at its end."""
    settings = make_settings(tmp_path_factory.mktemp("servers"))
    try:
        yield settings, embedded.up(settings)
    except embedded.ServerMissing as error:
        pytest.skip(error.what)
    finally:
        embedded.down(settings)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Settings]:
    """A home whose refresh of the reference data set has completed; its servers run until the session ends."""
    yield from _refreshed(make_settings(tmp_path_factory.mktemp("reference"), dataset="reference"))


@pytest.fixture(scope="session")
def company(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Settings]:
    """A home whose refresh of a small company (3,000 payments, 30 days) has completed."""
    home = tmp_path_factory.mktemp("company")
    yield from _refreshed(make_settings(home, dataset="company", sim_transactions=3_000, sim_days=30))


@pytest.fixture(scope="session")
def landed_reference(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Settings:
    """A home into which the reference data set landed from file drops: to be copied, never changed."""
    # imported here: most tests need no dlt
    from tests.integration.landed_home import land_reference

    settings = make_settings(tmp_path_factory.mktemp("landed"), drops_settle_seconds=0)
    land_reference(settings)
    return settings


def _refreshed(settings: Settings) -> Iterator[Settings]:
    # imported here: most tests need neither dbt nor Great Expectations
    from warehouse.refresh import refresh

    try:
        refresh(settings)
        yield settings
    finally:
        embedded.down(settings)
