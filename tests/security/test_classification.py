"""Every column has a class, and what is classified reaches a mart through a masking macro or not at all."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ingestion.classification import landed_traces
from ingestion.schema import all_tables
from tests.conftest import MakeSettings, RecordFigure
from warehouse.classify import compile_models
from warehouse.core.paths import Home
from warehouse.core.settings import PROJECT_ROOT
from warehouse.privacy.classification import ClassificationError, classify
from warehouse.privacy.lineage import LineageUnknown, Trace, traced_columns

Manifest = dict[str, Any]

IP = Trace("personal", "network_prefix", "raw.device.ip_network")
YEAR = Trace("personal", "birth_year", "raw.person.document.owners.[].birth_year", ("owners", "[]", "birth_year"))
EMAIL = Trace("personal", "email_domain", "raw.person.document.email_domain", ("email_domain",))
RELATIONS = {
    "raw.device": {"device_id": frozenset(), "ip_network": frozenset({IP}), "seen_at": frozenset()},
    "raw.person": {"person_id": frozenset(), "document": frozenset({YEAR, EMAIL})},
}
BREAKERS = {"mask_ip": frozenset({"network_prefix"}), "mask_email_domain": frozenset({"email_domain"})}
MASKED = "/*breaker:mask_ip(*/ case when {0} like '%.%' then split_part({0}, '.', 1) end /*)breaker*/"


def reaches(sql: str) -> dict[str, set[str]]:
    found = traced_columns(sql, RELATIONS, BREAKERS, "duckdb")
    return {column: {trace.part for trace in traces} for column, traces in found.items() if traces}


@pytest.mark.parametrize(
    "sql",
    [
        "select ip_network as harmless from raw.device",
        "select upper(substr(ip_network, 1, 3)) || '' as harmless from raw.device",
        "select case when ip_network like '10.%' then 'inside' else 'outside' end as harmless from raw.device",
        "with a as (select * from raw.device), b as (select ip_network as x from a) select max(x) as harmless from b",
        "select 'none' as harmless union all select ip_network from raw.device",
        "select (select max(d.ip_network) from raw.device as d) as harmless",
        "select p.harmless from (select ip_network as harmless from raw.device) as p",
        "select first_value(ip_network) over (order by seen_at) as harmless from raw.device",
        "select rank() over (order by ip_network) as harmless from raw.device",
        "select ip_network as x, x as harmless from raw.device",
        "select list_transform([ip_network], lambda i : i || '') as harmless from raw.device",
        "select u.harmless from raw.device as d cross join unnest([d.ip_network]) as u(harmless)",
        "select coalesce(device_id, ip_network) as harmless from raw.device",
        "select md5(ip_network) as harmless from raw.device",
        f"select {MASKED.format('device_id')} || ip_network as harmless from raw.device",
    ],
)
def test_a_value_is_followed_through(sql: str) -> None:
    assert "network_prefix" in reaches(sql)["harmless"]


def test_only_the_breaker_of_its_part_ends_a_trace() -> None:
    assert reaches(f"select {MASKED.format('ip_network')} as network from raw.device") == {}
    foreign = "select /*breaker:mask_email_domain(*/ lower(ip_network) /*)breaker*/ as network from raw.device"
    assert reaches(foreign) == {"network": {"network_prefix"}}
    with pytest.raises(LineageUnknown, match="no masking macro declares"):
        reaches("select /*breaker:mask_it(*/ ip_network /*)breaker*/ as network from raw.device")


def test_documents_are_followed_by_path() -> None:
    parsed = "with p as (select from_json(document, '{}') as d from raw.person) "
    assert reaches(parsed + "select d['email_domain'] as x from p") == {"x": {"email_domain"}}
    assert reaches(parsed + "select d['person_id'] as x from p") == {}
    assert reaches(parsed + "select d['owners'] as x from p") == {"x": {"birth_year"}}
    assert reaches(parsed + "select d[person_id] as x from (select d, 'k' as person_id from p)") == {
        "x": {"birth_year", "email_domain"}
    }
    assert reaches("select document as x from raw.person") == {"x": {"birth_year", "email_domain"}}
    assert reaches("select json_extract_string(document, '$.email_domain') as x from raw.person")
    assert reaches("select json_extract_string(document, '$.person_id') as x from raw.person") == {}


def test_a_number_of_items_says_nothing_but_what_chose_them() -> None:
    assert reaches("select json_array_length(from_json(document, '{}')['owners']) as x from raw.person") == {}
    chosen = (
        "select len(list_filter(from_json(document, '{{}}')['owners'], "
        "lambda o : json_extract_string(o, '$.{}') is not null)) as x from raw.person"
    )
    assert reaches(chosen.format("is_pep_token")) == {}
    assert reaches(chosen.format("birth_year")) == {"x": {"birth_year"}}


@pytest.mark.parametrize(
    "sql",
    [
        "select ip_network from raw.elsewhere",
        "select nothing from raw.device",
        "select d.nothing from raw.device as d",
        "select content from read_text('/etc/passwd')",
        "selec ip_network from raw.device",
        "select 1 as a, 2 as b union all select ip_network from raw.device",
        "delete from raw.device",
    ],
)
def test_what_cannot_be_told_is_refused(sql: str) -> None:
    with pytest.raises(LineageUnknown):
        reaches(sql)


def test_the_boundary_names_every_readable_part() -> None:
    parts = {trace.part for columns in landed_traces().values() for traces in columns.values() for trace in traces}
    assert parts == {"bin", "last4", "email_domain", "birth_year", "postal_prefix", "network_prefix", "degree"}
    assert landed_traces().keys() >= {table.qualified for table in all_tables()}
    assert landed_traces()["raw_oltp.customer_history"]["email_domain"]
    assert not landed_traces()["raw_oltp.customer_history"]["email_token"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Manifest:
    """The manifest of every model, compiled in an empty home."""
    settings = make_settings(tmp_path_factory.mktemp("compiled"))
    compile_models(settings)
    compiled: Manifest = json.loads((Home.of(settings).dbt_target / "manifest.json").read_text())
    return compiled


def test_the_project_is_classified_and_leaks_nothing(manifest: Manifest, record_figure: RecordFigure) -> None:
    result = classify(manifest, landed_traces(), dialect="duckdb")
    record_figure("classification", f"{result.coverage:.2f} % of {result.columns:,} columns", "100 %")
    record_figure("published columns traced to sources", f"{result.traced:,}, {len(result.leaks)} leaks", "0 leaks")
    result.demand()
    assert result.coverage == 100
    assert result.traced > 1_000
    assert {"mask_ip", "mask_pan"} <= {name for names in result.breakers.values() for name in names}


def _node(manifest: Manifest, name: str) -> dict[str, Any]:
    node: dict[str, Any] = next(node for node in manifest["nodes"].values() if node["name"] == name)
    return node


@pytest.fixture(scope="module")
def small(manifest: Manifest) -> Manifest:
    """Three models and what they read; they pass, so that what is refused below is refused for what was broken."""
    kept = {_node(manifest, name)["unique_id"] for name in ("dim_device", "dim_payment_method", "dim_date")}
    while (
        parents := {
            parent
            for name in kept & manifest["nodes"].keys()
            for parent in manifest["nodes"][name]["depends_on"].get("nodes", ())
        }
        - kept
    ):
        kept |= parents
    part = manifest | {
        kind: {name: node for name, node in manifest[kind].items() if name in kept} for kind in ("nodes", "sources")
    }
    assert classify(part, landed_traces(), dialect="duckdb").passed
    return part


def _unmask(manifest: Manifest) -> str:
    node = _node(manifest, "dim_device")
    start, end = node["compiled_code"].index("/*breaker:mask_ip("), node["compiled_code"].index("as network")
    node["compiled_code"] = node["compiled_code"][:start] + "ip_network " + node["compiled_code"][end:]
    return "public.dim_device.network shows network_prefix"


def _forget_a_class(manifest: Manifest) -> str:
    _node(manifest, "dim_device")["columns"]["device_key"]["config"]["meta"].pop("classification")
    _node(manifest, "dim_device")["columns"]["device_key"]["meta"].pop("classification", None)
    return "public.dim_device.device_key has no class"


def _invent_a_class(manifest: Manifest) -> str:
    _node(manifest, "dim_date")["columns"]["date_key"]["config"]["meta"]["classification"] = "secret"
    return "public.dim_date.date_key has no class"


def _publish_the_undeclared(manifest: Manifest) -> str:
    del _node(manifest, "dim_device")["columns"]["browser"]
    return "public.dim_device.browser has no class"


def _land_the_undeclared(manifest: Manifest) -> str:
    source = next(item for item in manifest["sources"].values() if item["name"] == "device")
    del source["columns"]["fingerprint_token"]
    return "raw_oltp.device.fingerprint_token has no class"


def _declare_personal(manifest: Manifest) -> str:
    _node(manifest, "dim_device")["columns"]["browser"]["config"]["meta"]["classification"] = "personal"
    return "public.dim_device.browser shows value"


def _undeclare_a_breaker(manifest: Manifest) -> str:
    macro = manifest["macros"]["macro.payments_warehouse.mask_pan"]
    macro["meta"], macro["config"]["meta"] = {}, {}
    return "the breaker mask_pan, which no masking macro declares"


def _move_a_breaker(manifest: Manifest) -> str:
    manifest["macros"]["macro.payments_warehouse.mask_ip"]["original_file_path"] = "macros/money/mask_ip.sql"
    return "the macro mask_ip writes a breaker's mark outside"


def _forge_a_mark(manifest: Manifest) -> str:
    node = _node(manifest, "stg_oltp__device")
    node["raw_code"] = "select /*breaker:mask_ip(*/ ip_network /*)breaker*/"
    return "stg_oltp__device writes a breaker's mark itself"


def _put_a_mark_together(manifest: Manifest) -> str:
    node = _node(manifest, "dim_device")
    node["depends_on"]["macros"].remove("macro.payments_warehouse.mask_ip")
    return "a mark of mask_ip, which the model does not call"


def _read_a_file(manifest: Manifest) -> str:
    _node(manifest, "dim_device")["compiled_code"] = "select content as device_key from read_text('/x')"
    return "public.dim_device: the table function read_text"


def _compile_nothing(manifest: Manifest) -> str:
    _node(manifest, "dim_device")["compiled_code"] = None
    return "public.dim_device: it was not compiled"


@pytest.mark.parametrize(
    "break_it",
    [
        _unmask,
        _forget_a_class,
        _invent_a_class,
        _publish_the_undeclared,
        _land_the_undeclared,
        _declare_personal,
        _undeclare_a_breaker,
        _move_a_breaker,
        _forge_a_mark,
        _put_a_mark_together,
        _read_a_file,
        _compile_nothing,
    ],
)
def test_a_broken_project_is_refused(small: Manifest, break_it: Any) -> None:
    broken = copy.deepcopy(small)
    expected = break_it(broken)
    result = classify(broken, landed_traces(), dialect="duckdb")
    found = [*(f"{name} has no class" for name in result.unclassified), *map(str, result.leaks), *result.problems]
    assert any(item.startswith(expected) or expected in item for item in found), found
    with pytest.raises(ClassificationError):
        result.demand()


def test_nothing_read_is_a_failure() -> None:
    with pytest.raises(ClassificationError, match="nothing was read"):
        classify({"nodes": {}, "sources": {}, "macros": {}}, {}, dialect="duckdb").demand()


def test_masks_stand_between_their_marks() -> None:
    for path in sorted((PROJECT_ROOT / "macros" / "masking").glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        if "breaker:" in text:
            assert f"/*breaker:{path.stem}(*/" in text
            assert text.count("/*)breaker*/") == 1, path.name
