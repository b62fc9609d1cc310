"""The definitions, answered: metrics of `models/semantic/`, on the published warehouse.

MetricFlow writes the SQL from dbt's semantic manifest; our locked, read-only connection runs it. Its own `mf query`
would open the writer's database, and look for a newer version of itself on the network.

A rate is never bare: asking for one gives its numerator and its denominator, too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlglot
from sqlglot import exp

from warehouse.core.errors import ConfigurationError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.query import UNCHANGED, QueryError, run_query

if TYPE_CHECKING:  # takes seconds to import
    from metricflow.engine.metricflow_engine import MetricFlowEngine

TIME = "metric_time"
GRAINS = ("day", "week", "month", "quarter", "year")

_CONDITION_PARTS = (
    exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Paren, exp.Neg, exp.And, exp.Or, exp.Not,
    exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.In, exp.Is, exp.Between, exp.Like,
)  # fmt: skip
"""What a condition is made of: names, values, comparisons."""


@dataclass(frozen=True)
class Definition:
    """A metric: what it is called and what it means. A ratio has a numerator and a denominator."""

    name: str
    description: str
    numerator: str | None = None
    denominator: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "description": self.description,
            "numerator": self.numerator,
            "denominator": self.denominator,
        }


class Metrics:
    """The metrics of one warehouse."""

    def __init__(self, settings: Settings) -> None:
        """Read the semantic manifest of the last build.

        Raises:
            ConfigurationError: there is none yet.
        """
        self._settings = settings
        self._engine = _engine(settings)
        self.definitions = {metric.name: _definition(metric) for metric in self._engine.list_metrics(False)}
        self.saved = {query.name: query for query in self._engine.list_saved_queries()}

    def sql(
        self,
        names: Sequence[str],
        *,
        by: Sequence[str] = (),
        where: str | None = None,
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> str:
        """The statement that answers.

        Args:
            names: metrics; a ratio brings its numerator and denominator.
            by: dimensions to group by, as in :meth:`dimensions`, or the last part of one where that is enough; `day`,
                `week`, `month`, `quarter` or `year` for the date of what is measured.
            where: a condition on dimensions, `currency_code = 'EUR' and month >= '2024-02-01'`.
            order: columns of the answer to order by; with `-` in front, descending. By default those of `by`.
            limit: the greatest number of rows.

        Raises:
            QueryError: a name is unknown, or the metrics cannot be cut that way together.
        """
        from metricflow.engine.metricflow_engine import MetricFlowQueryRequest

        metrics = self._with_parts(names)
        known = self.dimensions(metrics)
        groups = [_resolved(name, known) for name in by]
        columns = {name.rpartition("__")[2]: name for name in groups} | {name: name for name in [*groups, *metrics]}
        wanted = [("-" if name.startswith("-") else "", name.removeprefix("-")) for name in order]
        for _, name in wanted:
            if name not in columns:
                raise _unknown("column to order by", name, columns)
        request = MetricFlowQueryRequest.create(
            metric_names=metrics,
            group_by_names=groups,
            where_constraints=[_condition(where, known)] if where else None,
            order_by_names=[sign + columns[name] for sign, name in wanted] or groups,
            limit=limit,
        )
        return self._explained(request)

    def saved_sql(self, name: str) -> str:
        """The statement of a saved query.

        Raises:
            QueryError: there is no such query.
        """
        from metricflow.engine.metricflow_engine import MetricFlowQueryRequest

        if name not in self.saved:
            raise _unknown("saved query", name, self.saved)
        return self._explained(MetricFlowQueryRequest.create(saved_query_name=name))

    def run(self, sql: str) -> pa.Table:
        """The rows of such a statement.

        Raises:
            ConfigurationError: nothing has been published yet.
            QueryError: the statement failed.
        """
        return run_query(self._settings, sql)

    def dimensions(self, names: Sequence[str]) -> list[str]:
        """What all of these metrics can be grouped by."""
        found = self._engine.simple_dimensions_for_metrics(list(self._with_parts(names)))
        return sorted({dimension.dunder_name for dimension in found if TIME not in dimension.dunder_name})

    def _with_parts(self, names: Iterable[str]) -> list[str]:
        metrics: list[str] = []
        for name in names:
            if name not in self.definitions:
                raise _unknown("metric", name, self.definitions)
            definition = self.definitions[name]
            metrics += [part for part in (definition.numerator, definition.denominator, name) if part]
        return list(dict.fromkeys(metrics))

    def _explained(self, request: Any) -> str:
        from metricflow_semantics.errors.error_classes import InformativeUserError

        try:
            return str(self._engine.explain(request).sql_statement.without_descriptions.sql)
        except InformativeUserError as error:
            raise QueryError(
                "these metrics cannot be cut this way together",
                kept=UNCHANGED,
                todo=_suggestion(str(error)) or "`warehouse metric NAME --dimensions` lists what there is",
            ) from error


def _engine(settings: Settings) -> MetricFlowEngine:
    from metricflow.engine.metricflow_engine import MetricFlowEngine
    from metricflow.protocols.sql_client import SqlEngine
    from metricflow.sql.render.duckdb_renderer import DuckDbSqlPlanRenderer
    from metricflow_semantics.model.dbt_manifest_parser import parse_manifest_from_dbt_generated_manifest
    from metricflow_semantics.model.semantic_manifest_lookup import SemanticManifestLookup

    path = Home.of(settings).dbt_target / "semantic_manifest.json"
    if not path.exists():
        raise ConfigurationError("the metrics have not been built yet", todo="run `warehouse refresh` first")
    manifest = parse_manifest_from_dbt_generated_manifest(path.read_text(encoding="utf-8"))

    class Dialect:
        """What MetricFlow wants to know of a client that it never calls: which SQL to write."""

        sql_engine_type = SqlEngine.DUCKDB
        sql_plan_renderer = DuckDbSqlPlanRenderer()

    return MetricFlowEngine(SemanticManifestLookup(manifest), Dialect())  # type: ignore[arg-type,unused-ignore]  # a protocol, met by name


def _definition(metric: Any) -> Definition:
    parts = metric.type_params
    return Definition(
        metric.name,
        (metric.description or "").strip(),
        parts.numerator.name if parts.numerator else None,
        parts.denominator.name if parts.denominator else None,
    )


def _resolved(name: str, known: Sequence[str]) -> str:
    """The full name of a dimension: itself, the shortest one that ends in it, or a grain of time."""
    if name in GRAINS:
        return f"{TIME}__{name}"
    if name == TIME or name.removeprefix(f"{TIME}__") in GRAINS or name in known:
        return name
    ending = [full for full in known if full.endswith(f"__{name}")]
    shortest = min((full.count("__") for full in ending), default=0)
    closest = [full for full in ending if full.count("__") == shortest]
    if len(closest) == 1:
        return closest[0]
    if closest:
        raise QueryError(
            f"{name} may be {' or '.join(closest)}", kept=UNCHANGED, todo="give the full name of the dimension"
        )
    raise _unknown("dimension of these metrics", name, [*known, *(full.rpartition("__")[2] for full in known), *GRAINS])


def _condition(where: str, known: Sequence[str]) -> str:
    """The condition with each name as MetricFlow wants it."""
    trouble = QueryError(
        "the condition is not one",
        kept=UNCHANGED,
        todo="compare dimensions with values, such as: currency_code = 'EUR' and month >= '2024-02-01'",
    )
    if "{" in where or "}" in where:  # MetricFlow reads them as templates
        raise trouble
    try:
        tree = sqlglot.parse_one(where, dialect="duckdb")
    except sqlglot.errors.ParseError:
        raise trouble from None
    if not all(isinstance(node, _CONDITION_PARTS) for node in tree.walk()):
        raise trouble
    names = {column.name: _resolved(column.name, known) for column in tree.find_all(exp.Column)}
    if not names:
        raise trouble
    for column in list(tree.find_all(exp.Column)):
        column.replace(exp.Var(this=_template(names[column.name])))
    return tree.sql(dialect="duckdb")


def _template(name: str) -> str:
    first, _, last = name.rpartition("__")
    if first == TIME and last in GRAINS:
        return f"{{{{ TimeDimension('{TIME}', '{last}') }}}}"
    return f"{{{{ TimeDimension('{TIME}', 'day') }}}}" if name == TIME else f"{{{{ Dimension('{name}') }}}}"


def _unknown(kind: str, name: str, known: Iterable[str]) -> QueryError:
    candidates = sorted(set(known))
    close = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
    todo = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(candidates)}"
    return QueryError(f"there is no {kind} called {name}", kept=UNCHANGED, todo=todo)


def _suggestion(message: str) -> str:
    """The first list of names that MetricFlow offers."""
    _, found, rest = message.partition("Suggestions:")
    inside = rest.partition("[")[2].partition("]")[0] if found else ""
    names = [name.strip().strip("'") for name in inside.split(",")]
    return f"they can be cut by {', '.join(name for name in names if name)}" if inside.strip() else ""
