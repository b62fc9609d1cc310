"""The record of processing activities (GDPR 30), made from the pinned schemas, the roles and the retention classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ingestion.schema import PLAIN_CLASSES, Leaf, Node, Table, all_tables
from warehouse.privacy.roles import load_policy
from warehouse.retention import retention_classes

_PURPOSES = {
    "payments": "carrying out, settling and accounting for payments",
    "feedback": "answering and learning from what customers say about purchases",
    "interactions": "measuring how shops are used",
    "errors": "operating the services",
    None: "keeping the customers, shops and instruments that payments name",
}
_SUBJECTS = {"customer_id": "customers", "merchant_id": "shops and their owners", "entity_id": "customers and shops"}


@dataclass(frozen=True)
class Activity:
    """One line of the register."""

    table: str
    purpose: str
    subjects: str
    personal: tuple[str, ...]
    """Personal, sensitive or a card number: a token in the warehouse, the value in the vault or nowhere."""
    confidential: tuple[str, ...]
    retention: str
    on_erasure: str
    recipients: tuple[str, ...]
    safeguards: str = "AES-256-GCM at rest, a key per subject, tokens under HMAC-SHA256, role exports, audit log"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def register() -> list[Activity]:
    """Every source table that holds anything of a person."""
    classes = retention_classes()
    recipients = tuple(
        f"{role.name} ({role.kind})" for role in load_policy().roles.values() if "public" in role.schemas
    )
    found = []
    for table in all_tables():
        leaves = list(_leaves(table))
        personal = tuple(path for path, leaf in leaves if leaf.data_class not in PLAIN_CLASSES)
        if not personal and table.subject is None:
            continue
        kind = table.retention.record_type if table.retention else None
        kept = classes.get(kind) if kind else None
        found.append(
            Activity(
                table=table.qualified,
                purpose=_PURPOSES[kind],
                subjects=_SUBJECTS.get(
                    (table.subject or "").rpartition(".")[2], "whoever lives at, or is named by, the row"
                ),
                personal=personal,
                confidential=tuple(path for path, leaf in leaves if leaf.data_class == "confidential"),
                retention=f"{kept.months} months: {kept.basis}" if kept else "while the relationship lasts",
                on_erasure="stays without the person" if table.keeps_erased else "deleted",
                recipients=recipients,
            )
        )
    return found


def register_markdown() -> str:
    """The register as a page."""
    lines = [
        "# Record of processing activities (GDPR, Article 30)",
        "",
        "Made by `warehouse privacy register` from the pinned schemas, the roles and the retention classes.",
        "",
        "| table | purpose | subjects | personal values | retention | on erasure |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    activities = register()
    lines += [
        f"| `{item.table}` | {item.purpose} | {item.subjects} | {', '.join(item.personal) or 'none'} "
        f"| {item.retention} | {item.on_erasure} |"
        for item in activities
    ]
    lines += ["", f"Recipients: {', '.join(activities[0].recipients)}.", "", f"Safeguards: {activities[0].safeguards}."]
    return "\n".join(lines) + "\n"


def _leaves(table: Table) -> list[tuple[str, Leaf]]:
    if not table.is_document:
        return [(leaf.name, leaf) for leaf in table.columns]
    return [pair for node in table.document for pair in _of_node(node, node.name)]


def _of_node(node: Node, path: str) -> list[tuple[str, Leaf]]:
    if node.leaf is not None:
        return [(path, node.leaf)]
    if node.items is not None:
        return _of_node(node.items, f"{path}[]")
    return [pair for field in node.fields for pair in _of_node(field, f"{path}.{field.name}")]
