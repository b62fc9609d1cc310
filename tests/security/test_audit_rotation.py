"""A new key for the audit log: one chain over the rotation, found out on either side of it, taken up when killed."""

from __future__ import annotations

import base64
import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from tests.conftest import MakeSettings, RecordFigure
from tests.security.kills import Killed, Moment, killed
from tests.security.test_audit import ACTOR, missed_tamperings, write_records
from warehouse import file_keys
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.keys import file_key
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.erasure.receipt import Receipt, all_receipts, receipt_path, receipts_of, save_receipt
from warehouse.file_keys import rotate_file_key
from warehouse.privacy import audit
from warehouse.privacy.audit import AuditError, Head, end_old_key, introduce_key, tail, verify
from warehouse.privacy.audit_keys import KeyChange, Signer
from warehouse.privacy.pseudonyms import subject_pseudonym, subject_pseudonyms

TAMPERINGS = 2_000


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A home whose log holds three records."""
    made = make_settings(tmp_path / "home")
    write_records(made, 3)
    return made


def rotate(settings: Settings) -> None:
    with writer_lock(settings, "rotate-key", rotates=True):
        rotate_file_key(settings, "audit")


def signer(settings: Settings) -> Signer:
    return Signer(base64.b64decode(file_key(settings, "audit")))


def replace_key(settings: Settings, key: Signer) -> None:
    """What somebody does who can write the folder of keys."""
    (Home.of(settings).keys / "audit.key").write_text(base64.b64encode(key.seed).decode())


def stranger() -> Signer:
    return Signer(Ed25519PrivateKey.generate().private_bytes_raw())


def append(settings: Settings, key: Signer, claims: bytes = b"", *, head_by: Signer | None = None) -> None:
    """A well chained line signed with `key`, and with `head_by` a head that names it."""
    home = Home.of(settings)
    lines = home.audit.read_bytes().splitlines(keepends=True)
    body = b'{"seq":%d,"prev":"%s",' % (len(lines) + 1, audit._sha256(lines[-1]).encode())
    body += claims + b'"record":{"time":0}'
    line = body + b',"sig":"%s"}\n' % base64.b64encode(key.private.sign(body))
    start = sum(map(len, lines))
    with home.audit.open("ab") as log:
        log.write(line)
    if head_by:
        audit._save_head(
            home.audit_head, Head(len(lines) + 1, audit._sha256(line), start, start + len(line)), head_by
        )  # fmt: skip


def claim(old: Signer, new: Signer) -> bytes:
    return KeyChange(0, old.public.public_bytes_raw(), new.public.public_bytes_raw()).claim()


def test_one_chain_over_every_rotation(settings: Settings) -> None:
    first, kept = verify(settings), verify(settings).head
    for number in range(1, 4):
        old = signer(settings)
        rotate(settings)
        assert signer(settings) != old
        write_records(settings, 2)
        result = verify(settings, contains=kept)
        assert (result.records, result.problems, result.torn) == (3 + 3 * number, (), ())
        assert len(set(result.keys)) == number + 1
        assert result.keys[0] == first.keys[0]
    changed = tail(settings, 9)[0]
    assert changed["record"]["metadata"]["event_code"] == "key_rotate"
    assert changed["record"]["resources"] == [{"type": "key", "name": "audit"}]
    assert sorted(path.name for path in Home.of(settings).keys.glob("audit*")) == [
        "audit.key", "audit_subject_v1.key", "audit_subject_v2.key", "audit_subject_v3.key",
    ]  # fmt: skip


def test_a_log_without_a_record_can_be_rotated(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "empty")
    rotate(settings)
    assert (verify(settings).records, verify(settings).problems) == (1, ())


def test_every_tampering_on_either_side_is_found(settings: Settings, record_figure: RecordFigure) -> None:
    write_records(settings, 7)
    introduce_key(settings, actor=ACTOR)
    end_old_key(settings)
    write_records(settings, 9)
    home = Home.of(settings)
    log, head, public = home.audit.read_bytes(), home.audit_head.read_bytes(), signer(settings).public
    missed = missed_tamperings(log, head, public, TAMPERINGS)
    record_figure("rotated audit log: tamperings", f"{TAMPERINGS - len(missed):,} of {TAMPERINGS:,} found", "100 %")
    assert not missed


def test_the_old_key_signs_nothing_more(settings: Settings) -> None:
    old = signer(settings)
    rotate(settings)
    home = Home.of(settings)
    log, head = home.audit.read_bytes(), home.audit_head.read_bytes()
    append(settings, old)
    assert verify(settings).problems == ("record 5 is not signed",)
    with pytest.raises(AuditError, match="tampered"):
        write_records(settings, 1)
    home.audit.write_bytes(log)
    append(settings, old, head_by=old)
    assert "the head is not the one that was signed" in verify(settings).problems
    home.audit.write_bytes(log)
    home.audit_head.write_bytes(head)
    assert verify(settings).intact


@pytest.mark.parametrize("kind", ["by the new key", "from a key of their own", "over a key", "to a key not here"])
def test_a_forged_rotation_is_found(settings: Settings, kind: str) -> None:
    """Somebody who can write every file, and has no key of ours, puts a key of their own into force."""
    ours, theirs, other = signer(settings), stranger(), stranger()
    if kind == "by the new key":
        append(settings, theirs, claim(ours, theirs), head_by=theirs)
        replace_key(settings, theirs)
        problem = "record 4 introduces a key and is not signed under the one before"
    elif kind == "from a key of their own":
        append(settings, other, claim(other, theirs), head_by=theirs)
        replace_key(settings, theirs)
        problem = "record 1 is not signed"
    elif kind == "over a key":
        rotate(settings)
        append(settings, other, claim(other, theirs), head_by=theirs)
        replace_key(settings, theirs)
        problem = "record 5 ends a key that record 4 did not introduce"
    else:
        append(settings, ours, claim(ours, theirs), head_by=ours)
        problem = "record 4 introduces a key that is not the one in keys/audit.key"
    assert problem in verify(settings).problems


def test_a_forged_rotation_is_not_continued(settings: Settings) -> None:
    """The head may be one record behind; a key that it does not know must be one that is here."""
    append(settings, signer(settings), claim(signer(settings), stranger()))
    assert not verify(settings).intact
    with pytest.raises(AuditError, match="introduces a key that is not here"):
        write_records(settings, 1)


def test_the_past_cannot_be_changed_with_todays_key(settings: Settings) -> None:
    """Who has stolen the key of now mends chain and head after a change; the end of the earlier key gives it away."""
    rotate(settings)
    write_records(settings, 2)
    home, key = Home.of(settings), signer(settings)

    def rewritten(changed: int) -> None:
        lines = home.audit.read_bytes().splitlines(keepends=True)
        assert b'"ana"' in lines[changed]
        lines[changed] = lines[changed].replace(b'"ana"', b'"bob"')
        for number in range(changed, len(lines)):
            body = lines[number].rpartition(b',"sig":"')[0]
            if number > changed:
                body = re.sub(
                    rb'"prev":"[0-9a-f]{64}"', b'"prev":"%s"' % audit._sha256(lines[number - 1]).encode(), body
                )
            lines[number] = body + b',"sig":"%s"}\n' % base64.b64encode(key.private.sign(body))
        home.audit.write_bytes(b"".join(lines))
        start = sum(map(len, lines[:-1]))
        head = Head(len(lines), audit._sha256(lines[-1]), start, start + len(lines[-1]))
        audit._save_head(home.audit_head, head, key)

    rewritten(4)
    assert verify(settings).intact, "under the key of now they can, until a head that was kept says otherwise"
    rewritten(1)
    assert verify(settings).problems == ("record 4 introduces a key and is not signed under the one before",)


def test_a_log_that_is_not_intact_keeps_its_key(settings: Settings) -> None:
    home, old = Home.of(settings), signer(settings)
    text = home.audit.read_bytes()
    home.audit.write_bytes(text.replace(b'"ana"', b'"bob"', 1))
    with pytest.raises(AuditError, match="tampered"):
        rotate(settings)
    assert signer(settings) == old
    assert not list(home.keys.glob("*.new.key"))
    home.audit.write_bytes(text)
    rotate(settings)
    assert verify(settings).intact


@pytest.mark.parametrize("goes_on", [False, True], ids=["at once", "after further records"])
@pytest.mark.parametrize(
    ("module", "name", "moment"),
    [
        (audit, "begin_rotation", "after"),
        (audit, "_append_bytes", "before"),
        (audit, "_append_bytes", "after"),
        (audit, "_save_head", "after"),
        (file_keys, "retire_pseudonym_key", "before"),
        (file_keys, "retire_pseudonym_key", "after"),
        (file_keys, "sign_receipts_anew", "after"),
        (audit, "end_rotation", "before"),
        (audit, "end_rotation", "after"),
    ],
)
def test_a_killed_rotation_is_taken_up(
    settings: Settings, module: Any, name: str, moment: Moment, goes_on: bool
) -> None:
    save_receipt(settings, receipt_of(settings, "CUST001"))
    with killed(module, name, moment):
        rotate(settings)
    assert verify(settings).problems == ()
    assert len(receipts_of(settings, "CUST001")) == 1
    ended = not (Home.of(settings).keys / "audit.new.key").exists()
    assert ended is ((name, moment) == ("end_rotation", "after"))
    if not ended:
        with pytest.raises(ConfigurationError, match="was interrupted"), writer_lock(settings, "erase"):
            pass
    if goes_on:
        write_records(settings, 2)  # reading goes on, and is recorded
        assert verify(settings).problems == ()
    if not ended:
        rotate(settings)
    write_records(settings, 1)
    result = verify(settings)
    assert (result.problems, len(result.keys)) == ((), 2)
    assert result.records == 3 + 1 + 2 * goes_on + 1
    assert len(receipts_of(settings, "CUST001")) == 1
    assert len(subject_pseudonyms(settings, "CUST001")) == 2


@pytest.mark.parametrize("keep", [40, 150, 260, -1])
def test_a_torn_rotation_is_made_good(settings: Settings, monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    real = audit._append_bytes

    def torn(path: Path, data: bytes) -> None:
        real(path, data[:keep])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(audit, "_append_bytes", torn)
        with pytest.raises(Killed):
            rotate(settings)
    assert verify(settings).problems == ()
    rotate(settings)
    write_records(settings, 1)
    result = verify(settings)
    assert (result.problems, result.records, len(result.keys)) == ((), 5, 2)
    assert len(result.torn) == (keep != -1), "only its end was lost: a whole record"


def _write_from_a_process(settings: Settings) -> None:
    write_records(settings, 25)


def test_who_writes_meanwhile_notices_nothing(settings: Settings) -> None:
    writers = [multiprocessing.Process(target=_write_from_a_process, args=(settings,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for _ in range(3):
        rotate(settings)
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    result = verify(settings)
    assert (result.problems, result.records, len(result.keys)) == ((), 3 + 50 + 3, 4)


# --- what else the key signs -----------------------------------------------------------------------------------------


def receipt_of(settings: Settings, subject: str) -> Receipt:
    pseudonym = subject_pseudonym(settings, subject)
    return Receipt(f"e-{subject.lower()}", pseudonym, "DSR-1", "complete", "2024-01-01T00:00:00+00:00")


def test_receipts_hold_and_the_old_key_makes_none(settings: Settings) -> None:
    old = signer(settings)
    save_receipt(settings, receipt_of(settings, "CUST001"))
    before = subject_pseudonym(settings, "CUST001")
    for _ in range(2):
        rotate(settings)
    assert subject_pseudonym(settings, "CUST001") != before
    assert [item.subject for item in receipts_of(settings, "CUST001")] == [before]
    assert receipts_of(settings, "CUST002") == []
    save_receipt(settings, receipt_of(settings, "CUST002"))
    assert len(all_receipts(settings)) == 2
    path = receipt_path(settings, "e-cust001")
    assert path.stat().st_mode & 0o777 == 0o600
    data = json.loads(path.read_text())
    data["receipt"]["ticket"] = "DSR-2"
    body = b"warehouse erasure receipt v1|" + json.dumps(data["receipt"], sort_keys=True).encode()
    data["signature"] = base64.b64encode(old.private.sign(body)).decode()
    path.write_text(json.dumps(data))
    with pytest.raises(WarehouseError, match="not the one that was signed"):
        all_receipts(settings)


def test_a_changed_receipt_stops_the_rotation_before_it_begins(settings: Settings) -> None:
    path = save_receipt(settings, receipt_of(settings, "CUST001"))
    path.write_text(path.read_text().replace("DSR-1", "DSR-2"))
    old = signer(settings)
    with pytest.raises(WarehouseError, match="not the one that was signed"):
        rotate(settings)
    assert signer(settings) == old
    assert not list(Home.of(settings).keys.glob("*.new.key"))


def test_the_command_line_rotates_it_and_says_who_signed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "get_settings", lambda: settings)
    result = CliRunner().invoke(app, ["privacy", "rotate-key", "audit"])
    assert result.exit_code == 0, result.stdout
    told = CliRunner().invoke(app, ["privacy", "audit", "verify"])
    assert told.exit_code == 0
    assert f"signed under {', then '.join(verify(settings).keys)}" in told.stdout
    codes = [(entry["record"]["metadata"]["event_code"], entry["record"]["status"]) for entry in tail(settings, 3)]
    assert codes == [("key_rotate", "Started"), ("key_rotate", "Success"), ("key_rotate", "Success")]
    assert tail(settings, 1)[0]["record"]["actor"]["user"]["name"] != ACTOR.name
