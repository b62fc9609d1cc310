"""Two tables, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.recompute.sources import Row


def differences(expected: Iterable[Row], found: Iterable[Row], grain: Sequence[str]) -> list[str]:
    """What distinguishes two tables with this grain, one line each: rows missing, unexpected or doubled, and values.

    Columns compared are those of `expected`; a column it has and `found` has not is a difference, too.
    """
    left, right = _by_grain(expected, grain), _by_grain(found, grain)
    lines = [f"doubled: {key}" for table in (left, right) for key, rows in table.items() if len(rows) > 1]
    lines += [f"missing: {key}" for key in left.keys() - right.keys()]
    lines += [f"unexpected: {key}" for key in right.keys() - left.keys()]
    for key in left.keys() & right.keys():
        wanted, given = left[key][0], right[key][0]
        for name, value in wanted.items():
            if name not in given:
                lines.append(f"no column {name}")
            elif given[name] != value:
                lines.append(f"{key} {name}: recomputed {value}, built {given[name]}")
    return sorted(set(lines))


def _by_grain(rows: Iterable[Row], grain: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    table: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        table.setdefault(tuple(str(row[name]) for name in grain), []).append(row)
    return table
