"""What this installation is made of: a software bill of materials (CycloneDX 1.6), from what is installed, offline."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from typing import Any

PROJECT = "payments-warehouse"


def licence_of(distribution: Distribution) -> str:
    """What a distribution declares: the SPDX expression, else its trove classifier, else its text's start."""
    metadata = distribution.metadata.json
    if expression := metadata.get("license_expression"):
        return str(expression)
    classifiers = [
        item.rsplit(" :: ", 1)[-1] for item in metadata.get("classifier", ()) if item.startswith("License :: ")
    ]
    if named := [item for item in classifiers if item != "OSI Approved"]:
        return " OR ".join(sorted(set(named)))
    return str(metadata.get("license") or "not declared").strip().splitlines()[0][:60]


def bill_of_materials(at: datetime | None = None) -> dict[str, Any]:
    """The CycloneDX document: every installed distribution with version, licence and what it requires."""
    found = {str(item.metadata["Name"]).lower().replace("_", "-"): item for item in distributions()}
    components = [
        {
            "type": "library",
            "bom-ref": f"{name}/{item.version}",
            "name": name,
            "version": item.version,
            "purl": f"pkg:pypi/{name}",  # with its version, 2.9.0.post0 would make an e-mail address of it
            "licenses": [{"license": {"name": licence_of(item)}}],
        }
        for name, item in sorted(found.items())
        if name != PROJECT
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": (at or datetime.now(UTC)).isoformat(timespec="seconds"),
            "component": {"type": "application", "name": PROJECT, "bom-ref": PROJECT},
        },
        "components": components,
    }


def sbom_json() -> str:
    """The same as text."""
    return json.dumps(bill_of_materials(), indent=1) + "\n"
