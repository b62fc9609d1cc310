"""What a fill or an advance tells its caller."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SimulationReport:
    """The company after the call.

    Attributes:
        rows: rows written by this call, by `oltp.<table>`, `mongodb.<collection>` and `stream.<topic>`;
            empty when there was nothing to do.
        seconds: wall time of this call.
        current_date: the company has lived through every day before this one; None when nothing is simulated.
        changed: False when the systems were already filled, or are not ours to fill.
        note: one sentence for people.
    """

    rows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    current_date: dt.date | None = None
    changed: bool = False
    note: str = ""
