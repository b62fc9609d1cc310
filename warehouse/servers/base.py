"""The life of one embedded server, the same for all three.

    start: record the intent (port) → start → record the process → wait until it answers → provision
    later: find it (record first, then by data folder) → adopt it if it answers, else stop and start again

Every step can be cut off by SIGKILL: whatever was started is found again by its data folder, and provisioning
is idempotent.
"""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import psutil

from warehouse.core.errors import SourceUnavailable
from warehouse.core.progress import Progress
from warehouse.servers import process
from warehouse.servers.state import ServerState, load, save

_ATTEMPTS = 3  # a port that was free may be taken before the server has bound it
_ADOPT_SECONDS = 15.0  # patience with a running server that does not answer
_POLL = 0.05


class ServerMissing(SourceUnavailable):
    """This machine cannot run an embedded server: no package for the platform, or a library is lacking.

    Attributes:
        server: its name (`postgres`, `mongodb`, `kafka`).
    """

    def __init__(self, server: str, what: str, *, todo: str) -> None:
        super().__init__(what, todo=todo)
        self.server = server


class EmbeddedServer(ABC):
    """One server: its data, log and record below `folder`."""

    name: ClassVar[str]
    """The name of its folder and of its row in `warehouse sources status`."""
    title: ClassVar[str]
    """Its name for people."""
    variable: ClassVar[str]
    """The setting that replaces it by the user's own."""
    requirement: ClassVar[str]
    """The package its program comes from, and what that needs."""
    program: ClassVar[str]
    """The name its process bears."""
    accounts: ClassVar[tuple[str, ...]] = ()
    """Accounts for which a password is made."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    """Asks it to end cleanly."""
    start_seconds: ClassVar[float] = 120.0
    """Patience with a start, recovery after a crash included."""
    stop_seconds: ClassVar[float] = 60.0
    """Patience with a clean shutdown."""
    unwell_seconds: ClassVar[float] = 5.0
    """The same, when it has not answered for a while."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()  # one spelling: it is how a process of ours is recognised

    @property
    def data(self) -> Path:
        """What the server stores."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "log" / "server.log"

    @property
    def record(self) -> Path:
        """Port, process and passwords; 0600."""
        return self.folder / "state.json"

    # what each server does in its own way

    @abstractmethod
    def check(self) -> None:
        """Raise ServerMissing unless its program runs on this machine."""

    @abstractmethod
    def prepare(self, state: ServerState) -> None:
        """Make what it needs before its first start; nothing when that is there."""

    @abstractmethod
    def start(self, state: ServerState) -> psutil.Process:
        """Start it on `state.port`."""

    @abstractmethod
    def answers(self, state: ServerState) -> bool:
        """Whether it takes requests, within about two seconds."""

    @abstractmethod
    def provision(self, state: ServerState) -> None:
        """Make databases and accounts; nothing when they are there. Raises SourceUnavailable."""

    @abstractmethod
    def version(self, state: ServerState) -> str:
        """Its version, asked by a full health check with the reader's account. Raises SourceUnavailable."""

    @abstractmethod
    def reader_address(self, state: ServerState) -> str:
        """Where ingestion reads."""

    def admin_address(self, state: ServerState) -> str | None:
        """Where the simulation writes; None where that is the reader's address."""
        return None

    # what all do in the same way

    def up(self, new_password: Callable[[], str], progress: Progress) -> ServerState:
        """Adopt the running server or start one; returns once it is ready for work.

        Raises:
            ServerMissing: this machine cannot run it.
            SourceUnavailable: it does not start, or its record is lost while its data are there.
        """
        try:
            state = self._recall(new_password)
            running = self.running(state)
            if running is not None:
                if state.port and self._wait_until_it_answers(running, state, _ADOPT_SECONDS):
                    state = self._remember(state, running)
                    self.provision(state)
                    progress(f"{self.title}: already running on port {state.port}")
                    return state
                progress(f"{self.title}: process {running.pid} does not answer, replacing it")
            process.stop(process.find(self.program, self.data), self.stop_signal, self.unwell_seconds)
            self.check()
            begin = time.monotonic()
            self.prepare(state)
            state = self._start(state)
            self.provision(state)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise SourceUnavailable(
                f"the embedded {self.title} cannot be started: {reason}",
                kept="its data are untouched",
                todo=f"free space or correct the rights of {self.folder}, or set {self.variable}",
            ) from error
        progress(f"{self.title}: started on port {state.port} in {time.monotonic() - begin:.1f} s")
        return state

    def down(self, progress: Progress) -> bool:
        """Shut it down cleanly; False when it was not running."""
        state = load(self.record)
        running = self.running(state or ServerState())
        left = process.find(self.program, self.data)
        if running is not None:
            progress(f"{self.title}: stopping")
            process.stop([running], self.stop_signal, self.stop_seconds)
        process.stop([other for other in left if other != running], signal.SIGQUIT, self.unwell_seconds)
        if state is not None and state.pid is not None:
            save(self.record, replace(state, pid=None, created=None))
        return running is not None

    def running(self, state: ServerState) -> psutil.Process | None:
        """Its process: the recorded one, else the one that was started on its data folder."""
        known = process.recorded(state.pid, state.created)
        if known is not None:
            return known
        found = process.find(self.program, self.data)
        numbers = {one.pid for one in found}
        return next((one for one in found if self._leads(one, numbers)), None)

    def _leads(self, candidate: psutil.Process, numbers: set[int]) -> bool:
        """Whether it is the server itself and not a child, which cannot be adopted when its parent is gone."""
        try:
            return str(self.data) in candidate.cmdline() and candidate.ppid() not in numbers
        except psutil.Error:  # gone meanwhile
            return False

    def _recall(self, new_password: Callable[[], str]) -> ServerState:
        for folder in (self.folder, self.log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        state = load(self.record)
        if state is None or not state.secrets.keys() >= set(self.accounts):
            if self.accounts and self.data.exists():
                raise SourceUnavailable(
                    f"the record of the embedded {self.title} is lost or damaged, and its passwords with it",
                    kept="its data are untouched",
                    todo=(
                        f"restore {self.record}; or run `warehouse sources down`, remove {self.folder} and fill it anew"
                    ),
                )
            state = ServerState(secrets={account: new_password() for account in self.accounts})
            save(self.record, state)
        return state

    def _remember(self, state: ServerState, running: psutil.Process) -> ServerState:
        state = replace(state, pid=running.pid, created=running.create_time())
        save(self.record, state)
        return state

    def _start(self, state: ServerState) -> ServerState:
        for attempt in range(_ATTEMPTS):
            keep = attempt == 0 and state.port and process.is_free(state.port)
            state = replace(state, port=state.port if keep else process.free_port(), pid=None, created=None)
            save(self.record, state)
            started = self.start(state)
            state = self._remember(state, started)
            if self._wait_until_it_answers(started, state, self.start_seconds):
                return state
            if process.alive(started):
                process.stop([started], self.stop_signal, self.unwell_seconds)
                break
        save(self.record, replace(state, pid=None, created=None))
        raise SourceUnavailable(
            f"the embedded {self.title} does not start",
            kept="its data are untouched",
            todo=f"read {self.log}, or set {self.variable} to a server of your own",
        )

    def _wait_until_it_answers(self, running: psutil.Process, state: ServerState, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while process.alive(running):
            # first, so that no stranger who has taken the port is shown our password
            if process.listens(running, state.port) and self.answers(state):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return False

    def missing(self, reason: str) -> ServerMissing:
        """The error for a machine that cannot run it."""
        return ServerMissing(
            self.name,
            f"there is no embedded {self.title} on this machine: {reason}",
            todo=(
                f"install {self.requirement}, or set {self.variable} to a server of your own; "
                "until then this source can be read from files in the drop folder"
            ),
        )

    def check_program(self, command: list[str], user: int | None = None) -> None:
        """Run the program's version command; raise ServerMissing with the reason when it cannot run."""
        try:
            result = process.run(command, user=user, seconds=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise self.missing(f"{self.program} cannot be executed ({reason})") from None
        if result.returncode == -signal.SIGILL:
            raise self.missing(f"this processor lacks instructions that {self.program} needs (AVX)")
        if result.returncode != 0:
            said = result.stderr.strip().splitlines()
            raise self.missing(said[-1] if said else f"{self.program} ends with code {result.returncode}")
