"""Erasure: nothing of the person in any byte or column, amounts kept, nothing back, resumed from any step."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from ingestion.replay import replay
from ingestion.run import ingest
from tests.integration.landed_home import NOWHERE, copy_home, drop_reference, query
from tests.integration.test_readme import shown_commands
from tests.security.kills import Moment, killed
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.paths import Home
from warehouse.core.replace import RoomNotOverwritten
from warehouse.core.settings import Settings
from warehouse.erasure import ErasureIncomplete, erase, run, verify_receipts, warehouse_file
from warehouse.erasure.plan import Plan
from warehouse.erasure.receipt import receipt_path
from warehouse.privacy.audit import tail
from warehouse.privacy.breaches import store_affected
from warehouse.privacy.holds import OnHold, add_hold, holds, release_hold
from warehouse.privacy.matcher import Needle
from warehouse.privacy.needles import subject_needles
from warehouse.privacy.ocsf import Actor
from warehouse.privacy.scan_home import scan_home
from warehouse.privacy.totp import STEP_SECONDS, code_at
from warehouse.privacy.vault import UnknownSubject, open_vault, subject_entries
from warehouse.subject_export import export_subject

SUBJECT = "CUSTOMER003"
STEPS = (
    "write_ledger", "erase_from_lake", "erase_from_warehouse", "rebuild_reports", "publish_again",
    "erase_from_backups", "prove", "rewrite_vault",
)  # fmt: skip
"""The functions of `warehouse.erasure.run`, in their order."""


@dataclass
class Landed:
    settings: Settings
    needles: list[Needle]
    amounts: list[Any]


AMOUNTS = """
    select 'oltp', currency_code, sum(amount), count(*) from raw_oltp.transaction group by all
    union all select 'mongodb', document ->> '$.currency.code', sum((document ->> '$.amount')::decimal(18, 4)), count(*)
    from raw_mongodb.transactions group by all order by all
