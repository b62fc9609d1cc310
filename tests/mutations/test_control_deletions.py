"""A control that goes is noticed: of the deletions of `control_deletions.py`, 95 % at least make their tests fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.conftest import RecordFigure
from tests.mutations.control_deletions import DELETIONS, Deletion
from warehouse.core.settings import PROJECT_ROOT

WANTED = 0.95
PROCESSORS = min(4, os.cpu_count() or 1)


def test_every_deletion_still_fits() -> None:
    wrong = [
        (item.file, item.old[:60])
        for item in DELETIONS
        if (PROJECT_ROOT / item.file).read_text(encoding="utf-8").count(item.old) != 1
    ]
    assert not wrong
    assert len(DELETIONS) >= 20


def copy_project(place: Path) -> Path:
    """A copy of the project, to take things away from: whatever git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT_ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT_ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT_ROOT / name, place / name)
    shutil.copy(place / "profiles.yml.example", place / "profiles.yml")
    return place


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> SimpleQueue[Path]:
    """As many copies as there are processors: who works in one has taken it out."""
    free: SimpleQueue[Path] = SimpleQueue()
    for _ in range(PROCESSORS):
        free.put(copy_project(tmp_path_factory.mktemp("without")))
    return free


@contextmanager
def taken(copies: SimpleQueue[Path]) -> Iterator[Path]:
    place = copies.get()
    try:
        yield place
    finally:
        copies.put(place)


def outcome(project: Path, item: Deletion) -> tuple[int, str]:
    """Exit code of the tests of a deletion without the control, and the end of what they said."""
    path = project / item.file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(item.old, item.new), encoding="utf-8")
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *item.tests],
            cwd=project,
            env=os.environ | {"PYTHONPATH": str(project)},
            capture_output=True,
            text=True,
            timeout=600,
        )
    finally:
        path.write_text(original, encoding="utf-8")
    return result.returncode, (result.stdout + result.stderr)[-500:]


@pytest.mark.slow
def test_the_deletion_of_a_control_is_noticed(copies: SimpleQueue[Path], record_figure: RecordFigure) -> None:
    def without(item: Deletion) -> tuple[int, str]:
        with taken(copies) as project:
            return outcome(project, item)

    with ThreadPoolExecutor(PROCESSORS) as pool:
        outcomes = list(zip(DELETIONS, pool.map(without, DELETIONS), strict=True))
    # 1: a test failed; anything else but 0 means that no test ran
    not_run = [(item.file, item.old[:60], said) for item, (code, said) in outcomes if code not in {0, 1}]
    assert not not_run
    survived = [(item.file, item.old[:60]) for item, (code, _) in outcomes if code == 0]
    share = 1 - len(survived) / len(DELETIONS)
    named = "".join(f"; not noticed: {file}: {old!r}" for file, old in survived)
    record_figure("deleted controls noticed", f"{share:.1%} of {len(DELETIONS)}{named}", "95 %")
    assert share >= WANTED, survived
