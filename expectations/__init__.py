"""What must be true at the two borders: of `raw_*` before the build, of `public` before it is published.

    from expectations import run_landing, run_publishing

Suites are declared in :mod:`expectations.landing` and :mod:`expectations.publishing`, one per table, and run by
Great Expectations inside DuckDB. Importing this package does not import Great Expectations (a second); running does.
"""

from expectations.report import Failure, QualityReport
from expectations.runner import run_landing, run_publishing

__all__ = ["Failure", "QualityReport", "run_landing", "run_publishing"]
