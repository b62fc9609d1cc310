"""The words that suites are written in.

Great Expectations' own expectations where it has them; `never` for everything else: a predicate that no row may
meet, evaluated in DuckDB. Queries select a constant, so no row value ever leaves the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import duckdb
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.core.expect_column_values_to_not_be_null import ExpectColumnValuesToNotBeNull
from great_expectations.expectations.core.expect_compound_columns_to_be_unique import ExpectCompoundColumnsToBeUnique
from great_expectations.expectations.core.expect_table_columns_to_match_set import ExpectTableColumnsToMatchSet
from great_expectations.expectations.core.unexpected_rows_expectation import UnexpectedRowsExpectation
from great_expectations.expectations.expectation import Expectation

CURRENCY = "[A-Z]{3}"
COUNTRY = "[A-Z]{2}"
CLOCK_SKEW = "interval 1 day"
"""How far in the future a source's clock may be."""

TOLERATED_SHARE = 0.001
"""Of a table's rows: mistakes of a source that the models flag, and `ops_data_issues` counts."""

_MACROS = (
    """create temp macro luhn_valid(digits) as list_sum(list_transform(range(len(digits)), lambda place:
        case when place % 2 = 0 then digits[len(digits) - place]::integer
             else digits[len(digits) - place]::integer * 2 // 10 + digits[len(digits) - place]::integer * 2 % 10
        end)) % 10 = 0""",
    # 13 to 19 digits, spaced or dashed, that stand alone: not the inside of a token, an identifier or a decimal.
    """create temp macro has_card_number(value) as len(list_filter(
        regexp_extract_all(value, '(?:^|[^0-9A-Za-z.])([2-6](?:[ -]?[0-9]){12,18})(?:[^0-9A-Za-z]|$)', 1),
        lambda candidate: luhn_valid(regexp_replace(candidate, '[ -]', '', 'g')))) > 0""",
    r"""create temp macro has_email(value) as
        regexp_matches(value, '[A-Za-z0-9._%+-]@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}')""",
)


class NoRows(UnexpectedRowsExpectation):
    """A query returns no row. Unlike its base it only counts, so that the query runs once and no row is fetched."""

    metric_dependencies: ClassVar[tuple[str, ...]] = ("unexpected_rows_query.row_count",)

    def _validate(self, metrics: dict[str, Any], *_: object, **__: object) -> dict[str, bool]:
        return {"success": metrics["unexpected_rows_query.row_count"] == 0}


@dataclass(frozen=True)
class Suite:
    """What must be true of one table."""

    schema: str
    table: str
    expectations: tuple[Expectation, ...]

    @property
    def name(self) -> str:
        """`raw_oltp.customer`."""
        return f"{self.schema}.{self.table}"


def add_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Teach a connection the functions that rules use. Temporary: nothing is written to the warehouse."""
    for macro in _MACROS:
        connection.execute(macro)


def never(rule: str, predicate: str, *, column: str | None = None) -> Expectation:
    """No row meets `predicate` (SQL over the table's columns). `rule` says what holds instead."""
    return returns_nothing(
        rule, f"select 1 as broken from {{batch}} where {_literal(predicate)} limit 1", column=column
    )


def rarely(rule: str, predicate: str, *, column: str | None = None, relation: str = "{batch}") -> Expectation:
    """Hardly any row meets `predicate`: what models flag and count is no reason to stop, unless it becomes a habit.

    `relation` is a from clause with `{batch}` in it, where the predicate needs more than the table.
    """
    return returns_nothing(
        rule,
        f"select 1 as broken from (select count_if({_literal(predicate)}) as found, count(*) as landed from {relation})"
        f" where found > {TOLERATED_SHARE} * landed limit 1",
        column=column,
    )


def returns_nothing(rule: str, query: str, *, column: str | None = None) -> Expectation:
    """`query` returns no row; `{batch}` in it is the table, other braces are doubled."""
    return NoRows(
        unexpected_rows_query=query,
        description=f"{column}: {rule}" if column else rule,
        meta={"rule": rule, "column": column},
    )


def not_null(column: str) -> Expectation:
    """Every row has a value."""
    return ExpectColumnValuesToNotBeNull(column=column)


def unique(*columns: str) -> Expectation:
    """No two rows have the same values."""
    if len(columns) == 1:
        return ExpectColumnValuesToBeUnique(column=columns[0])
    return ExpectCompoundColumnsToBeUnique(column_list=list(columns))


def exactly_columns(*columns: str) -> Expectation:
    """The table has these columns and no other."""
    return ExpectTableColumnsToMatchSet(column_set=list(columns), exact_match=True)


def one_of(column: str, *values: str) -> Expectation:
    """Every value that is there is one of these."""
    return ExpectColumnValuesToBeInSet(column=column, value_set=list(values))


def between(column: str, low: float | None, high: float | None) -> Expectation:
    """Every value that is there lies in the range, bounds included."""
    return ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def matches(column: str, pattern: str) -> Expectation:
    """Every value that is there matches the whole pattern (RE2)."""
    return never(f"matches {pattern}", f"not regexp_full_match({quoted(column)}, '{pattern}')", column=column)


def no_personal_text(column: str, *, but: str | None = None) -> Expectation:
    """No value holds an e-mail address or a card number (13 to 19 digits, Luhn).

    `but` is a pattern of ids whose hexadecimal digits would give false alarms.
    """
    text = f"{quoted(column)}::varchar"
    exempt = f" and not regexp_full_match({text}, '{_literal(but)}')" if but else ""
    return never(
        "holds no e-mail address and no card number",
        f"(has_email({text}) or has_card_number({text})){exempt}",
        column=column,
    )


def not_in_future(column: str) -> Expectation:
    """Nothing has happened after now, give or take a clock."""
    return never("not in the future", f"{quoted(column)} > now() + {CLOCK_SKEW}", column=column)


def quoted(column: str) -> str:
    """A column name in SQL: some of ours are keywords."""
    return f'"{column}"'


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
