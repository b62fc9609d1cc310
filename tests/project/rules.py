"""The rules of the dbt project, each a function over dbt's manifest that yields what breaks it.

A rule's docstring is its text. `RULES` is the list; `test_rules.py` runs each on the project and on a project broken
for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.project.evaluator_rules import EVALUATOR_RULES

Manifest = dict[str, Any]
Rule = Callable[[Manifest], Iterator[str]]

CLASSES = {"public", "internal", "confidential", "personal", "sensitive", "pan", "forbidden"}
PREFIXES = {
    "staging": ("stg_",),
    "intermediate": ("int_",),
    "dimension": ("dim_",),
    "fact": ("fct_",),
    "reporting": ("rpt_",),
    "features": ("feat_",),
    "ops": ("ops_",),
}
LAYERS = {"staging": 0, "intermediate": 1, "dimension": 2, "fact": 2, "reporting": 3, "features": 3, "ops": 3}
PERSONAL_NAMES = re.compile(
    r"^(?!has_).*(?<!_has)(^|_)(first_name|last_name|legal_name|email|phone|date_of_birth|card_number|cvv|ip_address|postal_code|"
    r"latitude|longitude|fingerprint|comment|message)$"
)

HARMLESS_NAMES = {"masked_card_number", "schema_fingerprint"}
"""The output of mask_pan; the digest of a pinned schema."""


def models(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Our models."""
    for node in manifest["nodes"].values():
        if node["resource_type"] == "model":
            yield node


def layer(node: dict[str, Any]) -> str:
    """The folder that says what a model is: staging, intermediate, dimension, fact, reporting, features, ops."""
    folders = node["path"].split("/")
    return folders[1] if folders[0] == "marts" else folders[0]


def names_say_the_layer(manifest: Manifest) -> Iterator[str]:
    """A model's prefix is its folder's: stg_, int_, dim_, fct_, rpt_, feat_, ops_; staging names its source."""
    for model in models(manifest):
        if not model["name"].startswith(PREFIXES[layer(model)]):
            yield f"{model['name']} lies in {layer(model)}"
        if layer(model) == "staging":
            source = model["path"].split("/")[1]
            if not re.fullmatch(rf"stg_{source}__[a-z0-9_]+", model["name"]):
                yield f"{model['name']} is not stg_{source}__<table>"


def layers_point_one_way(manifest: Manifest) -> Iterator[str]:
    """A model reads its own layer or those before it; staging reads sources only; nothing else does."""
    for model in models(manifest):
        for parent_id in model["depends_on"]["nodes"]:
            kind = parent_id.split(".")[0]
            if kind == "source" and layer(model) != "staging":
                yield f"{model['name']} reads the source {parent_id.split('.', 2)[2]}"
            if kind == "model":
                parent = manifest["nodes"][parent_id]
                if layer(model) == "staging":
                    yield f"{model['name']} (staging) reads {parent['name']}"
                elif LAYERS[layer(parent)] > LAYERS[layer(model)]:
                    yield f"{model['name']} ({layer(model)}) reads {parent['name']} ({layer(parent)})"


def staging_does_not_join(manifest: Manifest) -> Iterator[str]:
    """Staging says what one source table says: one source, no join."""
    for model in models(manifest):
        if layer(model) == "staging":
            sources = [parent for parent in model["depends_on"]["nodes"] if parent.startswith("source.")]
            if len(sources) != 1:
                yield f"{model['name']} reads {len(sources)} sources"
            if re.search(r"\bjoin\b", _without_comments(model["raw_code"]), re.IGNORECASE):
                yield f"{model['name']} joins"


def every_source_table_is_staged(manifest: Manifest) -> Iterator[str]:
    """A landed table that no model reads is a table nobody sees."""
    read = {parent for model in models(manifest) for parent in model["depends_on"]["nodes"]}
    for source_id, source in manifest["sources"].items():
        if source_id not in read:
            yield f"{source['schema']}.{source['name']} is read by no model"


def everything_is_described(manifest: Manifest) -> Iterator[str]:
    """Every model, source, seed, snapshot, exposure and column has a description."""
    for node in _described(manifest):
        if not (node.get("description") or "").strip():
            yield f"{node['name']} has no description"
        for column in node.get("columns", {}).values():
            if not (column.get("description") or "").strip():
                yield f"{node['name']}.{column['name']} has no description"


def everything_is_classified(manifest: Manifest) -> Iterator[str]:
    """Every column of every source, model and seed carries `meta.classification`, one of the known classes."""
    for node in _described(manifest):
        if node["resource_type"] in {"exposure", "snapshot"}:
            continue
        if not node.get("columns"):
            yield f"{node['name']} declares no columns"
        for column in node.get("columns", {}).values():
            meta = (column.get("config") or {}).get("meta") or column.get("meta") or {}
            if meta.get("classification") not in CLASSES:
                yield f"{node['name']}.{column['name']} has no classification"


def nothing_personal_is_named_in_clear(manifest: Manifest) -> Iterator[str]:
    """No column of a model bears the name of a personal value: what lands is a token, a safe part or a flag."""
    for node in _described(manifest):
        if node["resource_type"] in {"model", "source"}:
            for column in node.get("columns", {}).values():
                if PERSONAL_NAMES.search(column["name"]) and column["name"] not in HARMLESS_NAMES:
                    yield f"{node['name']}.{column['name']} sounds like a personal value in clear"


