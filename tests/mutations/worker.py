"""A process that builds a copy of the project with one fault after another: `python -m tests.mutations.worker`.

A process of its own, because dbt keeps adapters, loaded extensions and environment variables for as long as it lives;
one process for all faults, because starting dbt takes longer than most of them. Reads a fault per line of JSON
(file, old, new, models), answers with a line of JSON: what failed first, or nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner

COPIED = ("models", "macros", "seeds", "snapshots", "tests/dbt")
FILES = ("dbt_project.yml", "profiles.yml.example")


def copy_project(root: Path, place: Path) -> None:
    """The parts of the project that dbt reads."""
    for folder in COPIED:
        shutil.copytree(root / folder, place / folder)
    for name in FILES:
        shutil.copy(root / name, place / name.removesuffix(".example"))


class Workshop:
    """A copy of the project and of a built warehouse, put in order again after each fault."""

    def __init__(self, project: Path, built: Path) -> None:
        self._project = project
        self._built = built
        self._warehouse = Path(os.environ["WAREHOUSE_HOME"]) / "warehouse.duckdb"
        self._runner = dbtRunner()

    def try_out(self, fault: dict[str, Any]) -> dict[str, Any]:
        """Build with the fault: {"failed": [[resource, name, status, message]], "seconds": …}."""
        path = self._project / fault["file"]
        original = path.read_text(encoding="utf-8")
        if original.count(fault["old"]) != 1:
            return {"error": f"{fault['file']} holds the old text {original.count(fault['old'])} times"}
        started = time.monotonic()
        path.write_text(original.replace(fault["old"], fault["new"]), encoding="utf-8")
        try:
            shutil.copy(self._built, self._warehouse)
            failed = self._build([f"{model}+" for model in fault["models"]])
        finally:
            path.write_text(original, encoding="utf-8")
        return {"failed": failed, "seconds": round(time.monotonic() - started, 1)}

    def _build(self, selected: list[str]) -> list[list[str]]:
        # what follows from a model is built in order, its unit tests before it, its data tests after it
        arguments = [
            "--quiet", "build", "--select", *selected, "--full-refresh", "--fail-fast", "--target", "duckdb",
            "--project-dir", str(self._project), "--profiles-dir", str(self._project),
        ]  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()) as said:
            result = self._runner.invoke(arguments)
        if not isinstance(result.result, RunExecutionResult):
            raise SystemExit(f"dbt did not run: {result.exception}\n{said.getvalue()[-2000:]}")
        return [
            [str(item.node.resource_type), item.node.name, str(item.status), str(item.message or "").strip()]
            for item in result.result.results
            if str(item.status) in {"fail", "error"}
        ]


def main() -> None:
    """Arguments: the project's root, an empty folder for its copy, the built warehouse to start from."""
    root, place, built = (Path(argument) for argument in sys.argv[1:])
    copy_project(root, place)
    workshop = Workshop(place, built)
    answers = sys.stdout
    for line in sys.stdin:
        print(json.dumps(workshop.try_out(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
