"""`python -m benchmarks ingest [postgresql …] [--rows 10000000]`: measure, and write RESULTS.md.

`--rows` is the size of PostgreSQL's large table (of what memory and a reconciliation must bear), and the number of
payments of the suite `warehouse`.
"""

from __future__ import annotations

import importlib
import os
import sys

from benchmarks.harness import Row, write_results

SUITES: dict[str, dict[str, str]] = {
    "ingest": {
        "Tokens": "benchmarks.tokens",
        "PostgreSQL": "benchmarks.ingest_oltp",
        "MongoDB": "benchmarks.ingest_mongodb",
        "Kafka": "benchmarks.ingest_stream",
        "Idle": "benchmarks.ingest_idle",
    },
    "warehouse": {
        "Warehouse": "benchmarks.warehouse",
    },
}
"""Suite → title → module with a function `measure() -> list[Row]`."""


def main(arguments: list[str]) -> int:
    """Run the named suite, or parts of it; without a name, all of them. Returns the exit code."""
    if "--rows" in arguments:
        at = arguments.index("--rows")
        os.environ["BENCH_LARGE_ROWS"] = arguments[at + 1]  # before a module reads it
        arguments = [*arguments[:at], *arguments[at + 2 :]]
    suite = arguments[0] if arguments else None
    if suite is not None and suite not in SUITES:
        sys.stderr.write(f"there is no suite {suite}; there are: {', '.join(SUITES)}\n")
        return 2
    wanted = {part.lower() for part in arguments[1:]}
    sections: dict[str, list[Row]] = {}
    for name, parts in SUITES.items():
        for title, module in parts.items():
            if suite in (None, name) and (not wanted or title.lower() in wanted):
                sections[title] = importlib.import_module(module).measure()
                write_results(sections)  # at once: a run takes long, and what it has is not to be lost
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
