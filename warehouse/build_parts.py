"""An incremental build in as few dbt processes as its memory allows.

DuckDB holds what it remembers of deleted rows until the file is closed (see :mod:`warehouse.deleted_rows`), and every
model reads tables that others have changed. Where all of them would crowd the build, it is cut: each part is a dbt run
that touches tables up to the limit, after those that it reads. A million payments are one part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import Settings
from warehouse.dbt import DbtResult, run_dbt
from warehouse.deleted_rows import most_remembered, remembered_by_table

_BUILT = {"model", "seed", "snapshot"}
_CHECKS = {"test", "unit_test"}

Node = Mapping[str, Any]
"""Of dbt's manifest."""


@dataclass(frozen=True)
class _Graph:
    """What dbt builds, and what each of it touches: the bytes by table."""

    nodes: Mapping[str, Node]
    parents: Mapping[str, set[str]]
    touched: Mapping[str, dict[str, int]]


def build_in_parts(settings: Settings, command: str, *, progress: Progress = silent) -> DbtResult:
    """`dbt build` or `dbt run` upon what was built before; the counts are those of all parts together.

    Raises QualityFailure after the part in which a model or test failed: later parts are not begun.
    """
    parts = selections(settings)
    result = DbtResult(command, parts=len(parts))
    for number, part in enumerate(parts, start=1):
        named = _named(f"part {number} of {len(parts)}: ", progress) if len(parts) > 1 else progress
        done = run_dbt(settings, [command, *part], progress=named)
        for status, count in done.counts.items():
            result.counts[status] = result.counts.get(status, 0) + count
        result.warned += done.warned
    return result


def selections(settings: Settings) -> list[list[str]]:
    """dbt's arguments for each part, in order: one part without any where all fits."""
    manifest = Home.of(settings).dbt_target / "manifest.json"
    if settings.dbt_target != "duckdb" or not manifest.exists():
        return [[]]
    graph = _graph(settings, json.loads(manifest.read_text(encoding="utf-8")))
    parts = _cut(graph, most_remembered(settings))
    if len(parts) == 1:
        return [[]]
    # a check runs with its model where all that it reads is in one part, otherwise by name in the last of them
    place = {name: number for number, part in enumerate(parts) for name in part}
    selected = [[_selector(graph.nodes[name]) for name in part] for part in parts]
    for node in graph.nodes.values():
        if node["resource_type"] in _CHECKS:
            places = {place[name] for name in node["depends_on"]["nodes"] if name in place}
            if len(places) != 1:
                selected[max(places, default=0)].append(_selector(node))
    return [["--indirect-selection", "cautious", "--select", *names] for names in selected]


def _graph(settings: Settings, manifest: Mapping[str, Any]) -> _Graph:
    nodes: dict[str, Node] = manifest["nodes"] | manifest["unit_tests"]
    built = {name for name, node in nodes.items() if node["resource_type"] in _BUILT}
    parents = {name: set(nodes[name]["depends_on"].get("nodes", [])) for name in built}
    incremental = {_relation(nodes[name]) for name in built if _materialized(nodes[name]) == "incremental"}
    remembered = remembered_by_table(settings, incremental)

    def tables(name: str) -> Iterator[tuple[str, int]]:
        """A view is what it reads. A table that each build makes anew has no deleted rows."""
        node = nodes.get(name) or manifest["sources"].get(name)
        if node is None or _materialized(node) == "table":
            return
        if _materialized(node) == "view":
            for parent in parents[name]:
                yield from tables(parent)
        elif (relation := _relation(node)) in remembered:
            yield relation, remembered[relation]

    touched = {
        name: dict(pair for touching in (name, *sorted(parents[name])) for pair in tables(touching)) for name in built
    }
    return _Graph(nodes, parents, touched)


def _cut(graph: _Graph, limit: int) -> list[list[str]]:
    """What is built, each after what it reads: next comes what adds least to the part; a part that would be full ends.

    A model beyond the limit by itself is a part of its own.
    """
    left = set(graph.touched)
    parts: list[list[str]] = [[]]
    held: dict[str, int] = {}
    while left:
        ready = [name for name in left if not graph.parents[name] & left]
        following = min(ready, key=lambda name: (sum((held | graph.touched[name]).values()), name))
        if parts[-1] and sum((held | graph.touched[following]).values()) > limit:
            parts.append([])
            held = {}
            continue
        parts[-1].append(following)
        held |= graph.touched[following]
        left.remove(following)
    return parts


def _materialized(node: Node) -> str | None:
    how: str | None = node["config"].get("materialized")
    return how


def _relation(node: Node) -> str:
    return f"{node['schema']}.{node.get('alias') or node['identifier']}"


def _selector(node: Node) -> str:
    if node["resource_type"] == "unit_test":
        return f"unit_test:{node['name']}"
    return "fqn:" + ".".join(node["fqn"])


def _named(part: str, progress: Progress) -> Progress:
    return lambda text: progress(part + text)
