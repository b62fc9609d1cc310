"""The peers' programs. `make bench` installs them into a folder of their own: no installation of ours needs them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".venv-peers"
_SLING = "lib/python3*/site-packages/sling_linux_amd64/bin/sling-linux-amd64"


def rivet() -> str | None:
    """The program of rivet-cli: BENCH_RIVET, the one on the path, or the installed one; None where there is none."""
    return os.environ.get("BENCH_RIVET") or shutil.which("rivet") or _first(FOLDER.glob("bin/rivet"))


def sling() -> str | None:
    """The program of sling: SLING_BINARY, or the installed one. Its wrapper would download one, and is not asked."""
    return os.environ.get("SLING_BINARY") or _first(FOLDER.glob(_SLING))


def _first(found: Iterable[Path]) -> str | None:
    return next((str(path) for path in found if os.access(path, os.X_OK)), None)
