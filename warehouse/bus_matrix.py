"""The bus matrix: which fact joins which dimension, read from the project's manifest and not kept by hand.

A fact joins a dimension where a relationships test says that one of its keys is found there; a key that is not tested
does not count as a join.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_REFERENCE = re.compile(r"ref\('(dim_\w+)'\)")
_HISTORY = "_history"

HEADING = "# Bus matrix: which fact joins which dimension"
PREFACE = """\
Written by `warehouse bus-matrix > docs/bus-matrix.md` from dbt's manifest; a test keeps it equal. ● joins the
dimension; a name is the role in which it does. Where a dimension has a history, a fact carries the durable key and
(marked ◆) the key of the version valid at event time, which joins `dim_<entity>_history`."""


@dataclass(frozen=True)
class BusMatrix:
    """Facts by dimensions; a cell is empty where the two do not meet."""

    dimensions: tuple[str, ...]
    facts: tuple[str, ...]
    grains: Mapping[str, str]
    """Fact → its grain, as the model declares it."""
    cells: Mapping[tuple[str, str], str]
    """(fact, dimension) → how they meet."""

    def rows(self) -> list[list[str]]:
        """Fact, grain, then one cell per dimension, as text."""
        return [
            [fact, self.grains[fact], *(self.cells.get((fact, dimension), "") for dimension in self.dimensions)]
            for fact in self.facts
        ]

    def header(self) -> list[str]:
        """The titles of `rows()`."""
        return ["fact", "grain", *(dimension.removeprefix("dim_") for dimension in self.dimensions)]

    def markdown(self) -> str:
        """The page as it lies in docs/."""
        lines = [_line(self.header()), _line(["---"] * (len(self.dimensions) + 2))]
        lines += [_line([f"`{row[0]}`", *row[1:]]) for row in self.rows()]
        return "\n".join([HEADING, "", PREFACE, "", *lines, ""])


def bus_matrix(manifest: Mapping[str, Any]) -> BusMatrix:
    """The matrix of a dbt manifest, facts and dimensions in the order of their names."""
    nodes = manifest["nodes"]
    facts = {
        key: node for key, node in nodes.items() if node["resource_type"] == "model" and node["name"].startswith("fct_")
    }
    roles: dict[tuple[str, str], set[str]] = {}
    versioned: set[tuple[str, str]] = set()
    for test in nodes.values():
        fact = facts.get(test.get("attached_node") or "")
        metadata = test.get("test_metadata") or {}
        if fact is None or metadata.get("name") != "relationships":
            continue
        found = _REFERENCE.search(str(metadata["kwargs"].get("to", "")))
        if found is None:
            continue
        dimension = found.group(1).removesuffix(_HISTORY)
        cell = (fact["name"], dimension)
        if found.group(1).endswith(_HISTORY):
            versioned.add(cell)
        else:
            roles.setdefault(cell, set()).add(str(test["column_name"]).removesuffix("_key"))
    met = roles.keys() | versioned
    cells = {}
    for cell in met:
        plain = cell[1].removeprefix("dim_")
        names = sorted(role.replace("_", " ") for role in roles.get(cell, set()) if role != plain)
        cells[cell] = (", ".join(names) or "●") + (" ◆" if cell in versioned else "")
    return BusMatrix(
        dimensions=tuple(sorted({dimension for _, dimension in met})),
        facts=tuple(sorted(node["name"] for node in facts.values())),
        grains={
            node["name"]: " \N{MULTIPLICATION SIGN} ".join(node["config"]["meta"]["grain"]) for node in facts.values()
        },
        cells=cells,
    )


def _line(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"
