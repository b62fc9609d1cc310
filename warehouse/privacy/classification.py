"""Classification, fail-closed: every column has a class, and nothing classified reaches readers but through a breaker.

Both are read from dbt's manifest after a compilation: what is declared, and the SQL that really runs. What the
boundary lets land of classified values comes from ingestion's pinned schemas, so that a model cannot declare it away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from warehouse.core.errors import WarehouseError
from warehouse.privacy.lineage import NOTHING, Columns, LineageUnknown, Trace, Traces, breakers_used, traced_columns

Manifest = dict[str, Any]
Node = dict[str, Any]

CLASSES = ("public", "internal", "confidential", "personal", "sensitive", "pan", "forbidden")
CLASSIFIED = frozenset({"personal", "sensitive", "pan", "forbidden"})
READERS_SCHEMAS = ("public", "features", "ops")
"""What is published; a column elsewhere may hold classified parts."""
MASKING_FOLDER = "macros/masking/"
_MARK = "breaker:"


class ClassificationError(WarehouseError):
    """A column has no class, or a classified value reaches readers. Nothing may be published from these models."""

    exit_code = 10


@dataclass(frozen=True)
class Leak:
    """A published column that shows a part of a classified value."""

    column: str
    data_class: str
    part: str
    origin: str

    def __str__(self) -> str:
        return f"{self.column} shows {self.part} ({self.data_class}) of {self.origin}"


@dataclass
class Classification:
    """What was found.

    Attributes:
        relations: how many sources, seeds, snapshots and models were read.
        classes: class → number of columns.
        unclassified: `schema.relation.column` without a class, or that no YAML declares.
        traced: published columns whose lineage was followed.
        breakers: relation → the masking macros that its SQL calls.
        leaks: published columns that show one.
        problems: what could not be told: unreadable SQL, a forged mark. Each counts as a failure.
    """

    relations: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    unclassified: list[str] = field(default_factory=list)
    traced: int = 0
    breakers: dict[str, list[str]] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def columns(self) -> int:
        """Columns read, classified or not."""
        return sum(self.classes.values()) + len(self.unclassified)

    @property
    def coverage(self) -> float:
        """Share of columns with a class, in per cent. Nothing read is no coverage."""
        return 100 * sum(self.classes.values()) / self.columns if self.columns else 0.0

    @property
    def passed(self) -> bool:
        """Whether these models may be published."""
        return self.columns > 0 and self.traced > 0 and not (self.unclassified or self.leaks or self.problems)

    def demand(self) -> None:
        """Raise ClassificationError, naming the first findings, unless everything passed."""
        if self.passed:
            return
        found = [
            *(f"{name} has no class" for name in self.unclassified),
            *map(str, self.leaks),
            *self.problems,
        ] or ["nothing was read"]
        raise ClassificationError(
            f"classification: {len(found)} findings: {'; '.join(found[:5])}" + (" …" if len(found) > 5 else ""),
            kept="the published warehouse is the one before this run",
            todo="declare meta.classification, or let the value pass a macro of macros/masking/; "
            "`warehouse privacy classify` names every finding",
        )

    def to_dict(self) -> dict[str, Any]:
        """For `--json` and the run report."""
        return {
            "relations": self.relations,
            "columns": self.columns,
            "coverage_percent": round(self.coverage, 4),
            "classes": {name: self.classes[name] for name in CLASSES if self.classes[name]},
            "unclassified": self.unclassified,
            "traced_columns": self.traced,
            "breakers": self.breakers,
            "leaks": [vars(leak) for leak in self.leaks],
            "problems": self.problems,
            "passed": self.passed,
        }


def classify(manifest: Manifest, landed: Mapping[str, Mapping[str, Traces]], *, dialect: str) -> Classification:
    """Read a manifest with compiled SQL.

    Args:
        manifest: dbt's manifest.json after `compile` or `build` of every model.
        landed: raw table → landed column → classified parts it holds (`ingestion.classification`).
        dialect: sqlglot's name of the engine the SQL was compiled for.
    """
    result = Classification()
    declared = {_name(node): _declared(node) for node in _relations(manifest)}
    declared |= {_name(node): _inherited(node, manifest) for node in _relations(manifest) if _is_bare_snapshot(node)}
    result.relations = len(declared)
    for relation, columns in declared.items():
        if not columns:
            result.unclassified.append(f"{relation}.*")
        for column, data_class in columns.items():
            if data_class in CLASSES:
                result.classes[data_class] += 1
            else:
                result.unclassified.append(f"{relation}.{column}")
        landed_columns = landed.get(relation, {})
        result.unclassified += [f"{relation}.{column}" for column in landed_columns if column not in columns]
    result.problems += _forgeries(manifest)
    _follow(manifest, declared, landed, dialect, result)
    return result


def _follow(
    manifest: Manifest,
    declared: Mapping[str, Mapping[str, str | None]],
    landed: Mapping[str, Mapping[str, Traces]],
    dialect: str,
    result: Classification,
) -> None:
    breakers = _breakers(manifest)
    known: dict[str, Columns] = {}
    for node in _relations(manifest):
        if node["resource_type"] in {"source", "seed"}:
            name = _name(node)
            parts = landed.get(name, {})
            known[name] = {
                column: parts.get(column, NOTHING) | _of_class(data_class, f"{name}.{column}")
                for column, data_class in declared[name].items()
            }
    for node in _in_order(manifest):
        name = _name(node)
        sql = node.get("compiled_code") or ""
        try:
            if not sql:
                raise LineageUnknown("it was not compiled")
            _refuse_unused_marks(node, sql)
            known[name] = _until_stable(sql, name, declared[name], known, breakers, dialect)
        except LineageUnknown as error:
            result.problems.append(f"{name}: {error}")
            known[name] = dict.fromkeys(declared[name], NOTHING)
            continue
        result.unclassified += [f"{name}.{column}" for column in known[name] if column not in declared[name]]
        if used := sorted(breakers_used(sql)):
            result.breakers[name] = used
        if node["schema"].lower() in READERS_SCHEMAS:
            result.traced += len(known[name])
            for column, traces in known[name].items():
                found = traces | _of_class(declared[name].get(column), f"{name}.{column}")
                result.leaks += [
                    Leak(f"{name}.{column}", trace.data_class, trace.part, trace.origin)
                    for trace in sorted(found, key=lambda trace: trace.origin)
                ]


def _until_stable(
    sql: str,
    name: str,
    declared: Mapping[str, str | None],
    known: dict[str, Columns],
    breakers: Mapping[str, frozenset[str]],
    dialect: str,
) -> Columns:
    """The traced columns of a model that may read itself, as an incremental one does."""
    own: Columns = dict.fromkeys(declared, NOTHING)
    while True:
        found = traced_columns(sql, {**known, name: own}, breakers, dialect)
        grown = {column: traces | found.get(column, NOTHING) for column, traces in own.items()}
        if grown == own:
            return found
        own = grown


def _in_order(manifest: Manifest) -> Iterator[Node]:
    """Models and snapshots, each after what it reads."""
    waiting = {
        node["unique_id"]: node
        for node in manifest["nodes"].values()
        if node["resource_type"] in {"model", "snapshot"} and node["config"].get("enabled", True)
    }
    while waiting:
        ready = [
            node
            for node in waiting.values()
            if not any(parent in waiting for parent in node["depends_on"]["nodes"] if parent != node["unique_id"])
        ]
        if not ready:
            raise ClassificationError("the manifest holds models that read each other in a circle")
        for node in ready:
            yield waiting.pop(node["unique_id"])


def _relations(manifest: Manifest) -> Iterator[Node]:
    yield from manifest["sources"].values()
    for node in manifest["nodes"].values():
        if node["resource_type"] in {"model", "seed", "snapshot"}:
            yield node


def _name(node: Node) -> str:
    return f"{node['schema']}.{node.get('identifier') or node.get('alias') or node['name']}".lower()


def _declared(node: Node) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for column in node.get("columns", {}).values():
        meta = (column.get("config") or {}).get("meta") or column.get("meta") or {}
        found[str(column["name"]).lower()] = meta.get("classification")
    return found


def _is_bare_snapshot(node: Node) -> bool:
    return node["resource_type"] == "snapshot" and not node.get("columns")


def _inherited(snapshot: Node, manifest: Manifest) -> dict[str, str | None]:
    """A snapshot that declares no columns keeps those of what it is of, and their classes."""
    parents = [
        manifest["nodes"].get(parent) or manifest["sources"][parent] for parent in snapshot["depends_on"]["nodes"]
    ]
    return {column: data_class for parent in parents for column, data_class in _declared(parent).items()}


def _of_class(data_class: str | None, origin: str) -> Traces:
    return frozenset({Trace(data_class, "value", origin)}) if data_class in CLASSIFIED and data_class else NOTHING


def _breakers(manifest: Manifest) -> dict[str, frozenset[str]]:
    """Masking macro → the parts it breaks, by its `meta.breaks`. A macro elsewhere declares none."""
    return {
        macro["name"]: frozenset(parts)
        for macro in manifest["macros"].values()
        if macro["original_file_path"].startswith(MASKING_FOLDER)
        and (parts := (macro.get("config", {}).get("meta") or macro.get("meta") or {}).get("breaks"))
    }


def _forgeries(manifest: Manifest) -> list[str]:
    """Whatever writes a breaker's mark and is no masking macro."""
    found = []
    for node in manifest["nodes"].values():
        if _MARK in (node.get("raw_code") or ""):
            found.append(f"{node['name']} writes a breaker's mark itself")
    for macro in manifest["macros"].values():
        if _MARK in macro["macro_sql"] and not macro["original_file_path"].startswith(MASKING_FOLDER):
            found.append(f"the macro {macro['name']} writes a breaker's mark outside {MASKING_FOLDER}")
    return found


def _refuse_unused_marks(node: Node, sql: str) -> None:
    """A mark in compiled SQL stands for a call: the model depends on the macro, or the mark was put together."""
    called = {str(macro).rsplit(".", 1)[-1] for macro in node["depends_on"]["macros"]}
    if forged := breakers_used(sql) - called:
        raise LineageUnknown(f"a mark of {', '.join(sorted(forged))}, which the model does not call")
