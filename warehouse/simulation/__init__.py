"""A payments company that fills three real source systems, and moves on day by day.

`fill` writes the data set of the settings, `advance` lives further days. The same seed gives the same bytes.
"""

from __future__ import annotations

from warehouse.simulation.report import SimulationReport
from warehouse.simulation.runner import advance, fill

__all__ = ["SimulationReport", "advance", "fill"]
