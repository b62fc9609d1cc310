"""The audit log: what it holds, what it survives, and that no tampering goes unseen."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from typer.testing import CliRunner

from tests.conftest import MakeSettings, RecordFigure
from tests.integration.small_warehouse import build
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.errors import ConfigurationError
from warehouse.core.keys import file_key
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy import audit
from warehouse.privacy.audit import AuditError, examine, record, tail, verify
from warehouse.privacy.ocsf import Activity, Actor, Outcome, Resource
from warehouse.publish import publish

ACTOR = Actor("ana", "1000", "host-1", "192.0.2.7", 42)
TAMPERINGS = 10_000


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A home with keys."""
    return make_settings(tmp_path / "home")


def write_records(settings: Settings, count: int, outcome: Outcome = "success") -> None:
    for number in range(count):
        record(
            settings,
            Activity.QUERY,
            actor=ACTOR,
            outcome=outcome,
            resources=[Resource("table", f"public.t{number}")],
            statement=f"select {number} from public.dim_customer where email = 'ana@example.org'",
            rows=number,
        )


def test_a_record_says_who_what_when_where_outcome_and_resource(settings: Settings) -> None:
    write_records(settings, 1)
    (entry,) = tail(settings)
    event = entry["record"]
    assert event["actor"]["user"] == {"name": "ana", "uid": "1000", "type": "User"}
    assert (event["class_uid"], event["activity_id"], event["type_uid"]) == (6005, 4, 600504)
    assert abs(event["time"] / 1000 - time.time()) < 60
    assert event["src_endpoint"] == {"hostname": "host-1", "ip": "192.0.2.7"}
    assert event["status"] == "Success"
    assert event["resources"] == [{"type": "table", "name": "public.t0"}]


def test_no_statement_and_no_value_is_written(settings: Settings) -> None:
    write_records(settings, 2)
    text = Home.of(settings).audit.read_text()
    assert "ana@example.org" not in text
    assert "select" not in text
    digests = [entry["record"]["query_info"]["query_string"] for entry in tail(settings)]
    assert all(digest.startswith("hmac-sha256:") for digest in digests)
    assert len(set(digests)) == 2


@pytest.mark.parametrize("name", ["ana@example.org", "4111111111111111", "a b", "", "x" * 200, "select 'x'"])
def test_a_resource_is_a_name_and_nothing_else(name: str) -> None:
    with pytest.raises(ValueError, match="is named by"):
        Resource("subject", name)


def test_files_are_private(settings: Settings) -> None:
    write_records(settings, 2)
    home = Home.of(settings)
    for path in (home.audit, home.audit_head):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert home.audit.parent != home.audit_head.parent


def test_an_empty_log_and_a_good_one_are_intact(settings: Settings) -> None:
    (key,) = verify(settings).keys
    assert verify(settings).to_dict() == {
        "intact": True,
        "records": 0,
        "head": f"0:{'0' * 64}",
        "torn": [],
        "problems": [],
        "keys": [key],
    }
    write_records(settings, 5)
    assert verify(settings).intact
    assert verify(settings).records == 5


def _write_from_a_process(settings: Settings, count: int) -> None:
    write_records(settings, count)


