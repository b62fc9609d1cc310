"""Where things lie below WAREHOUSE_HOME. Nothing else spells these names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from warehouse.core.settings import Settings, Target


@dataclass(frozen=True)
class Home:
    """The folder layout of one installation."""

    root: Path
    target: Target = "duckdb"

    @classmethod
    def of(cls, settings: Settings) -> Home:
        """The layout for these settings."""
        return cls(settings.warehouse_home, settings.dbt_target)

    @property
    def warehouse(self) -> Path:
        """The writer's database: raw, staging, intermediate and marts. Encrypted.

        When the target is Snowflake: what landing compares with and `raw_ops`, in a file of its own, because the
        two warehouses need not hold the same loads.
        """
        return self.root / ("landing-snowflake.duckdb" if self.target == "snowflake" else "warehouse.duckdb")

    @property
    def published(self) -> Path:
        """What readers open: public, features and ops. Encrypted, swapped in whole."""
        return self.root / "published" / "olap_strip_project.duckdb"

    def role_export(self, role: str) -> Path:
        """What one role may see of the published copy. Encrypted under its own key, swapped in whole."""
        return self.root / "exports" / f"{role}.duckdb"

    @property
    def vault(self) -> Path:
        """Personal data and free text, apart from the warehouse, under its own key."""
        return self.root / "vault" / "vault.duckdb"

    @property
    def restricted(self) -> Path:
        """Pseudonyms of who is under a legal hold, for the role exports: read where the vault is not opened."""
        return self.vault.parent / "restricted.json"

    @property
    def lake(self) -> Path:
        """Every landed version, encrypted Parquet: <source>/<table>/<load_id>/."""
        return self.root / "lake"

    @property
    def drops(self) -> Path:
        """Files that partners leave: <source>/<table>/."""
        return self.root / "drops"

    @property
    def dlt(self) -> Path:
        """dlt's working directory."""
        return self.root / "dlt"

    @property
    def keys(self) -> Path:
        """One file per key, 0600."""
        return self.root / "keys"

    @property
    def audit(self) -> Path:
        """The audit log: JSON lines, only ever appended to."""
        return self.root / "audit" / "log.jsonl"

    @property
    def audit_head(self) -> Path:
        """The signed head of the audit log, apart from it."""
        return self.root / "audit-head" / "head.json"

    @property
    def alerts(self) -> Path:
        """Every alert and where it was delivered, JSON lines."""
        return self.root / "alerts" / "alerts.jsonl"

    @property
    def breaches(self) -> Path:
        """The breach register: JSON lines, only ever appended to."""
        return self.root / "breaches" / "register.jsonl"

    @property
    def receipts(self) -> Path:
        """What key rotations and erasures did (JSON): counts and names, evidence for an auditor."""
        return self.root / "receipts"

    @property
    def servers(self) -> Path:
        """Data and state of the embedded source systems."""
        return self.root / "servers"

    @property
    def extensions(self) -> Path:
        """DuckDB extensions, copied out of their wheels."""
        return self.root / "extensions"

    @property
    def runs(self) -> Path:
        """Run reports (JSON), newest last."""
        return self.root / "runs"

    @property
    def site(self) -> Path:
        """The site: dbt docs, data docs, run report."""
        return self.root / "site"

    @property
    def dbt_target(self) -> Path:
        """dbt's artefacts of the last refresh (manifest, compiled SQL, run results, static docs)."""
        return self.root / "target"

    @property
    def logs(self) -> Path:
        """dbt's logs."""
        return self.root / "logs"

    @property
    def build_state(self) -> Path:
        """Which data and which models the last successful build was of."""
        return self.root / "build_state.json"

    @property
    def rewrite_due(self) -> Path:
        """There while the file may still hold, in tables or in the room they left, rows that are deleted."""
        return self.root / "rewrite_due"

    @property
    def lock(self) -> Path:
        """Held by the one writer."""
        return self.root / "warehouse.lock"