"""


def landed_copy(base: Settings, home: Path, **overrides: object) -> Landed:
    """A copy of the landed home, and what is known of the subject before."""
    settings = copy_home(base, home, **overrides)
    return Landed(settings, subject_needles(settings, SUBJECT).needles, query(settings, AMOUNTS))


@pytest.fixture
def landed(landed_reference: Settings, tmp_path: Path) -> Landed:
    return landed_copy(landed_reference, tmp_path / "home")


def found(landed: Landed) -> list[str]:
    report = scan_home(landed.settings, landed.needles, patterns=False, project=landed.settings.warehouse_home / "none")
    assert not report.unopened
    return [str(item) for item in report.findings]


def check_gone(landed: Landed) -> None:
    assert found(landed) == []
    assert query(landed.settings, AMOUNTS) == landed.amounts, "amounts stay"
    (kept,) = query(landed.settings, "select count(*) from raw_oltp.transaction where customer_id = '-3'")[0]
    assert kept > 0
    with pytest.raises(UnknownSubject):
        subject_entries(landed.settings, SUBJECT)
    with open_vault(landed.settings) as vault:
        assert vault.execute("select count(*) from vault.erasure").fetchone() == (0,)
        assert vault.execute("select count(*) from vault.subject_key where owner = $1", [SUBJECT]).fetchone() == (0,)


def test_nothing_is_left_amounts_stay_and_a_receipt_proves_it(landed: Landed) -> None:
    assert found(landed), "there is something to erase"
    store_affected(landed.settings, "incident-1", ["CUST003", "CUSTOMER001"])
    receipt = erase(landed.settings, "CUST003", "DSR-1")
    check_gone(landed)
    with open_vault(landed.settings) as vault:
        assert vault.execute("select subject from vault.incident_subject").fetchall() == [("CUSTOMER001",)]
    assert (receipt.status, receipt.residual) == ("complete", 0)
    assert receipt.searched_for["values"] > 3
    path = receipt_path(landed.settings, receipt.id)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SUBJECT not in path.read_text()
    assert [item.id for item in verify_receipts(landed.settings, SUBJECT)] == [receipt.id]
    assert erase(landed.settings, SUBJECT, "DSR-1").id == receipt.id, "again: the same answer"
    changed = json.loads(path.read_text())
    changed["receipt"]["residual"] = 1
    path.write_text(json.dumps(changed))
    with pytest.raises(WarehouseError, match="not the one that was signed"):
        verify_receipts(landed.settings, SUBJECT)


def test_others_keep_what_is_theirs(landed: Landed) -> None:
    others = "select * exclude (_row_hash, _dlt_load_id) from {} where {} not in ('CUSTOMER003', '-3') order by all"
    tables = ("raw_oltp.customer", "raw_oltp.device", "raw_oltp.transaction", "raw_oltp.payment_method")
    before = [query(landed.settings, others.format(table, "customer_id")) for table in tables]
    known = subject_entries(landed.settings, "CUSTOMER001")
    erase(landed.settings, SUBJECT, "DSR-1")
    assert [query(landed.settings, others.format(table, "customer_id")) for table in tables] == before
    assert subject_entries(landed.settings, "CUSTOMER001") == known


def test_neither_replay_nor_a_source_brings_them_back(landed: Landed) -> None:
    erase(landed.settings, SUBJECT, "DSR-1")
    before = query(landed.settings, "select transaction_id, _row_hash from raw_oltp.transaction order by all")
    replay(landed.settings)
    check_gone(landed)
    with open_warehouse(landed.settings) as connection:
        connection.execute("delete from raw_ops.landed_files")
    shutil.rmtree(Home.of(landed.settings).drops, ignore_errors=True)
    drop_reference(landed.settings)
    report = ingest(landed.settings, NOWHERE, run_id="again", sources=("files",))
    assert report.landed_rows == 0, "what stays of theirs is what would land"
    check_gone(landed)
    assert query(landed.settings, "select transaction_id, _row_hash from raw_oltp.transaction order by all") == before


def test_interrupted_before_and_after_every_step_it_goes_on(landed: Landed) -> None:
    for name in STEPS:
        for moment in get_args(Moment):
            with killed(run, name, moment):
                erase(landed.settings, SUBJECT, "DSR-1")
            assert query(landed.settings, AMOUNTS) == landed.amounts, f"{moment} {name}"
    assert erase(landed.settings, SUBJECT, "DSR-1").status == "complete"
    check_gone(landed)


def test_what_is_left_is_found_and_the_key_survives(landed: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = subject_entries(landed.settings, SUBJECT)
    monkeypatch.setattr(run, "erase_from_lake", lambda *_: {})
    with pytest.raises(ErasureIncomplete, match="lake") as error:
        erase(landed.settings, SUBJECT, "DSR-1")
    assert all(entry.value not in str(error.value) for entry in entries)
    assert subject_entries(landed.settings, SUBJECT) == entries


def test_where_a_block_cannot_be_overwritten_the_whole_file_is_written_anew(
    landed: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> dict[str, int]:
        raise RoomNotOverwritten("a block stays as it was")

    monkeypatch.setattr(warehouse_file, "replace_tables", fail)
    before = Home.of(landed.settings).warehouse.stat().st_ino
    receipt = erase(landed.settings, SUBJECT, "DSR-1")
    assert Home.of(landed.settings).warehouse.stat().st_ino != before
    assert "blocks_overwritten" not in receipt.steps["warehouse"]
    check_gone(landed)


def test_only_the_tables_of_the_person_are_written_anew(landed: Landed) -> None:
    before = Home.of(landed.settings).warehouse.stat().st_ino
    receipt = erase(landed.settings, SUBJECT, "DSR-1")
    assert Home.of(landed.settings).warehouse.stat().st_ino == before
    (tables,) = query(landed.settings, "select count(*) from duckdb_tables() where schema_name like 'raw_%'")[0]
    assert 0 < receipt.steps["warehouse"]["tables"] < tables
    assert receipt.steps["warehouse"]["blocks_overwritten"] > 0


def test_another_target_is_refused(landed: Landed) -> None:
    """Nothing of Snowflake is erased: it says so before anything is."""
    elsewhere = landed.settings.model_copy(update={"dbt_target": "snowflake"})
    with pytest.raises(ConfigurationError, match="covers the DuckDB warehouse"):
        erase(elsewhere, SUBJECT, "DSR-1")
    assert found(landed)


def test_a_leftover_in_a_log_is_removed(landed: Landed) -> None:
    logs = Home.of(landed.settings).logs
    logs.mkdir(parents=True)
    (logs / "dbt.log").write_text(f"a failed cast of {SUBJECT}")
    erase(landed.settings, SUBJECT, "DSR-1")
    assert not (logs / "dbt.log").exists()
    check_gone(landed)


def test_unknown_subjects_and_shops_are_refused(landed: Landed) -> None:
    with pytest.raises(UnknownSubject):
        erase(landed.settings, "CUSTOMER999", "DSR-1")
    with pytest.raises(ConfigurationError, match="only customers"):
        erase(landed.settings, "MERCHANT001", "DSR-1")
    with pytest.raises(ConfigurationError, match="no subject's id"):
        erase(landed.settings, "x' or 1=1 --", "DSR-1")
    assert found(landed)


def test_a_hold_restricts_and_the_erasure_follows_it(landed: Landed, tmp_path: Path) -> None:
    add_hold(landed.settings, SUBJECT, "aml", "AML-7")
    with pytest.raises(OnHold, match="noted"):
        erase(landed.settings, SUBJECT, "DSR-1")
    with pytest.raises(OnHold):
        export_subject(landed.settings, SUBJECT, tmp_path / "out")
    assert found(landed)
    assert release_hold(landed.settings, "CUST003", "aml", "AML-7"), "the erasure is due"
    erase(landed.settings, SUBJECT, "DSR-1")
    check_gone(landed)
    assert holds(landed.settings) == []


def test_an_export_is_complete_and_private(landed: Landed, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export_subject(landed.settings, "CUST003", out)
    index = json.loads((out / "index.json").read_text())
    assert {file["name"] for file in index["files"]} == {file.name for file in done.files}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in out.iterdir())
    text = "".join(path.read_text() for path in out.glob("*.json"))
    for entry in subject_entries(landed.settings, SUBJECT):
        assert json.dumps(entry.value, ensure_ascii=False)[1:-1] in text, entry.path
    named = query(
        landed.settings,
        "select count(*) from raw_oltp.transaction where customer_id = 'CUSTOMER003'",
    )[0][0]
    assert len(json.loads((out / "raw_oltp.transaction.json").read_text())) == named > 0
    assert "CUSTOMER001" not in text
    assert {"raw_oltp.customer.csv", "raw_mongodb.transactions.json", "raw_stream.payments_transactions.json"} <= {
        path.name for path in out.iterdir()
    }
    with pytest.raises(ConfigurationError, match="not empty"):
        export_subject(landed.settings, SUBJECT, out)
    with pytest.raises(UnknownSubject):
        export_subject(landed.settings, "CUSTOMER999", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.fixture
def command(landed: Landed, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in the landed home; `code` gives the next one-time code."""
    monkeypatch.setattr(context, "get_settings", lambda: landed.settings)
    steps = iter((-1, 0, 1))

    def code() -> str:
        path = Home.of(landed.settings).keys / f"totp_{Actor.current().name}.json"
        secret = base64.b32decode(json.loads(path.read_text())["secret"])
        return code_at(secret, int(time.time() // STEP_SECONDS) + next(steps))

    def call(*words: str) -> Any:
        return CliRunner().invoke(app, ["privacy", *words])

    call.code = code
    return call


def test_reveal_asks_for_everything_and_records_everything(landed: Landed, command: Any) -> None:
    assert command("enrol", "--role", "compliance_officer", "--json").exit_code == 0
    asked = ("reveal", SUBJECT, "--ticket", "DSR-9", "--json", "--purpose")
    code = command.code()
    shown = command(*asked, "access_request", "--code", code)
    assert shown.exit_code == 0, shown.output
    values = {item["value"] for item in json.loads(shown.stdout)["values"]}
    assert values == {entry.value for entry in subject_entries(landed.settings, SUBJECT)}
    refused = [
        command(*asked, "access_request", "--code", code),
        command(*asked, "access_request", "--code", "000000", "--role", "analyst"),
        command(*asked, "curiosity", "--code", "000000"),
        command("reveal", SUBJECT, "--ticket", "none", "--purpose", "support", "--code", "0"),
        command("reveal", "CUSTOMER999", "--ticket", "DSR-1", "--purpose", "support", "--code", command.code()),
    ]
    assert [result.exit_code for result in refused] == [16, 16, 2, 2, 13]
    assert not any(value in result.output for result in refused for value in values)
    events = [item["record"] for item in tail(landed.settings, 20)]
    reveals = [event for event in events if event["metadata"]["event_code"] == "reveal"]
    assert [event["status"] for event in reveals] == ["Success"] + ["Failure"] * 5
    log = Home.of(landed.settings).audit.read_text()
    assert SUBJECT not in log
    assert not any(value in log for value in values)
    first = {(item["type"], item["name"]) for item in reveals[0]["resources"]}
    assert {("ticket", "DSR-9"), ("purpose", "access_request"), ("key", "vault")} <= first


def test_the_commands_of_the_runbook_work_in_their_order(landed: Landed, command: Any, tmp_path: Path) -> None:
    """As they are shown, but for the subject and the folders. Nobody waits half a minute for the next code."""
    shown = [line for line in shown_commands() if re.search(r" privacy (?!audit|detect|roles)", line)]
    assert len(shown) >= 10
    ran = []
    for line in shown:
        words = shlex.split(line.partition(" privacy ")[2].replace("CUSTOMER005", SUBJECT))
        words = [word.replace("/safe/place", str(tmp_path)) for word in words]
        words = [str(tmp_path / word) if word == "register.md" else word for word in words]
        if "--ticket" in words:
            path = Home.of(landed.settings).keys / f"totp_{Actor.current().name}.json"
            enrolment = json.loads(path.read_text())
            path.write_text(json.dumps(enrolment | {"last_step": 0}))
            secret = base64.b32decode(enrolment["secret"])
            words += ["--code", code_at(secret, int(time.time() // STEP_SECONDS))]
        result = command(*words)
        assert result.exit_code == 0, (line, result.output)
        ran.append(words[0])
    assert {"enrol", "reveal", "export", "hold", "erase", "scan", "receipts", "register", "retention"} <= {*ran}
    check_gone(landed)
    assert (tmp_path / "register.md").stat().st_size > 1000
    assert (tmp_path / "dsr-12" / "index.json").exists()


def test_the_register_names_every_table_with_personal_values(command: Any) -> None:
    activities = {item["table"]: item for item in json.loads(command("register", "--json").stdout)["activities"]}
    assert "email" in activities["raw_oltp.customer"]["personal"]
    assert "beneficial_owners[].name" in activities["raw_mongodb.merchants"]["personal"]
    assert activities["raw_mongodb.customer_feedback"]["retention"].startswith("36 months")
    assert "raw_oltp.currency" not in activities
    classes = json.loads(command("retention", "--json").stdout)["classes"]
    assert {row["record_type"] for row in classes} == {"payments", "feedback", "interactions", "errors"}


def test_a_plan_tells_what_to_look_for() -> None:
    owned = {"device": ["D1"], "location": ["L1"]}
    plan = Plan("1", "C1", "T-1", "now", ["C1"], owned, ["S1"], ["k"], ["value"], ["t"])
    assert plan.identifiers == ["C1", "D1", "S1", "k"]
    assert [needle.value for needle in plan.needles] == ["C1", "D1", "S1", "k", "value", "t"]
