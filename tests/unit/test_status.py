"""Status and doctor where there is little or nothing yet, and every fault that the doctor knows without a warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import MakeSettings
from warehouse import doctor as doctor_module
from warehouse.core.errors import QualityFailure, SourceUnavailable
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.doctor import Finding, doctor
from warehouse.publish import new_copy
from warehouse.report import RunReport
from warehouse.servers import ServerStatus
from warehouse.status import status


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A home with keys and nothing else."""
    return make_settings(tmp_path / "home")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with everything the doctor looks for."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".env").touch(mode=0o600)
    (folder / "profiles.yml").touch()
    return folder


def no_servers(_: Settings) -> Sequence[ServerStatus]:
    return []


def examine(settings: Settings, project: Path) -> list[Finding]:
    return doctor(settings, server_statuses=no_servers, project=project)


def problems(findings: list[Finding]) -> list[str]:
    return [finding.what for finding in findings if finding.severity != "ok"]


def test_status_of_an_empty_home(settings: Settings) -> None:
    now = status(settings)
    assert now.last_run is None
    assert now.published_at is None
    assert now.published_rows == {}
    assert now.loads == ()
    assert now.quality == {}
    assert now.to_dict()["published_at"] is None


def test_fresh_home_has_nothing_wrong_but_nothing_in_it(settings: Settings, project: Path) -> None:
    assert problems(examine(settings, project)) == ["nothing has run here yet", "nothing has been published yet"]


def test_every_problem_says_what_to_do(settings: Settings, tmp_path: Path) -> None:
    findings = examine(settings, tmp_path / "nowhere")
    assert all(finding.todo for finding in findings if finding.severity != "ok")
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities, key=["error", "warning", "ok"].index)


def test_env_file_that_others_can_read(settings: Settings, project: Path) -> None:
    (project / ".env").chmod(0o644)
    [finding] = [item for item in examine(settings, project) if ".env" in item.what]
    assert finding.severity == "error"
    assert finding.todo == f"chmod 600 {project / '.env'}"


def test_missing_and_open_keys(settings: Settings, project: Path) -> None:
    keys = Home.of(settings).keys
    (keys / "lake.key").unlink()
    (keys / "vault.key").chmod(0o640)
    found = problems(examine(settings, project))
    assert "the key file lake.key is missing" in found
    assert "the key file vault.key can be read by others" in found


def test_no_key_is_shown(settings: Settings, project: Path) -> None:
    key = Home.of(settings).keys / "lake.key"
    secret = key.read_text().strip()
    key.write_text(secret[:-8])
    text = str(examine(settings, project))
    assert "lake.key is not base64" in text
    assert secret[:-8] not in text


def test_missing_profile(settings: Settings, project: Path) -> None:
    (project / "profiles.yml").unlink()
    assert "there is no profiles.yml, so dbt does not run by itself" in problems(examine(settings, project))


def test_little_disk(settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "LOW_DISK_BYTES", 2**62)
    [finding] = [item for item in examine(settings, project) if "GiB free" in item.what]
    assert finding.severity == "error"


def test_missing_wheels_matter_only_without_an_address(
    settings: Settings, make_settings: MakeSettings, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_module, "_installed", lambda module: False)
    assert len([what for what in problems(examine(settings, project)) if "embedded server" in what]) == 3
    own = make_settings(tmp_path / "own", postgres_uri="postgresql://127.0.0.1/x", kafka_bootstrap="127.0.0.1:9092")
    assert [what for what in problems(examine(own, project)) if "embedded server" in what] == [
        "MongoDB has neither an address nor an embedded server"
    ]


def test_servers(settings: Settings, project: Path) -> None:
    def servers(_: Settings) -> Sequence[ServerStatus]:
        return [
            ServerStatus("postgres", "embedded", running=True, detail="healthy"),
            ServerStatus("mongodb", "embedded", running=False, detail="stopped"),
            ServerStatus("kafka", "yours", running=False, detail="no broker answers"),
        ]

    findings = doctor(settings, server_statuses=servers, project=project)
    assert {(item.severity, item.what) for item in findings} >= {
        ("ok", "postgres answers (embedded)"),
        ("warning", "mongodb is not running: stopped"),
        ("error", "kafka does not answer: no broker answers"),
    }


def test_servers_that_cannot_be_asked(settings: Settings, project: Path) -> None:
    def servers(_: Settings) -> Sequence[ServerStatus]:
        raise SourceUnavailable("mongodb refuses the credentials", todo="correct MONGODB_URI")

    findings = doctor(settings, server_statuses=servers, project=project)
    assert Finding("error", "mongodb refuses the credentials", "correct MONGODB_URI") in findings


def test_failed_run(settings: Settings, project: Path) -> None:
    run = RunReport.start()
    with pytest.raises(QualityFailure), run.step("landing expectations"):
        raise QualityFailure("3 expectations failed", todo="correct the source")
    run.finish(QualityFailure("3 expectations failed", todo="correct the source"))
    run.save(settings)
    [finding] = [item for item in examine(settings, project) if "failed in" in item.what]
    assert finding == Finding(
        "error",
        f"the last run ({run.run_id}) failed in landing expectations: 3 expectations failed",
        "correct the source",
    )
    last = status(settings).last_run
    assert last is not None
    assert last["status"] == "failed"


def test_completed_run(settings: Settings, project: Path) -> None:
    run = RunReport.start()
    run.finish()
    run.save(settings)
    assert Finding("ok", f"the last run ({run.run_id}) completed") in examine(settings, project)


def test_what_killed_runs_leave_behind(settings: Settings, project: Path) -> None:
    home = Home.of(settings)
    (home.dlt / "oltp" / "load" / "normalized" / "1700000000.1").mkdir(parents=True)
    (home.dlt / "stream" / "normalize" / "extracted" / "1700000000.2").mkdir(parents=True)
    new_copy(home.published).parent.mkdir(parents=True)
    new_copy(home.published).touch()
    home.rewrite_due.touch()
    found = problems(examine(settings, project))
    assert "the file may still hold rows that retention has deleted" in found
    assert "a publish was interrupted" in found
    assert "2 packages were extracted and not loaded" in found


def test_what_a_running_process_has_in_hand_is_not_left_behind(settings: Settings, project: Path) -> None:
    new = new_copy(Home.of(settings).published)
    new.parent.mkdir(parents=True)
    new.touch()
    with writer_lock(settings, "publish"):
        findings = examine(settings, project)
    assert "a publish was interrupted" not in problems(findings)
    assert any(item.what.startswith("a run holds the warehouse: publish") for item in findings)
