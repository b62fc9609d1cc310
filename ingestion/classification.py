"""What the boundary lets land of classified values: the parts that lineage follows through the models.

A token is where a value ends: nothing of it can be read. Free text leaves only measures of itself. What is left are
the safe parts and the visible digits of a card number, which stay of their value's class until a mask breaks them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ingestion.schema import SAFE_PARTS, TOKEN_CLASSES, Leaf, Node, Table, all_tables
from warehouse.privacy.lineage import Trace

PAN_PARTS = ("bin", "last4")


def landed_traces() -> dict[str, dict[str, frozenset[Trace]]]:
    """Raw table (`raw_oltp.customer`, history tables too) → landed column → the classified parts it holds."""
    found: dict[str, dict[str, frozenset[Trace]]] = {}
    for table in all_tables():
        for name in (table.qualified, *((f"{table.qualified}_history",) if table.history else ())):
            found[name] = _columns(table, name)
    return found


def _columns(table: Table, qualified: str) -> dict[str, frozenset[Trace]]:
    columns: dict[str, frozenset[Trace]] = {name: frozenset() for name, _ in table.landed_columns}
    if table.is_document:
        columns["document"] = frozenset(_document(table.document, f"{qualified}.document", ()))
    for leaf in table.columns:
        for name, part in _parts(leaf):
            columns[name] = frozenset({Trace(leaf.data_class, part, f"{qualified}.{name}")})
    return columns


def _document(fields: tuple[Node, ...], origin: str, path: tuple[str, ...]) -> Iterator[Trace]:
    for node in fields:
        if node.fields:
            yield from _document(node.fields, origin, (*path, node.name))
        elif node.items is not None:
            yield from _document(node.items.fields or (node.items,), origin, (*path, node.name, "[]"))
        elif node.leaf is not None:
            for name, part in _parts(node.leaf):
                here = (*path, name)
                yield Trace(node.leaf.data_class, part, f"{origin}.{'.'.join(here)}", here)


def _parts(leaf: Leaf) -> Iterator[tuple[str, str]]:
    """(what lands, which part of the value it is) for every readable part of a classified value."""
    if leaf.free_text:
        return
    if leaf.data_class == "pan":
        yield from ((f"{leaf.name}_{part}", part) for part in PAN_PARTS)
    elif leaf.data_class in TOKEN_CLASSES:
        yield from ((SAFE_PARTS[part][0].format(name=leaf.name), part) for part in leaf.safe)