def test_concurrent_writers_make_one_chain(settings: Settings) -> None:
    writers = [multiprocessing.Process(target=_write_from_a_process, args=(settings, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    result = verify(settings)
    assert (result.records, result.problems, result.torn) == (100, (), ())


def test_of_writers_killed_in_turn_each_takes_over_the_record_before(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many in a row are killed between record and head, the head is never more than one record old."""
    write_records(settings, 1)
    append = audit._append

    def killed_before_the_head(home: Home, *given: Any, **named: Any) -> None:
        head = home.audit_head.read_bytes()
        append(home, *given, **named)
        home.audit_head.write_bytes(head)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(audit, "_append", killed_before_the_head)
        for written in range(2, 5):
            with pytest.raises(KeyboardInterrupt):
                write_records(settings, 1)
            result = verify(settings)
            assert (result.records, result.problems) == (written, ())
    write_records(settings, 1)
    assert verify(settings).intact


def test_killed_writers_break_nothing(settings: Settings) -> None:
    write_records(settings, 1)
    for round_ in range(8):
        writer = multiprocessing.Process(target=_write_from_a_process, args=(settings, 10_000))
        writer.start()
        time.sleep(0.05 + 0.01 * round_)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(10)
        assert verify(settings).intact
    before = verify(settings).records
    write_records(settings, 1)
    result = verify(settings)
    assert result.intact
    assert result.records == before + 1


@pytest.mark.parametrize("keep", [1, 30, 90, 200, -2])
def test_a_torn_line_is_recognised_and_accounted_for(settings: Settings, keep: int) -> None:
    write_records(settings, 3)
    home = Home.of(settings)
    head, size = home.audit_head.read_bytes(), home.audit.stat().st_size
    write_records(settings, 1)
    torn = home.audit.read_bytes()[size:][:keep]
    home.audit.write_bytes(home.audit.read_bytes()[:size] + torn)
    home.audit_head.write_bytes(head)  # the writer was killed before it moved the head on
    assert verify(settings).intact
    assert [(item.after, item.bytes) for item in verify(settings).torn] == [(3, len(torn))]
    write_records(settings, 2)
    result = verify(settings)
    assert (result.intact, result.records) == (True, 5)
    assert [item.after for item in result.torn] == [3]
    assert torn in home.audit.read_bytes()  # still there
    home.audit.write_bytes(home.audit.read_bytes().replace(torn + b"\n", b"", 1))
    assert not verify(settings).intact


def test_a_record_that_lacks_only_its_newline_is_taken_over(settings: Settings) -> None:
    write_records(settings, 3)
    home = Home.of(settings)
    head = home.audit_head.read_bytes()
    write_records(settings, 1)
    home.audit.write_bytes(home.audit.read_bytes()[:-1])
    home.audit_head.write_bytes(head)
    write_records(settings, 1)
    result = verify(settings)
    assert (result.intact, result.records, result.torn) == (True, 5, ())


def test_a_record_that_the_head_does_not_know_yet_is_taken_over(settings: Settings) -> None:
    write_records(settings, 3)
    head = Home.of(settings).audit_head.read_bytes()
    write_records(settings, 1)
    Home.of(settings).audit_head.write_bytes(head)
    assert verify(settings).intact
    write_records(settings, 1)
    assert (verify(settings).intact, verify(settings).records) == (True, 5)


def _forged(settings: Settings) -> bytes:
    """The next line, well chained and signed with another key."""
    last = verify(settings)
    sequence, digest = last.head.split(":")
    body = b'{"seq":%d,"prev":"%s","record":{"time":0}' % (int(sequence) + 1, digest.encode())
    signature = base64.b64encode(Ed25519PrivateKey.generate().sign(body))
    return body + b',"sig":"%s"}\n' % signature


def test_a_forged_next_record_is_found_and_not_continued(settings: Settings) -> None:
    write_records(settings, 3)
    line = _forged(settings)
    with Home.of(settings).audit.open("ab") as log:
        log.write(line)
    assert verify(settings).problems == ("record 4 is not signed",)
    with pytest.raises(AuditError, match="tampered"):
        write_records(settings, 1)


@pytest.mark.parametrize("what", ["log", "head", "both cut", "key"])
def test_nothing_is_recorded_after_tampering(settings: Settings, what: str) -> None:
    write_records(settings, 3)
    home = Home.of(settings)
    if what == "log":
        home.audit.unlink()
    elif what == "head":
        home.audit_head.unlink()
    elif what == "both cut":
        home.audit.write_bytes(b"".join(home.audit.read_bytes().splitlines(keepends=True)[:2]))
    else:
        (home.keys / "audit.key").write_text(base64.b64encode(os.urandom(32)).decode())
    assert not verify(settings).intact
    with pytest.raises(AuditError, match="tampered"):
        write_records(settings, 1)


def test_a_missing_key_stops(settings: Settings) -> None:
    (Home.of(settings).keys / "audit.key").unlink()
    with pytest.raises(ConfigurationError, match=r"audit\.key is missing"):
        write_records(settings, 1)


def test_a_home_set_back_is_found_by_an_earlier_head(settings: Settings) -> None:
    write_records(settings, 3)
    home = Home.of(settings)
    log, head = home.audit.read_bytes(), home.audit_head.read_bytes()
    write_records(settings, 2)
    kept = verify(settings).head
    write_records(settings, 1)
    assert verify(settings, contains=kept).intact
    home.audit.write_bytes(log)
    home.audit_head.write_bytes(head)
    assert verify(settings).intact  # by itself it cannot tell
    assert "set back" in verify(settings, contains=kept).problems[0]


Tampering = Callable[[random.Random, bytes], bytes]


def _lines(log: bytes) -> list[bytes]:
    return log.splitlines(keepends=True)


def _edit(draw: random.Random, log: bytes) -> bytes:
    place = draw.randrange(len(log))
    return log[:place] + bytes([(log[place] + draw.randrange(1, 256)) % 256]) + log[place + 1 :]


def _flip(draw: random.Random, log: bytes) -> bytes:
    place = draw.randrange(len(log))
    return log[:place] + bytes([log[place] ^ (1 << draw.randrange(8))]) + log[place + 1 :]


def _remove_bytes(draw: random.Random, log: bytes) -> bytes:
    place = draw.randrange(len(log))
    return log[:place] + log[place + draw.randrange(1, 50) :]


def _insert_bytes(draw: random.Random, log: bytes) -> bytes:
    place = draw.randrange(len(log) + 1)
    return log[:place] + draw.randbytes(draw.randrange(1, 20)) + log[place:]


def _delete(draw: random.Random, log: bytes) -> bytes:
    lines = _lines(log)
    start = draw.randrange(len(lines))
    del lines[start : start + draw.randrange(1, 4)]
    return b"".join(lines)


def _swap(draw: random.Random, log: bytes) -> bytes:
    lines = _lines(log)
    one, two = draw.sample(range(len(lines)), 2)
    lines[one], lines[two] = lines[two], lines[one]
    return b"".join(lines)


def _repeat(draw: random.Random, log: bytes) -> bytes:
    lines = _lines(log)
    lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
    return b"".join(lines)


def _reorder(draw: random.Random, log: bytes) -> bytes:
    lines = _lines(log)
    while b"".join(lines) == log:
        draw.shuffle(lines)
    return b"".join(lines)


def _truncate(draw: random.Random, log: bytes) -> bytes:
    return log[: draw.randrange(len(log))]


def _cut_lines(draw: random.Random, log: bytes) -> bytes:
    return b"".join(_lines(log)[: draw.randrange(len(_lines(log)))])


def _rewrite(draw: random.Random, log: bytes) -> bytes:
    """Change a record and mend the chain after it, as somebody would who has read the code but not the key."""
    lines = _lines(log)
    changed = draw.randrange(len(lines))
    lines[changed] = lines[changed].replace(b'"ana"', b'"bob"')
    for number in range(changed + 1, len(lines)):
        entry = json.loads(lines[number])
        previous = audit._sha256(lines[number - 1])
        lines[number] = lines[number].replace(entry["prev"].encode(), previous.encode())
    return b"".join(lines)


KINDS: tuple[Tampering, ...] = (
    _edit, _flip, _remove_bytes, _insert_bytes, _delete, _swap, _repeat, _reorder, _truncate, _cut_lines, _rewrite
)  # fmt: skip


def missed_tamperings(log: bytes, head: bytes, public: Ed25519PublicKey, count: int) -> list[str]:
    """Change an intact log in `count` ways, every kind in turn; which kinds were not noticed."""
    assert examine(io.BytesIO(log), head, public).intact
    draw, missed = random.Random(20240101), []  # noqa: S311  # repeatable on purpose
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        changed = kind(draw, log)
        assert changed != log
        result = examine(io.BytesIO(changed), head, public)
        if result.intact and not result.torn:
            missed.append(kind.__name__)
    return missed


def test_every_random_tampering_is_found(settings: Settings, record_figure: RecordFigure) -> None:
    write_records(settings, 20)
    home = Home.of(settings)
    log, head = home.audit.read_bytes(), home.audit_head.read_bytes()
    public = Ed25519PrivateKey.from_private_bytes(base64.b64decode(file_key(settings, "audit"))).public_key()
    missed = missed_tamperings(log, head, public, TAMPERINGS)
    record_figure(
        "audit log: tamperings", f"{TAMPERINGS - len(missed):,} of {TAMPERINGS:,} found, {len(KINDS)} kinds", "100 %"
    )
    assert not missed


def test_every_byte_of_the_head_matters(settings: Settings) -> None:
    write_records(settings, 3)
    home = Home.of(settings)
    log, head = home.audit.read_bytes(), home.audit_head.read_bytes()
    public = Ed25519PrivateKey.from_private_bytes(base64.b64decode(file_key(settings, "audit"))).public_key()
    for place in range(len(head)):
        changed = head[:place] + bytes([head[place] ^ 1]) + head[place + 1 :]
        assert not examine(io.BytesIO(log), changed, public).intact


@pytest.fixture
def cli(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run the command line on a small published warehouse."""
    build(settings)
    publish(settings)
    manifest = Home.of(settings).dbt_target / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"nodes": {}, "sources": {}}')
    monkeypatch.setattr(context, "get_settings", lambda: settings)

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(arguments))
        return result.exit_code, result.stdout

    return run


def test_commands_leave_their_record(settings: Settings, cli: Callable[..., tuple[int, str]]) -> None:
    assert cli("query", "select product_name from dim_product where category = 'Electronics'")[0] == 0
    assert cli("query", "select nothing from dim_product")[0] == 8
    assert cli("publish", "--json")[0] == 0
    codes = [(e["record"]["metadata"]["event_code"], e["record"]["status"]) for e in tail(settings)]
    assert codes == [
        ("query", "Success"),
        ("query", "Failure"),
        ("publish", "Started"),
        ("role_export", "Success"),
        ("publish", "Success"),
    ]
    first = tail(settings)[0]["record"]
    assert {"type": "table", "name": "public.dim_product"} in first["resources"]
    assert {"type": "key", "name": "published"} in first["resources"]
    assert first["unmapped"] == {"rows": 1}
    assert "Electronics" not in Home.of(settings).audit.read_text()
    code, text = cli("privacy", "audit", "verify", "--json")
    assert (code, json.loads(text)["records"]) == (0, 5)
    assert "public.dim_product" in cli("privacy", "audit", "tail")[1]
    assert len(json.loads(cli("privacy", "audit", "tail", "-n", "2", "--json")[1])) == 2


def test_what_cannot_be_recorded_is_not_shown(settings: Settings, cli: Callable[..., tuple[int, str]]) -> None:
    assert cli("query", "select product_name from dim_product")[0] == 0
    Home.of(settings).audit_head.unlink()
    code, text = cli("query", "select product_name from dim_product")
    assert code == AuditError.exit_code
    assert "Laptop" not in text
    assert cli("privacy", "audit", "verify")[0] == AuditError.exit_code


def test_a_forged_record_after_the_head_is_found(settings: Settings) -> None:
    """The head may be one record behind, when a writer was killed: that record must be signed all the same."""
    write_records(settings, 2)
    home = Home.of(settings)
    last = home.audit.read_bytes().splitlines(keepends=True)[-1]
    body = b'{"seq":3,"prev":"%s","record":{"forged":true}' % hashlib.sha256(last).hexdigest().encode()
    with home.audit.open("ab") as log:
        log.write(body + b',"sig":"%s=="}\n' % (b"A" * 86))
    assert verify(settings).problems == ("record 3 is not signed",)
    with pytest.raises(AuditError, match="tampered"):
        write_records(settings, 1)
