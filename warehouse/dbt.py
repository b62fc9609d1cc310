"""dbt as a subprocess: its own memory, an environment without our other keys, its events as progress.

`dbt` on the command line does the same; this only fills in the paths of one WAREHOUSE_HOME.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warehouse.core.errors import ConfigurationError, QualityFailure, WarehouseError
from warehouse.core.keys import WAREHOUSE_KEY_VARIABLE, warehouse_key
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import PROJECT_ROOT, Settings

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "JAVA_HOME", "SSL_CERT_FILE", "NO_COLOR")
_PREFIXES = ("SNOWFLAKE_", "SPARK_", "DBT_")
"""What dbt may see of our environment. A model can read any variable dbt has: POSTGRES_URI is not among them."""

_MOST_MEMORY_MB = 2800
"""More makes no build faster that was measured; the whole process is to stay below 4 GB."""

_NODE_EVENTS = {"LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult", "LogFreshnessResult"}


@dataclass
class DbtResult:
    """What dbt did, from run_results.json: counts by status, the names of what failed, and in how many runs."""

    command: str
    parts: int = 1
    counts: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)


def run_dbt(settings: Settings, arguments: Sequence[str], *, progress: Progress = silent) -> DbtResult:
    """Run one dbt command in the project.

    Raises:
        QualityFailure: a model, test or freshness check failed; the message names them and carries no value.
        WarehouseError: dbt itself could not run.
    """
    ensure_profiles()
    home = Home.of(settings)
    # fmt: off
    command = [
        sys.executable, "-m", "dbt.cli.main", "--log-format", "json", "--no-use-colors",
        "--log-path", str(home.logs), "--log-format-file", "debug", "--no-use-colors-file", *arguments,
        "--target", settings.dbt_target, "--target-path", str(home.dbt_target),
        "--project-dir", str(PROJECT_ROOT), "--profiles-dir", str(PROJECT_ROOT),
    ]
    # fmt: on
    results_file = home.dbt_target / ("sources.json" if "freshness" in arguments else "run_results.json")
    results_file.unlink(missing_ok=True)
    errors: list[str] = []
    process = subprocess.Popen(  # noqa: S603  our own interpreter, arguments from this program
        command,
        cwd=PROJECT_ROOT,
        env=dbt_environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if process.stdout is not None:
        for line in process.stdout:
            _follow(line, progress, errors)
    code = process.wait()
    result = _read_results(" ".join(arguments[:2]), results_file)
    if code == 0:
        return result
    if result.failed:
        raise QualityFailure(
            f"dbt {arguments[0]}: {len(result.failed)} failed: {', '.join(result.failed[:8])}"
            + (" …" if len(result.failed) > 8 else ""),
            kept="everything landed; the published warehouse is the one before this run",
            todo=f"see {home.logs / 'dbt.log'}; run `dbt {arguments[0]} --select {result.failed[0]}` by itself",
        )
    raise WarehouseError(
        f"dbt {arguments[0]} did not run: {errors[0] if errors else 'no reason given'}",
        kept="everything landed; the published warehouse is the one before this run",
        todo=f"see {home.logs / 'dbt.log'}",
    )


def ensure_profiles() -> bool:
    """Copy profiles.yml.example when there is no profiles.yml yet; returns whether it did."""
    profiles = PROJECT_ROOT / "profiles.yml"
    if profiles.exists():
        return False
    example = PROJECT_ROOT / "profiles.yml.example"
    if not example.exists():
        raise ConfigurationError("profiles.yml.example is missing", todo="restore it from the repository")
    shutil.copyfile(example, profiles)
    return True


def dbt_environment(settings: Settings) -> dict[str, str]:
    """What dbt is started with: an allowlist of ours, the warehouse key, no other key and no source address."""
    passed = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PREFIXES)}
    return passed | {
        WAREHOUSE_KEY_VARIABLE: warehouse_key(settings),
        "WAREHOUSE_HOME": str(settings.warehouse_home),
        "WAREHOUSE_MEMORY": build_memory(settings),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }


def build_memory(settings: Settings) -> str:
    """What DuckDB may hold during a build, as it spells it; dbt itself takes some 0.4 GB beside it."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return settings.warehouse_memory or f"{min(_MOST_MEMORY_MB, machine // 2)}MB"


def _follow(line: str, progress: Progress, errors: list[str]) -> None:
    try:
        event: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return
    data, info = event.get("data", {}), event.get("info", {})
    if info.get("name") in _NODE_EVENTS:
        node = data.get("node_info", {}).get("node_name") or data.get("name", "")
        total = data.get("total") or data.get("num_models", "?")
        progress(f"{data.get('index', '?')}/{total} {node}")
    if info.get("level") == "error" and info.get("name") in {"MainEncounteredError", "MainStackTrace"}:
        # the first line names what is wrong; the rest may quote SQL
        errors.append(str(data.get("exc") or info.get("msg", "")).strip().splitlines()[0])


def _read_results(command: str, path: Path) -> DbtResult:
    result = DbtResult(command)
    if not path.exists():
        return result
    for item in json.loads(path.read_text(encoding="utf-8")).get("results", []):
        status = str(item["status"])
        result.counts[status] = result.counts.get(status, 0) + 1
        name = ".".join(str(item["unique_id"]).split(".")[2:3])
        if item["unique_id"].startswith("source."):
            name = ".".join(str(item["unique_id"]).split(".")[2:4])
        if status in {"error", "fail", "runtime error"}:
            result.failed.append(name)
        elif status == "warn":
            result.warned.append(name)
    return result
