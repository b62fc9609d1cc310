"""Column-level lineage over compiled SQL: which classified parts of a value reach a column, and through what.

A trace follows a value through every expression that reads it, names aside. Only two things end it: a masking macro
that declares the part it breaks, which stands in compiled SQL between `/*breaker:NAME(*/` and `/*)breaker*/`, and the
length of a list, which says nothing of its items. Whatever cannot be resolved raises: an unknown relation, column or
syntax is never taken for harmless. Followed are values (projections), not the choice of rows (`where`, `join`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, build_scope

BREAKER_OPENS = re.compile(r"/\*\s*breaker:([a-z_]+)\(\s*\*/")
BREAKER_CLOSES = re.compile(r"/\*\s*\)breaker\s*\*/")
_CALL = "breaker__"
_HARMLESS_TABLE_FUNCTIONS = frozenset({"generate_series", "range", "pg_timezone_names", "unnest", "values", "explode"})
_LENGTH_NAMES = frozenset({"len", "json_array_length", "array_size", "size"})


@dataclass(frozen=True)
class Trace:
    """A readable part of a classified value.

    Attributes:
        data_class: personal, sensitive or pan.
        part: which part it is, for example `network_prefix`; the value itself is `value`.
        origin: where it landed.
        path: what is left of the way to it inside a document; empty: here.
    """

    data_class: str
    part: str
    origin: str
    path: tuple[str, ...] = ()


Traces = frozenset[Trace]
Columns = dict[str, Traces]
NOTHING: Traces = frozenset()


class LineageUnknown(Exception):
    """What a query reads cannot be told. The message names relation or column, never a value."""


def traced_columns(
    sql: str, relations: Mapping[str, Mapping[str, Traces]], breakers: Mapping[str, frozenset[str]], dialect: str
) -> Columns:
    """The output columns of a query, in order, each with the traces that reach it.

    Args:
        relations: `schema.table` → its columns, all of them, with their traces.
        breakers: masking macro → the parts it breaks.

    Raises:
        LineageUnknown: the query cannot be read, or reads what `relations` does not hold.
    """
    marked = BREAKER_CLOSES.sub("))", BREAKER_OPENS.sub(rf"{_CALL}\1((", sql))
    try:
        tree = sqlglot.parse_one(marked, dialect=dialect)
        scope = build_scope(tree)
    except SqlglotError as error:
        raise LineageUnknown(f"the SQL cannot be read: {str(error).splitlines()[0][:80]}") from None
    if scope is None:
        raise LineageUnknown("the SQL is not a query")
    return _Reader(relations, breakers).outputs(scope)


def breakers_used(sql: str) -> set[str]:
    """The masking macros whose marks stand in compiled SQL."""
    return set(BREAKER_OPENS.findall(sql))


class _Reader:
    def __init__(self, relations: Mapping[str, Mapping[str, Traces]], breakers: Mapping[str, frozenset[str]]) -> None:
        self._relations = relations
        self._breakers = breakers
        self._done: dict[int, Columns] = {}
        self._running: set[int] = set()

    def outputs(self, scope: Scope) -> Columns:
        """The columns of a scope, computed once."""
        key = id(scope)
        if key not in self._done:
            if key in self._running:
                raise LineageUnknown("a recursive query")
            self._running.add(key)
            self._done[key] = self._outputs(scope)
        return self._done[key]

    def _outputs(self, scope: Scope) -> Columns:
        expression = scope.expression
        if isinstance(expression, exp.SetOperation):
            if len(scope.union_scopes) != 2:
                raise LineageUnknown("a set operation without two sides")
            left, right = (self.outputs(side) for side in scope.union_scopes)
            if len(left) != len(right):
                raise LineageUnknown("the sides of a union differ in their columns")
            return {name: mine | theirs for (name, mine), theirs in zip(left.items(), right.values(), strict=True)}
        if isinstance(expression, exp.Select):
            return self._projections(scope, expression)
        if isinstance(expression, exp.Subquery):
            return self._whole(scope, expression)
        return self._udtf(scope, expression)

    def _whole(self, scope: Scope, expression: exp.Expr) -> Columns:
        inner = [*scope.subquery_scopes, *scope.derived_table_scopes]
        if len(inner) != 1:
            raise LineageUnknown("a wrapped query that is not one query")
        return self.outputs(inner[0])

    def _projections(self, scope: Scope, select: exp.Select) -> Columns:
        found: Columns = {}
        for position, projection in enumerate(select.expressions):
            star = projection.this if isinstance(projection, exp.Column) else projection
            if isinstance(star, exp.Star):
                table = projection.table if isinstance(projection, exp.Column) else ""
                left_out = {item.name.lower() for item in star.args.get("except_") or star.args.get("except") or ()}
                for name, source in scope.selected_sources.items():
                    if table in {"", name}:
                        columns = self._source_columns(source[1])
                        found.update({k: v for k, v in columns.items() if k not in left_out})
                continue
            name = projection.alias_or_name.lower() or f"_{position}"
            found[name] = self.traces(projection, scope, found)
        return found

    def _udtf(self, scope: Scope, expression: exp.Expr) -> Columns:
        """VALUES, UNNEST and LATERAL: each column may hold what any of the arguments holds."""
        everything: Traces = NOTHING
        for node in expression.args.values():
            for item in node if isinstance(node, list) else [node]:
                if isinstance(item, exp.Expr) and not isinstance(item, exp.TableAlias):
                    everything |= self.traces(item, scope, {})
        alias = expression.args.get("alias")
        names = [column.name.lower() for column in alias.columns] if isinstance(alias, exp.TableAlias) else []
        if isinstance(alias, exp.TableAlias) and not names and alias.this is not None:
            names = [alias.this.name.lower()]
        return dict.fromkeys(names, everything)

    def _source_columns(self, source: Scope | exp.Expr) -> Mapping[str, Traces]:
        if isinstance(source, Scope):
            columns: Mapping[str, Traces] = self.outputs(source)
            alias = source.expression.parent
            renamed = alias.args.get("alias") if isinstance(alias, exp.Subquery | exp.CTE) else None
            if isinstance(renamed, exp.TableAlias) and renamed.columns:
                names = [column.name.lower() for column in renamed.columns]
                return dict(zip(names, columns.values(), strict=True))
            return columns
        if not isinstance(source, exp.Table):
            raise LineageUnknown("a source that is neither a query nor a table")
        if isinstance(source.this, exp.Func):
            name = (source.this.name or source.this.sql_name()).lower()
            if name not in _HARMLESS_TABLE_FUNCTIONS:
                raise LineageUnknown(f"the table function {name}")
            return _Anything()
        name = f"{source.db}.{source.name}".lower()
        if name not in self._relations:
            raise LineageUnknown(f"the relation {name}")
        return self._relations[name]

    def traces(self, node: exp.Expr, scope: Scope, aliases: Columns) -> Traces:
        """What an expression lets through. `aliases`: columns of the same `select` that it may name."""
        if isinstance(node, exp.Column):
            return self._column(node, scope, aliases)
        if isinstance(node, exp.Identifier):
            name = node.name.lower()
            return aliases.get(name, NOTHING) if _is_parameter(node, name) else NOTHING
        if isinstance(node, exp.Query | exp.Exists):
            return self._subquery(node, scope)
        if isinstance(node, exp.Anonymous) and node.name.lower().startswith(_CALL):
            return self._broken(node, scope, aliases)
        if isinstance(node, exp.Bracket):
            found = self.traces(node.this, scope, aliases)
            for index in node.expressions:
                step = index.name if isinstance(index, exp.Literal) and index.is_string else None
                found = _into(found, step) | self.traces(index, scope, aliases)
            return found
        if isinstance(node, exp.JSONExtract | exp.JSONExtractScalar) and isinstance(node.expression, exp.JSONPath):
            found = self.traces(node.this, scope, aliases)
            for part in node.expression.expressions:
                if not isinstance(part, exp.JSONPathRoot):
                    key = part.this if isinstance(part, exp.JSONPathKey) and isinstance(part.this, str) else None
                    found = _into(found, key)
            return found
        if _is_length(node):
            return self._length(node, scope, aliases)
        if isinstance(node, exp.Lambda):
            # its parameters are items of a list that stands beside it and is followed there
            inner = aliases | {item.name.lower(): NOTHING for item in node.expressions}
            return self.traces(node.this, scope, inner)
        found = NOTHING
        for child in node.iter_expressions():
            found |= self.traces(child, scope, aliases)
        return found

    def _broken(self, node: exp.Anonymous, scope: Scope, aliases: Columns) -> Traces:
        name = node.name.lower().removeprefix(_CALL)
        if name not in self._breakers:
            raise LineageUnknown(f"the breaker {name}, which no masking macro declares")
        found = NOTHING
        for child in node.expressions:
            found |= self.traces(child, scope, aliases)
        return frozenset(trace for trace in found if trace.part not in self._breakers[name])

    def _length(self, node: exp.Expr, scope: Scope, aliases: Columns) -> Traces:
        """A number of items: of those that a lambda chose, what the lambda looked at."""
        items = node.this if not isinstance(node, exp.Anonymous) else node.expressions[0]
        if isinstance(items, exp.ArrayFilter) or (isinstance(items, exp.Anonymous) and items.name == "list_filter"):
            arguments = list(items.iter_expressions())
            chosen = next((item for item in arguments if isinstance(item, exp.Lambda)), None)
            if chosen is not None and arguments[0] is not chosen:
                elements = _into(self.traces(arguments[0], scope, aliases), None)
                inner = aliases | {item.name.lower(): elements for item in chosen.expressions}
                return self.traces(chosen.this, scope, inner)
        return frozenset(trace for trace in self.traces(items, scope, aliases) if not trace.path)

    def _subquery(self, node: exp.Expr, scope: Scope) -> Traces:
        inner = node.this if isinstance(node, exp.Exists | exp.Subquery) else node
        for child in scope.subquery_scopes:
            if child.expression is inner or child.expression is node:
                return frozenset().union(*self.outputs(child).values())
        raise LineageUnknown("a query inside an expression")

    def _column(self, column: exp.Column, scope: Scope, aliases: Columns) -> Traces:
        name, table = column.name.lower(), column.table
        if not table and name in aliases and _is_parameter(column, name):
            return aliases[name]
        at: Scope | None = scope
        while at is not None:
            if table:
                if table in at.sources:
                    columns = self._source_columns(at.sources[table])
                    if name in columns:
                        return columns[name]
                    raise LineageUnknown(f"the column {table}.{name}")
            else:
                holding = [
                    columns[name]
                    for _, source in at.selected_sources.values()
                    if name in (columns := self._source_columns(source))
                ]
                if holding:
                    return frozenset().union(*holding)
            at = at.parent
        if not table and name in aliases:
            return aliases[name]
        raise LineageUnknown(f"the column {table}.{name}" if table else f"the column {name}")


class _Anything(Mapping[str, Traces]):
    """The columns of a table function that reads no data of ours."""

    def __getitem__(self, name: str) -> Traces:
        return NOTHING

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterable[str]:  # type: ignore[override]  # nothing asks for their names
        return iter(())

    def __len__(self) -> int:
        return 0


def _is_parameter(node: exp.Expr, name: str) -> bool:
    """Whether a lambda around the node declares its name."""
    around = node.find_ancestor(exp.Lambda)
    while around is not None:
        if any(item.name.lower() == name for item in around.expressions):
            return True
        around = around.find_ancestor(exp.Lambda)
    return False


def _is_length(node: exp.Expr) -> bool:
    return isinstance(node, exp.ArraySize | exp.Length) or (
        isinstance(node, exp.Anonymous) and node.name.lower() in _LENGTH_NAMES
    )


def _into(traces: Traces, key: str | None) -> Traces:
    """The traces below a key of a document; without a key, below any: of an array, of a map."""
    found = set()
    for trace in traces:
        if not trace.path:
            found.add(trace)
        elif key is None or trace.path[0] == key:
            found.add(replace(trace, path=trace.path[1:]))
    return frozenset(found)
