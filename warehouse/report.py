"""Run reports: what each step did and how long it took, as JSON under runs/ and as rows of `raw_ops.run_steps`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from warehouse.core.database import open_warehouse
from warehouse.core.errors import WarehouseError
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings

KEEP_REPORTS = 100


@dataclass
class Step:
    """One step of a run."""

    step: str
    status: str
    started_at: datetime
    finished_at: datetime
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall time."""
        return (self.finished_at - self.started_at).total_seconds()

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "step": self.step,
            "status": self.status,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "seconds": round(self.seconds, 2),
            "detail": self.detail,
        }


@dataclass
class RunReport:
    """One run of the sequence. `status` is running, completed or failed."""

    run_id: str
    started_at: datetime
    status: str = "running"
    finished_at: datetime | None = None
    steps: list[Step] = field(default_factory=list)
    error: dict[str, str] | None = None

    @classmethod
    def start(cls) -> RunReport:
        """A new run; its id sorts by time."""
        now = datetime.now(UTC)
        return cls(run_id=f"{now:%Y%m%dT%H%M%S%f}Z", started_at=now)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time one step; what the body puts into the yielded dict is its detail. A failure is recorded and raised."""
        started = datetime.now(UTC)
        detail: dict[str, Any] = {}
        status = "failed"
        try:
            yield detail
            status = detail.pop("status", "completed")
        finally:
            self.steps.append(Step(name, status, started, datetime.now(UTC), detail))

    def finish(self, error: WarehouseError | None = None) -> None:
        """Close the run."""
        self.status = "failed" if error else "completed"
        self.error = error.to_dict() if error else None
        self.finished_at = datetime.now(UTC)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds()

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "run_id": self.run_id,
            "status": self.status,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
            "seconds": round(self.seconds, 2),
            "steps": [step.to_dict() for step in self.steps],
            "error": self.error,
        }

    def save(self, settings: Settings) -> Path:
        """Write runs/<run_id>.json and drop the oldest beyond KEEP_REPORTS."""
        folder = Home.of(settings).runs
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.run_id}.json"
        path.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")
        for old in sorted(folder.glob("*.json"))[:-KEEP_REPORTS]:
            old.unlink()
        return path


def store_steps(settings: Settings, report: RunReport) -> None:
    """Append the steps of a run to `raw_ops.run_steps`, for `ops_run_steps` to model."""
    with open_warehouse(settings) as connection:
        connection.executemany(
            f"insert into {CATALOG}.raw_ops.run_steps values (?, ?, ?, ?::timestamptz, ?::timestamptz, ?, ?)",
            [
                [
                    report.run_id,
                    step.step,
                    step.status,
                    step.started_at.isoformat(),
                    step.finished_at.isoformat(),
                    step.seconds,
                    json.dumps(step.detail),
                ]
                for step in report.steps
            ],
        )


def last_report(settings: Settings) -> dict[str, Any] | None:
    """The newest run report, or None."""
    reports = sorted(Home.of(settings).runs.glob("*.json"))
    if not reports:
        return None
    loaded: dict[str, Any] = json.loads(reports[-1].read_text(encoding="utf-8"))
    return loaded
