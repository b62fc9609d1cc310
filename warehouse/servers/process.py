"""Processes that outlive the command that started them: start, recognise, stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import psutil

HOST = "127.0.0.1"
LAUNCHER = "unshare"
"""A server started through it bears this name until it has replaced itself by the server."""

_CREATED_TOLERANCE = 1.0  # seconds; create_time is derived from the boot time, which the clock may nudge
_POLL = 0.02  # seconds between two looks at a process
_LOG_LIMIT = 10 * 2**20  # bytes after which a log is set aside at the next start
_INHERITED = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")


def environment() -> dict[str, str]:
    """What a server may inherit: not the keys in our environment, nor PG* variables or a stray locale."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {"LC_ALL": "C", "TZ": "UTC"}


def spawn(command: Sequence[str], log: Path, user: int | None = None) -> psutil.Process:
    """Start a daemon: own session, nothing of ours inherited, output appended to `log`.

    Args:
        command: the program and its arguments.
        log: where both output streams go (a pipe would fill up or hang its reader).
        user: run as this user and its group of the same number; only root can ask for it.

    Raises:
        OSError: the program cannot be executed.
    """
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_name(log.name + ".previous"))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(  # noqa: S603  # an argument list of our own, no shell
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",  # else the daemon would hold the caller's folder
            env=environment(),
            start_new_session=True,
            umask=0o077,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    finally:
        os.close(output)
    process = psutil.Process(child.pid)
    process.create_time()  # read before anybody can reap it, and cached by psutil
    threading.Thread(target=child.wait, name=f"reaper-{child.pid}", daemon=True).start()
    return process


def run(command: Sequence[str], user: int | None = None, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a program that ends by itself, with the environment of the servers.

    Raises:
        OSError: it cannot be executed.
        subprocess.TimeoutExpired: it took longer than `seconds`.
    """
    return subprocess.run(  # noqa: S603  # an argument list of our own, no shell
        list(command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        cwd="/",
        env=environment(),
        timeout=seconds,
        check=False,
        umask=0o077,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that died and that nobody has reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def recorded(pid: int | None, created: float | None) -> psutil.Process | None:
    """The process with this number, if it is the one that began at `created`."""
    if pid is None or created is None:
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < _CREATED_TOLERANCE
    except psutil.NoSuchProcess:
        return None
    return process if same and alive(process) else None


def find(program: str, folder: Path) -> list[psutil.Process]:
    """Every process of `program` that works on `folder`: named in its arguments, or its current directory.

    The second finds the children that a killed PostgreSQL leaves behind.
    """
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        name, arguments = process.info["name"], process.info["cmdline"] or []
        if name not in (program, LAUNCHER):
            continue
        if str(folder) in arguments or (name == program and _works_in(process, folder)):
            found.append(process)
    return [process for process in found if alive(process)]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder)
    except psutil.Error:  # gone, or somebody else's
        return False


def stop(processes: Iterable[psutil.Process], first: signal.Signals, seconds: float) -> None:
    """Ask with `first`, wait up to `seconds`, then kill what is left and wait until it is gone."""
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(first)
    left = _wait_gone(left, seconds)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_gone(left, 10)


def _wait_gone(processes: Collection[psutil.Process], seconds: float) -> list[psutil.Process]:
    # psutil.wait_procs would wait for ever where process 1 does not reap orphans, as in many containers
    deadline = time.monotonic() + seconds
    left = [process for process in processes if alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(_POLL)
        left = [process for process in left if alive(process)]
    return left


def free_port() -> int:
    """A loopback port that nobody holds at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(process: psutil.Process, port: int) -> bool:
    """Whether this very process takes connections on `port`."""
    try:
        connections = process.net_connections(kind="tcp")
    except psutil.Error:  # gone meanwhile
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT does not matter
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def size_of(folder: Path) -> int:
    """Bytes of the files below `folder`; those that vanish while we look count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).lstat().st_size
    return total
