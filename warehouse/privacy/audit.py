"""The audit log: append-only, hash-chained JSON lines, and a signed head kept apart from them.

    {"seq":7,"prev":"<sha256 of line 6>","record":{…OCSF…},"sig":"<Ed25519 of what stands before>"}

Each line names the digest of the one before, byte for byte; the head names the last line and is signed. So an edit, a
deletion, an insertion, a swap or a truncation anywhere breaks the chain or its end, and nobody can mend it without the
key. Writers take turns under a lock; a line is on disk before the head is moved on. A writer that is killed leaves
either one signed line that the head does not know yet, which the next one takes over, or a torn line: it stays where
it is, and the next record carries its digest. A new key is introduced by a record under the old one (`audit_keys`).

What the log itself cannot show is a home set back as a whole, log, head and all. For that an auditor keeps a head
(`verify` prints it) and asks later whether the log still contains it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from filelock import FileLock, Timeout

from warehouse.core.errors import WarehouseError
from warehouse.core.keys import begin_rotation, end_rotation
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.audit_keys import AUDIT_KEY, KeyChange, KeyRing, Signer, Signers, key_change, load_signers
from warehouse.privacy.ocsf import Activity, Actor, Outcome, Resource, event

LOCK_SECONDS = 30.0
_START = "0" * 64
_END_OF_LINE = re.compile(rb',"sig":"([A-Za-z0-9+/]{86}==)"\}\n\Z')
_TORN_CLAIM = re.compile(rb'"torn":"([0-9a-f]{64})",')
_HEAD_DOMAIN = b"warehouse audit head v1|"


class AuditError(WarehouseError):
    """The audit log cannot be trusted or cannot be written. What would go unrecorded is not done."""

    exit_code = 9


@dataclass(frozen=True)
class Head:
    """The last line, by number, digest and place."""

    sequence: int = 0
    digest: str = _START
    start: int = 0
    """First byte of the last line."""
    end: int = 0
    """First byte after it."""

    def __str__(self) -> str:
        """What an auditor keeps: `7:ab12…`."""
        return f"{self.sequence}:{self.digest}"

    def message(self) -> bytes:
        """What is signed."""
        return _HEAD_DOMAIN + f"{self.sequence}|{self.digest}|{self.start}|{self.end}".encode()


@dataclass(frozen=True)
class Torn:
    """A line that a killed writer did not finish."""

    after: int
    """The last complete record before it."""
    bytes: int


@dataclass(frozen=True)
class Verification:
    """What the log is worth."""

    records: int
    head: str
    torn: tuple[Torn, ...] = ()
    problems: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Fingerprints of the keys that signed it, the oldest first: one more for each rotation."""

    @property
    def intact(self) -> bool:
        """Nothing was changed, removed, added or moved."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "intact": self.intact,
            "records": self.records,
            "head": self.head,
            "torn": [{"after": item.after, "bytes": item.bytes} for item in self.torn],
            "problems": list(self.problems),
            "keys": list(self.keys),
        }


@dataclass
class _Chain:
    """Walks lines from a known head on."""

    head: Head = field(default_factory=Head)
    torn: list[Torn] = field(default_factory=list)
    change: KeyChange | None = None
    """What the last line said of a new key."""
    problem: str | None = None
    _odd: bytearray = field(default_factory=bytearray)
    """What stands after the last good line and is no good line itself."""

    @property
    def expected(self) -> bytes:
        return f'{{"seq":{self.head.sequence + 1},"prev":"{self.head.digest}",'.encode()

    def feed(self, line: bytes) -> bool:
        """Take one line with its newline; whether it is the next record."""
        expected = self.expected
        if not line.startswith(expected) or not _END_OF_LINE.search(line):
            self._odd += line
            return False
        claim = _TORN_CLAIM.match(line, len(expected))
        if (claim[1].decode() if claim else None) != (_sha256(self._odd) if self._odd else None):
            self.problem = f"record {self.head.sequence + 1} does not account for what stands before it"
            return False
        if self._odd:
            self.torn.append(Torn(self.head.sequence, len(self._odd)))
        self.change = key_change(line, claim.end() if claim else len(expected), self.head.sequence + 1)
        start = self.head.end + len(self._odd)
        self._odd.clear()
        self.head = Head(self.head.sequence + 1, _sha256(line), start, start + len(line))
        return True

    def finish(self) -> bytes:
        """What is left at the end: nothing, or what a killed writer may have left; anything else is a problem."""
        left = bytes(self._odd)
        if left and not self.problem:
            if all(_agree(part, self.expected) for part in left.split(b"\n")):
                self.torn.append(Torn(self.head.sequence, len(left)))
            else:
                self.problem = f"what follows record {self.head.sequence} is not the next record"
        return left


def record(
    settings: Settings,
    activity: Activity,
    *,
    actor: Actor,
    outcome: Outcome,
    resources: Sequence[Resource],
    statement: str | None = None,
    rows: int | None = None,
    error: str | None = None,
) -> Head:
    """Append one event and move the head on; on return both are on disk.

    `statement` enters only as a keyed digest: a plain one of a short statement could be guessed.

    Raises:
        AuditError: the log does not fit its head, cannot be written, or stays locked. The caller must not go on.
        ConfigurationError: the audit key is missing, short or readable by others.
    """
    with _locked(settings) as home:
        chain, left, signer = _resume(home, load_signers(settings))
        digest = None if statement is None else statement_digest(signer.seed, statement)
        entry = event(
            activity,
            actor=actor,
            outcome=outcome,
            resources=resources,
            statement_digest=digest,
            rows=rows,
            error=error,
        )
        return _append(home, chain, left, entry, signer)


def introduce_key(settings: Settings, *, actor: Actor) -> None:
    """Begin to rotate the log's key: a new one, introduced by a record under the old one, signs from there on.

    Safe to repeat: an interrupted rotation is taken up. Both keys are there until :func:`end_old_key`.

    Raises:
        AuditError: the log is not intact, cannot be written, or stays locked; the key is then the old one.
        ConfigurationError: the audit key is missing, short or readable by others.
    """
    with _locked(settings) as home:
        found = _examined(home, load_signers(settings))
        if not found.intact:
            raise _broken(found.problems[0])
        begin_rotation(settings, AUDIT_KEY)
        signers = load_signers(settings)
        chain, left, signer = _resume(home, signers)
        if signer == signers.current:
            key = Resource("key", AUDIT_KEY)
            entry = event(Activity.KEY_ROTATE, actor=actor, outcome="success", resources=[key])
            _append(home, chain, left, entry, signer, introduces=signers.pending)


def end_old_key(settings: Settings) -> None:
    """End a rotation: the new key takes the place of the old one, which is gone with that."""
    with _locked(settings):
        end_rotation(settings, AUDIT_KEY)


def signers_of(settings: Settings) -> Signers:
    """The key of the log, for what else it signs.

    Raises:
        AuditError: the log stays locked.
        ConfigurationError: the audit key is missing, short or readable by others.
    """
    with _locked(settings):
        return load_signers(settings)


def verify(settings: Settings, *, contains: str | None = None) -> Verification:
    """Check every line against the chain and the signed head.

    Args:
        settings: whose log.
        contains: a head that was printed earlier (`7:ab12…`); the log must still hold that very record.

    Raises:
        ConfigurationError: the audit key is missing, short or readable by others.
    """
    with _locked(settings) as home:
        return _examined(home, load_signers(settings), contains)


def examine(
    log: BinaryIO,
    head: bytes | None,
    public: Ed25519PublicKey,
    *,
    pending: Ed25519PublicKey | None = None,
    contains: str | None = None,
) -> Verification:
    """`verify`, on an open log and the bytes of its head (None: there is no such file).

    Args:
        log: read from where it stands, once.
        head: what the head's file holds.
        public: the key that is in force at the end of the log.
        pending: the one that an interrupted rotation may have put into force instead.
        contains: as in :func:`verify`.
    """
    claimed = _parse_head(head)
    chain, seen = _Chain(), contains is None or contains == str(Head())
    changes: list[KeyChange] = []
    checked: dict[int, bytes] = {}
    """Lines whose own signature counts: the first and the last under each key, and what the head does not know."""
    reached = claimed is not None and claimed[0] == chain.head
    first, beyond = True, 0
    for line in log:
        if not chain.feed(line):
            if chain.problem:
                break
            continue
        seen = seen or contains == str(chain.head)
        if first or chain.change or reached:
            checked[chain.head.sequence] = line
        if chain.change:
            changes.append(chain.change)
        first = chain.change is not None
        beyond += reached
        reached = reached or (claimed is not None and claimed[0] == chain.head)
    left = chain.finish()
    ring = _ring(changes, public, pending)
    signed = claimed is not None and _verifies(ring.key_of(claimed[0].sequence + 1), claimed[1], claimed[0].message())
    problems: list[str] = []
    if not signed:
        problems.append("the head is missing" if head is None else "the head is not the one that was signed")
    if head is None and chain.head.sequence == 0 and not left:
        problems.clear()  # nothing was ever recorded
    elif chain.problem:
        problems.append(chain.problem)
    elif claimed is not None and signed and not reached:
        problems.append(f"the signed head is record {claimed[0].sequence}, which the log does not lead to")
    else:
        introduces = "introduces a key and is not signed under the one before"
        introducing = {change.sequence for change in changes}
        problems += [
            f"record {sequence} {introduces if sequence in introducing else 'is not signed'}"
            for sequence, line in checked.items()
            if not _is_signed(line, ring.key_of(sequence))
        ]
        problems += ring.breaks()
        if beyond > 1:
            problems.append(f"the head is {beyond} records old")
    if not seen:
        problems.append("the log does not contain the head that was asked for: it was set back or replaced")
    return Verification(
        records=chain.head.sequence,
        head=str(chain.head),
        torn=tuple(chain.torn),
        problems=tuple(problems),
        keys=ring.fingerprints(),
    )


def tail(settings: Settings, count: int = 20) -> list[dict[str, Any]]:
    """The last records, oldest first: `{"seq": …, "record": {…}}`. A torn line shows as `{"torn": its bytes}`."""
    path = Home.of(settings).audit
    if not path.exists():
        return []
    with path.open("rb") as log:
        return [_parse(line) for line in deque(log, maxlen=count)]


def events(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    """The OCSF events of complete lines; torn ones are not events."""
    for line in lines:
        entry = _parse(line)
        if "record" in entry:
            yield entry["record"]


def statement_digest(seed: bytes, statement: str) -> str:
    """`hmac-sha256:…` of a statement under a key of its own, derived from the audit key."""
    key = hmac.digest(seed, b"warehouse audit statement v1", "sha256")
    return "hmac-sha256:" + hmac.digest(key, statement.strip().encode(), "sha256").hex()


@contextmanager
def _locked(settings: Settings) -> Iterator[Home]:
    """The log is ours, and its folders are there."""
    home = Home.of(settings)
    try:
        for folder in (home.audit.parent, home.audit_head.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(home.audit.with_suffix(".lock"), timeout=LOCK_SECONDS, mode=0o600):
            yield home
    except Timeout:
        raise AuditError(
            "the audit log stayed locked, so this was not recorded and not done",
            todo="look for a process that hangs (`warehouse doctor`), then run this again",
        ) from None
    except OSError as error:
        raise AuditError(
            f"the audit log cannot be read or written ({type(error).__name__}), so this was not done",
            todo=f"look for a full disk or a folder that cannot be written: {home.audit.parent}",
        ) from None


def _examined(home: Home, signers: Signers, contains: str | None = None) -> Verification:
    head = home.audit_head.read_bytes() if home.audit_head.exists() else None
    pending = signers.pending.public if signers.pending else None
    with home.audit.open("rb") if home.audit.exists() else io.BytesIO() as log:
        return examine(log, head, signers.current.public, pending=pending, contains=contains)


def _ring(changes: Sequence[KeyChange], public: Ed25519PublicKey, pending: Ed25519PublicKey | None) -> KeyRing:
    last = public.public_bytes_raw()
    if changes and pending is not None and changes[-1].new == pending.public_bytes_raw():
        last = changes[-1].new
    return KeyRing(changes, last)


def _append(
    home: Home, chain: _Chain, left: bytes, entry: dict[str, Any], signer: Signer, *, introduces: Signer | None = None
) -> Head:
    claims, gap = b"", b""
    if left:
        gap = b"" if left.endswith(b"\n") else b"\n"
        claims = b'"torn":"%s",' % _sha256(left + gap).encode()
    if introduces:
        change = KeyChange(0, signer.public.public_bytes_raw(), introduces.public.public_bytes_raw())
        claims += change.claim()
    body = chain.expected + claims + b'"record":' + orjson.dumps(entry)
    line = body + b',"sig":"%s"}\n' % base64.b64encode(signer.private.sign(body))
    _append_bytes(home.audit, gap + line)
    start = chain.head.end + len(left) + len(gap)
    head = Head(chain.head.sequence + 1, _sha256(line), start, start + len(line))
    _save_head(home.audit_head, head, introduces or signer)
    return head


def _resume(home: Home, signers: Signers) -> tuple[_Chain, bytes, Signer]:
    """Go on from the signed head: what follows it may be one signed line and a torn one, nothing else.

    Returns where to go on, the torn bytes there, and the key that is in force: the one to come when the rotation was
    interrupted after its record.
    """
    if not home.audit_head.exists() and not home.audit.exists():
        # before the first line: a log without a head is never right
        _save_head(home.audit_head, Head(), signers.current)
    claimed = _parse_head(home.audit_head.read_bytes() if home.audit_head.exists() else None)
    signer = next(
        (one for one in signers.all if claimed and _verifies(one.public, claimed[1], claimed[0].message())), None
    )
    if claimed is None or signer is None:
        raise _broken("its head is missing or not the one that was signed")
    chain = _Chain(claimed[0])
    if not home.audit.exists():
        if chain.head != Head():
            raise _broken("the log is gone")
        return chain, b"", signer
    with home.audit.open("rb") as log:
        log.seek(chain.head.start)
        if chain.head != Head() and _sha256(log.read(chain.head.end - chain.head.start)) != chain.head.digest:
            raise _broken("its last record is not the one that was signed")
        for text in log.readlines():
            line = text
            if not line.endswith(b"\n") and _END_OF_LINE.search(line + b"\n"):
                line += b"\n"  # only its end was lost: a whole record
                _append_bytes(home.audit, b"\n")
            if chain.feed(line):
                signer = _taken_over(chain, line, signer, signers)
            if chain.problem:
                break
    known = len(chain.torn)
    left = chain.finish()
    if chain.problem:
        raise _broken(chain.problem)
    del chain.torn[known:]
    if chain.head != claimed[0]:  # before the next line: killed again, the head would be two records old
        _save_head(home.audit_head, chain.head, signer)
    return chain, left, signer


def _taken_over(chain: _Chain, line: bytes, signer: Signer, signers: Signers) -> Signer:
    """The key in force after a line that the head does not know yet; the chain tells what is wrong with it."""
    if not _is_signed(line, signer.public):
        chain.problem = f"record {chain.head.sequence} is not signed"
    elif chain.change:
        if signers.pending is None or chain.change.new != signers.pending.public.public_bytes_raw():
            chain.problem = f"record {chain.head.sequence} introduces a key that is not here"
        else:
            return signers.pending
    return signer


def _broken(why: str) -> AuditError:
    return AuditError(
        f"the audit log was tampered with: {why}",
        kept="the log as it is: evidence; nothing was recorded and nothing was done",
        todo="run `warehouse privacy audit verify`, follow the runbook (audit log), then move both folders aside",
    )


def _is_signed(line: bytes, public: Ed25519PublicKey) -> bool:
    end = _END_OF_LINE.search(line)
    if end is None:
        return False
    return _verifies(public, base64.b64decode(end[1]), line[: end.start()])


def _verifies(public: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _head_bytes(head: Head, signature: bytes) -> bytes:
    return orjson.dumps(
        {
            "sequence": head.sequence,
            "digest": head.digest,
            "start": head.start,
            "end": head.end,
            "signature": base64.b64encode(signature).decode(),
        }
    )


def _parse_head(text: bytes | None) -> tuple[Head, bytes] | None:
    """The head and its signature, if it is written as we write it, byte for byte."""
    try:
        data = orjson.loads(text or b"")
        head = Head(data["sequence"], data["digest"], data["start"], data["end"])
        signature = base64.b64decode(data["signature"], validate=True)
        written = _head_bytes(head, signature)
    except (ValueError, KeyError, TypeError):
        return None
    return (head, signature) if written == text and isinstance(head.sequence, int) else None


def _save_head(path: Path, head: Head, signer: Signer) -> None:
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _write(descriptor, _head_bytes(head, signer.private.sign(head.message())))
    finally:
        os.close(descriptor)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _append_bytes(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        _write(descriptor, data)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _agree(part: bytes, expected: bytes) -> bool:
    return part[: len(expected)] == expected[: len(part)]


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {"torn": len(line)}
    return entry


def _sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()