def every_model_states_its_grain(manifest: Manifest) -> Iterator[str]:
    """Every model says `meta.grain`, begins with a comment `-- One row per …`, and has a uniqueness test on it."""
    tested = {
        test["attached_node"]
        for test in manifest["nodes"].values()
        if test["resource_type"] == "test"
        and (test.get("test_metadata") or {}).get("name") in {"unique_grain", "unique"}
        and test["config"]["enabled"]
    }
    for model in models(manifest):
        if not (model["config"].get("meta") or {}).get("grain"):
            yield f"{model['name']} has no meta.grain"
        if not re.match(r"-- One row(\.| per | for )", model["raw_code"]):
            yield f"{model['name']} does not begin with its grain"
        if model["unique_id"] not in tested:
            yield f"{model['name']} has no uniqueness test"


def every_model_has_an_owner(manifest: Manifest) -> Iterator[str]:
    """Every model belongs to a group, and every group names its owner."""
    for model in models(manifest):
        if not model["config"].get("group"):
            yield f"{model['name']} has no group"
    for group in manifest["groups"].values():
        if not group["owner"].get("name"):
            yield f"group {group['name']} has no owner"


def marts_are_contracts(manifest: Manifest) -> Iterator[str]:
    """Marts and features are public, under an enforced contract with a type for each column."""
    for model in models(manifest):
        if layer(model) in {"dimension", "fact", "reporting", "features"}:
            if not model["config"]["contract"]["enforced"]:
                yield f"{model['name']} has no enforced contract"
            if model["config"]["access"] != "public":
                yield f"{model['name']} is not public"
            for column in model["columns"].values():
                if not column.get("data_type"):
                    yield f"{model['name']}.{column['name']} has no type"


def sources_tell_their_freshness(manifest: Manifest) -> Iterator[str]:
    """Every source table of the three worlds states how fresh it must be, measured on landing time."""
    for source in manifest["sources"].values():
        if source["schema"] in {"raw_oltp", "raw_mongodb", "raw_stream"}:
            freshness = source.get("freshness") or {}
            if not (freshness.get("error_after") or {}).get("count"):
                yield f"{source['schema']}.{source['name']} has no freshness"


def reports_are_exposed(manifest: Manifest) -> Iterator[str]:
    """Every fact and report has somebody who uses it: an exposure, or a report that has one."""
    used: set[str] = set()
    for exposure in manifest["exposures"].values():
        used |= set(exposure["depends_on"]["nodes"])
    frontier = set(used)
    while frontier:
        nodes = [manifest["nodes"][node] for node in frontier if node in manifest["nodes"]]
        parents = {parent for node in nodes for parent in node["depends_on"].get("nodes", ())}
        frontier = parents - used
        used |= parents
    for model in models(manifest):
        if layer(model) in {"fact", "reporting"} and model["unique_id"] not in used:
            yield f"{model['name']} has no exposure"


def the_catalogue_leads_to_every_fact_and_report(manifest: Manifest) -> Iterator[str]:
    """The first page of the dbt docs links every fact and report, and each of its links leads to a model."""
    page = manifest["docs"]["doc.payments_warehouse.__overview__"]["block_contents"]
    linked = set(re.findall(r"\(#!/model/([\w.]+)\)", page))
    for model in models(manifest):
        if layer(model) in {"fact", "reporting"} and model["unique_id"] not in linked:
            yield f"{model['name']} is not in the catalogue"
    for name in sorted(linked - manifest["nodes"].keys()):
        yield f"the catalogue links {name}, which is no model"


def sql_has_no_star_or_right_join(manifest: Manifest) -> Iterator[str]:
    """`select *` only from a CTE; every join says its kind; no right joins; `group by` names its columns."""
    for model in models(manifest):
        code = _without_comments(model["raw_code"]).lower()
        for pattern, problem in (
            (r"select\s+\*\s+from\s+\{\{\s*(?!ref|source)", "selects * from something computed"),
            (r"\bright\s+(outer\s+)?join\b", "has a right join"),
            (r"\bgroup\s+by\s+all\b", "groups by all"),
            (r"\bgroup\s+by\s+\d", "groups by position"),
            (
                r"(?<!inner)(?<!left)(?<!cross)(?<!full)(?<!outer)(?<!anti)(?<!semi)(?<!asof)(?<!lateral)\s+join\b",
                "has a join without its kind",
            ),
        ):
            if re.search(pattern, code):
                yield f"{model['name']} {problem}"


def no_engine_outside_its_macros(manifest: Manifest) -> Iterator[str]:
    """A function that only one engine has is spelled in `macros/engine/`, nowhere else."""
    only = re.compile(
        r"\b(json_extract_string|json_extract|strftime|list_transform|try_strptime|epoch_ms|unnest|flatten|"
        r"parse_json|get_json_object|from_json|regexp_full_match|string_split|make_timestamp)\s*\(|->>|::",
        re.IGNORECASE,
    )
    for model in models(manifest):
        if found := only.search(_without_comments(model["raw_code"])):
            yield f"{model['name']} uses {found.group(0).strip()}"


RULES: list[Rule] = [
    names_say_the_layer,
    layers_point_one_way,
    staging_does_not_join,
    every_source_table_is_staged,
    everything_is_described,
    everything_is_classified,
    nothing_personal_is_named_in_clear,
    every_model_states_its_grain,
    every_model_has_an_owner,
    marts_are_contracts,
    sources_tell_their_freshness,
    reports_are_exposed,
    the_catalogue_leads_to_every_fact_and_report,
    sql_has_no_star_or_right_join,
    no_engine_outside_its_macros,
    *EVALUATOR_RULES,
]


def _described(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for node in manifest["nodes"].values():
        if node["resource_type"] in {"model", "seed", "snapshot"}:
            yield node
    yield from manifest["sources"].values()
    yield from manifest["exposures"].values()


def _without_comments(code: str) -> str:
    code = re.sub(r"\{#.*?#\}", "", code, flags=re.DOTALL)
    code = re.sub(r"--[^\n]*", "", code)
    return re.sub(r"'[^']*'", "''", code)
