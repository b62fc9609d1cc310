"""What a search of one installation covers: every file of its home, both databases, every load of the lake."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import duckdb

from warehouse.core.backups import as_home, backup_places, backup_root
from warehouse.core.database import LAKE_KEY_NAME, add_lake_key, blank_connection, open_published, open_warehouse
from warehouse.core.errors import WarehouseError
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import CATALOG, PROJECT_ROOT, Settings
from warehouse.privacy.canaries import CANARIES
from warehouse.privacy.matcher import Needle
from warehouse.privacy.scan import Scan, ScanReport

FOUND = 11
"""Exit code of a search that did not end clean."""

CHANNELS = {
    "warehouse.duckdb": "warehouse",
    "landing-snowflake.duckdb": "warehouse",
    "published": "published copy",
    "lake": "lake",
    "vault": "vault file",
    "dlt": "dlt working directory",
    "target": "dbt target",
    "logs": "logs",
    "runs": "run reports",
    "site": "site and data docs",
    "spill": "spill files",
    "exports": "exports",
    "snapshots": "backups",
    "backups": "backups",
    "before-restore": "backups",
    "audit": "audit log",
    "audit-head": "audit log",
    "models": "model artefacts",
}
"""First part of a path below WAREHOUSE_HOME → the channel it is reported as; anything else is `other files`."""

LEFT_OUT = {
    "servers": "the source systems themselves",
    "drops": "what partners hand in; removed once landed",
    "extensions": "DuckDB's own binaries",
    "keys": "key material, not data",
}


def scan_home(
    settings: Settings,
    needles: Iterable[Needle] = (),
    *,
    baseline: Iterable[Path] = (),
    project: Path = PROJECT_ROOT,
    patterns: bool = True,
    progress: Progress = silent,
) -> ScanReport:
    """Search one installation for `needles` and, with `patterns`, for card numbers, e-mail addresses and the canaries.

    Needs the databases for itself: hold the writer's lock. What does not open is reported, never passed over.
    """
    canaries = [Needle(f"canary {name}", value) for name, value in CANARIES.items()] if patterns else []
    known = [*project_files(project), *baseline] if patterns else []
    scan = Scan([*canaries, *needles], baseline=known, patterns=patterns, progress=progress)
    home = Home.of(settings)
    for path in sorted(home.root.iterdir()) if home.root.is_dir() else ():
        if path.name in LEFT_OUT:
            scan.report.left_out[path.name] = LEFT_OUT[path.name]
        else:
            scan.folder(CHANNELS.get(path.name, "other files"), path)
    for name in ("target", "logs"):
        scan.folder(f"dbt {name} of the project", project / name)
    if home.warehouse.exists():
        _columns(scan, "warehouse", lambda: open_warehouse(settings, read_only=True))
    if home.published.exists():
        _columns(scan, "published copy", lambda: open_published(settings))
    _lake(scan, settings, home)
    if (root := backup_root(settings)).parent != home.root:
        scan.folder("backups", root)
    for place in backup_places(settings):
        with as_home(settings, place) as inside:
            if Home.of(inside).warehouse.exists():
                _columns(scan, f"backup {place.name}", partial(open_warehouse, inside, read_only=True))
            _lake(scan, inside, Home.of(inside))
    return scan.report


def tool_pages() -> list[Path]:
    """What dbt and Great Expectations put on the site themselves: their own scripts, with their authors' addresses."""
    found: list[Path] = []
    for package, pattern in (("dbt.task.docs", "*.html"), ("great_expectations.render", "**/*.*")):
        spec = find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            found += [path for path in Path(folder).glob(pattern) if path.suffix in {".html", ".js", ".css", ".j2"}]
    return found


def project_files(project: Path) -> list[Path]:
    """What people wrote and dbt copies into its artefacts: models, macros, seeds, and the invented rows of tests."""
    folders = ("models", "macros", "seeds", "snapshots", "tests/dbt")
    return [
        path
        for folder in folders
        for path in (project / folder).rglob("*")
        if path.suffix in {".sql", ".yml", ".md", ".csv"}
    ]


def _columns(
    scan: Scan, channel: str, open_it: Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]
) -> None:
    try:
        with open_it() as connection:
            scan.database(channel, connection, CATALOG)
    except WarehouseError as error:
        scan.report.unopened[channel] = error.what


def _lake(scan: Scan, settings: Settings, home: Home) -> None:
    """Every load of every table, through SQL."""
    if settings.lake_uri and settings.lake_uri.startswith("s3:"):
        scan.report.unopened["lake"] = "it lies on S3, which this search does not read"
        return
    folder = home.lake
    if settings.lake_uri:
        folder = Path(unquote(urlsplit(settings.lake_uri).path))
        scan.folder("lake", folder)
    connection = blank_connection(settings)
    try:
        add_lake_key(connection, settings)
        for table in sorted({path.parent.parent for path in folder.rglob("*.parquet")}):
            # loads of one table may differ in their columns: each is read by itself
            for load in sorted({path.parent for path in table.rglob("*.parquet")}):
                files = ", ".join("'" + str(path).replace("'", "''") + "'" for path in sorted(load.glob("*.parquet")))
                scan.relation(
                    "lake",
                    connection,
                    str(load.relative_to(folder)),
                    f"read_parquet([{files}], encryption_config = {{footer_key: '{LAKE_KEY_NAME}'}})",
                )
    finally:
        connection.close()
