"""The commands of docs/incidents.md run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.integration.landed_home import copy_home
from tests.security.few_marts import publish_few_marts
from warehouse import exports, rotation
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.settings import PROJECT_ROOT, Settings

PAGE = (PROJECT_ROOT / "docs" / "incidents.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ALLOWED = {"doctor": {0, 1}}
"""`doctor` ends with 1 when something is wrong with the machine it runs on, which is what it is for."""


class Passed:
    """A classification without findings."""

    def demand(self) -> None:
        """Nothing to complain of."""


@pytest.fixture(scope="module")
def installation(landed_reference: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The reference data, landed, with a few marts, published."""
    settings = copy_home(landed_reference, tmp_path_factory.mktemp("runbook") / "home")
    publish_few_marts(settings, "create table ops.ops_quarantine as select * exclude (payload) from raw_ops.quarantine")
    return settings


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("warehouse ")]


def test_there_are_runbooks_with_commands() -> None:
    assert len(BLOCKS) >= 5
    assert all(commands(block) for block in BLOCKS)
    assert "Not yet held" in PAGE
    assert "Not performed" in PAGE


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1].removeprefix("warehouse "))
def test_the_commands_run(installation: Settings, block: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(context, "get_settings", lambda: installation)
    monkeypatch.setattr("warehouse.cli.app._settings", lambda target=None: installation)
    # the models of the whole project take minutes and are built in other tests
    monkeypatch.setattr(rotation, "run_dbt", lambda *args, **named: None)
    monkeypatch.setattr(rotation, "classify_compiled", lambda settings: Passed())
    monkeypatch.setattr(exports, "export_configured", lambda *args: [])
    for arguments in commands(block):
        result = CliRunner().invoke(app, arguments)
        allowed = ALLOWED.get(arguments[0], {0})
        assert result.exit_code in allowed, f"{shlex.join(arguments)}: {result.output[-2000:]}"
