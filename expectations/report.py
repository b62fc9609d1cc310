"""What a border check found: names of tables, rules and columns, never a value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Border = Literal["landing", "publishing"]


@dataclass(frozen=True)
class Failure:
    """One expectation that does not hold."""

    suite: str
    """The table: `raw_oltp.customer`."""
    expectation: str
    """The rule, in words for our own, by its Great Expectations type otherwise."""
    column: str | None
    """Column, dotted path in a document, or None for a rule about the whole table."""

    def __str__(self) -> str:
        place = f"{self.suite}.{self.column}" if self.column else self.suite
        return f"{place}: {self.expectation}"


@dataclass(frozen=True)
class QualityReport:
    """The outcome of all suites of one border."""

    border: Border
    finished_at: str
    """ISO 8601, UTC."""
    suites: int
    evaluated: int
    """Expectations."""
    failed: tuple[Failure, ...]
    seconds: float
    data_docs: Path
    """`index.html` of Great Expectations' own pages."""

    @property
    def success(self) -> bool:
        """Whether everything held."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """For run reports, `--json` and the site."""
        return {
            "border": self.border,
            "success": self.success,
            "finished_at": self.finished_at,
            "suites": self.suites,
            "evaluated": self.evaluated,
            "failed": [asdict(failure) for failure in self.failed],
            "seconds": round(self.seconds, 2),
        }
