"""The table of faults as docs/faults.md. `python -m tests.faults.table` writes it; a test keeps it equal."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.faults.naive import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_FOLDER = Path(__file__).parent
_HEAD = """# Faults

Each line is a fault of `tests/faults`, which it strikes two loaders with: ours, and a naive one with the habit named
here. The naive one must come out of it damaged, by real means (its connection is ended, its disk is full, its offset
is gone); ours must hold what the source holds: row count, distinct keys, sum of amounts, cursor, and no difference in
`warehouse ingest --reconcile`. `make test` runs a sample, `make test-full` every case.

*lost*: rows missing · *doubled*: rows more than once · *wrong*: content that is not the source's · *left*: rows that
the source has no more. Written by `python -m tests.faults.table` from `tests/faults/naive.py`.

| fault | a naive loader that … | has | ours | shown by |
| --- | --- | --- | --- | --- |
"""


def shown_by() -> dict[str, list[str]]:
    """Fault → tests that name it: in a call of `shows`, or in what they are parametrised with."""
    found: dict[str, list[str]] = {fault: [] for fault in FAULTS}
    for path in sorted(_FOLDER.glob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        helpers = {node.name: _texts(node) for node in module.body if isinstance(node, ast.FunctionDef)}
        constants = {
            node.targets[0].id: _texts(node)
            for node in module.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for test in (node for node in module.body if isinstance(node, ast.FunctionDef)):
            if not test.name.startswith("test_"):
                continue
            named = {name.id for name in ast.walk(test) if isinstance(name, ast.Name)}
            texts = set(helpers[test.name]).union(*((helpers | constants).get(name, set()) for name in named))
            for fault in FAULTS.keys() & texts:
                found[fault].append(f"{path.stem}.{test.name}")
    return found


def render() -> str:
    """The page."""
    tests = shown_by()
    lines = [
        f"| {fault} | {line.naive} | {', '.join(line.damage)} | {line.ours} | "
        + ", ".join(f"`{name}`" for name in tests[fault])
        + " |"
        for fault, line in FAULTS.items()
    ]
    return _HEAD + "\n".join(lines) + "\n"


def _texts(node: ast.AST) -> set[str]:
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
