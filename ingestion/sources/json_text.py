"""What JSON is: DuckDB's parser also takes `NaN` and `Infinity`, which no other reader of the documents would."""

from __future__ import annotations

_STRING = r'"(?:[^"\\]|\\.)*"'
_NO_NUMBER = r"[:,\[]\s*[-+]?(?:[Nn][Aa][Nn]|[Ii][Nn][Ff])"


def is_json_sql(column: str) -> str:
    """SQL: whether the text in `column` is JSON; null where it is null.

    A text that only looks as if it held such a number, inside a string, is looked at again without its strings: in
    branches of a `case`, because DuckDB evaluates every side of an `and` of which the value is asked for.
    """
    return f"""
        case
            when {column} is null then null
            when not json_valid({column}) then false
            when not regexp_matches({column}, '{_NO_NUMBER}') then true
            else not regexp_matches(regexp_replace({column}, '{_STRING}', '""', 'g'), '{_NO_NUMBER}')
        end
    """
