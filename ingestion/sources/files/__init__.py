"""File drops: `<drops>/<source>/<table>/<file>`, for partners who cannot open a port.

A drop lands through the same pinned schema, boundary and landing code as the live source of that name.
"""

from ingestion.sources.files.landing import DropsReport, land_drops

__all__ = ["DropsReport", "land_drops"]
