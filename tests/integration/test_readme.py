"""Every command that README.md and the runbook show is run here, or is one of the few that another test runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.dbt import dbt_environment

PAGES = ("README.md", "docs/runbook.md")
COMMAND = re.compile(r"^(?:make|dbt|\.venv/bin/warehouse|warehouse|[A-Z_]+=\S+ .*make)\b[^#\n]*", re.MULTILINE)

ELSEWHERE = {
    "make refresh": "the fixtures of test_refresh.py run what it calls",
    "make test": "is running",
    "make down": "calls `warehouse sources down`: test_servers.py",
    "DATASET=reference WAREHOUSE_HOME=.warehouse-reference make refresh": "the fixture `reference`",
    ".venv/bin/warehouse sources down": "test_servers.py",
    ".venv/bin/warehouse simulate advance --days 1": "test_refresh.py advances the company",
    ".venv/bin/warehouse privacy detect --follow": "never ends: test_detections.py follows for one round",
    ".venv/bin/warehouse privacy detect --snowflake history.jsonl": "test_detections.py, with rows to look at",
}
ONE_SUBJECT = re.compile(r" privacy (?:enrol|reveal|export|hold|erase|scan|receipts|register|retention)\b")
"""Of what the runbook shows, test_erasure.py runs these: in their order, with one-time codes, on its own home."""


def shown_commands() -> list[str]:
    """Commands of the fenced shell blocks, in order, without comments."""
    found: list[str] = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", (PROJECT_ROOT / page).read_text(encoding="utf-8"), re.DOTALL):
            found += [match.strip() for match in COMMAND.findall(block)]
    return list(dict.fromkeys(found))


def test_the_pages_show_commands() -> None:
    commands = shown_commands()
    assert "make refresh" in commands
    assert set(ELSEWHERE) <= set(commands), "a command that is no longer shown needs no excuse"


@pytest.mark.parametrize(
    "command",
    [command for command in shown_commands() if command not in ELSEWHERE and not ONE_SUBJECT.search(command)],
)
def test_a_shown_command_works(company: Settings, command: str, tmp_path: Path) -> None:
    words = command.replace(".venv/bin/", "")
    secret = company.dbt_env_secret_warehouse_key
    assert secret is not None
    environment = dbt_environment(company) | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WAREHOUSE_HOME": str(company.warehouse_home),
        "DATASET": "company",
        "SIM_TRANSACTIONS": str(company.sim_transactions),
        "SIM_DAYS": str(company.sim_days),
        "DBT_TARGET_PATH": str(tmp_path / "target"),
        "DBT_LOG_PATH": str(tmp_path / "logs"),
        "DBT_PROFILES_DIR": str(PROJECT_ROOT),
    }
    done = subprocess.run(
        ["bash", "-c", words], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_knows_every_target_that_is_shown() -> None:
    for target in ("refresh", "test", "down", "help"):
        done = subprocess.run(["make", "-n", target], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
