"""One owner of a run's folder at a time: a file that says who, told from the leftover of a process that is dead.

The owner file is created exclusively, which network folders can do as well. It names the process and its machine; on
that machine whether it lives is looked up, elsewhere it is taken for dead once the file was not touched for a while. A
dead owner is succeeded by creating *its heir's* file exclusively, so that of many that find it dead one wins.
"""

import datetime
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from plstm_graph.errors import ConfigError

OWNER, HEIR = ".owner", ".heir-"
BEAT_S, DEAD_S = 15.0, 300.0  # how often an owner touches its file, and for how long not before it is dead elsewhere
TRIES, RETRY_S = 20, 0.05  # where the folder is no longer as it was a moment ago


@dataclass(frozen=True)
class Process:
    """A process that owns a folder, or wants to; ``machine`` is where its ``pid`` and ``born`` mean something."""

    token: str
    host: str
    machine: str
    pid: int
    born: str
    since: str

    @classmethod
    def this(cls) -> "Process":
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(secrets.token_hex(8), socket.gethostname(), _machine(), os.getpid(), _born(os.getpid()), now)

    def lives(self) -> bool | None:
        """None where only its owner file can tell."""
        return _born(self.pid) == self.born != "" if self.machine == _machine() else None


class Owner:
    """Of a folder: this process, from :func:`owned`."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.folder, self.process = folder, process

    def check(self) -> None:
        """Before anything is written, or read back.

        Raises:
            ConfigError: another process took the folder meanwhile, since this one was silent for too long, or somebody
                removed it.
        """
        try:
            found = _read(self.folder / OWNER)
        except OSError:  # nothing is known; a write will tell
            return
        if found != self.process:
            who = f"process {found.pid} on {found.host} took it over" if found else f"{OWNER} in it was removed"
            raise ConfigError(
                f"{self.folder} is no longer the folder of this run: {who}; nothing more is written to it"
            )


@contextmanager
def owned(folder: str | os.PathLike[str]) -> Iterator[Owner]:
    """This process alone may write to ``folder``, which is made; one that is still empty at the end goes again.

    Raises:
        ConfigError: another process that lives owns it, and the message says which; or it cannot be written.
    """
    folder = Path(folder)
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        owner = Owner(folder, _acquire(folder))
        with _beating(owner):
            yield owner
    finally:
        for place in new:
            with suppress(OSError):  # it holds something by now
                place.rmdir()


def check_free(folder: str | os.PathLike[str]) -> None:
    """Raise ConfigError where another process is at work in a folder, found out before it is waited for."""
    path = Path(folder) / OWNER
    with suppress(OSError):
        found = _read(path)
        if found and _alive(found, path):
            _refuse(Path(folder), found, path)


def is_owner_file(path: Path) -> bool:
    """Whether a file in a folder says who owns it, and is no part of what the folder holds."""
    return path.name.startswith((OWNER, HEIR))


def _acquire(folder: Path) -> Process:
    me = Process.this()
    try:
        for _ in range(TRIES):
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a file or the folder went between two looks: look again
                if _created(folder, me):
                    return me
            time.sleep(RETRY_S)
    except OSError as error:
        raise ConfigError(f"cannot write to output folder {folder}: {error.strerror}; choose another --out") from error
    raise ConfigError(f"{folder} is in use: other processes come and go in it; wait for them, or give another --out")


def _created(folder: Path, me: Process) -> bool:
    """Whether the owner file now names this process; False where what it found has changed meanwhile.

    Raises:
        ConfigError: somebody who lives is the owner, or the heir of a dead one.
    """
    chain = [folder / OWNER]
    while not _create(chain[-1], me):
        found = _read(chain[-1])
        if _alive(found, chain[-1]):
            if found is None:  # it is about to write its name
                return False
            _refuse(folder, found, chain[-1])
        chain.append(_heir(folder, found))
    if len(chain) > 1 and not _succeed(chain, me):
        return False
    for left in (*folder.glob(f"{HEIR}*"), *folder.glob(f"{OWNER}.*")):  # of those who were killed right here
        left.unlink(missing_ok=True)
    return True


def _succeed(chain: list[Path], me: Process) -> bool:
    """Takes the place of the dead, once this process is their heir and all of them are still as they were found."""
    *dead, own = chain
    if chain[1:] != [_heir(own.parent, _read(path)) for path in dead] or not dead[0].exists():
        own.unlink(missing_ok=True)
        return False
    temp = own.with_name(f"{OWNER}.{me.token}")
    _create(temp, me)
    os.replace(temp, dead[0])
    return True


def _heir(folder: Path, process: Process | None) -> Path:
    """The file that names who succeeds a process."""
    return folder / f"{HEIR}{process.token if process else 'nobody'}"


def _create(path: Path, process: Process) -> bool:
    """Whether it could be created, since it was not there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, json.dumps(asdict(process)).encode())
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def _read(path: Path) -> Process | None:
    """Who is named in a file; nobody if it is not there, is being written, or its writer was killed before.

    Raises:
        OSError: the folder does not answer.
    """
    try:
        return Process(**json.loads(path.read_text()))
    except (ValueError, TypeError, FileNotFoundError):
        return None


def _alive(process: Process | None, path: Path) -> bool:
    lives = process.lives() if process else None
    return _age(path) <= DEAD_S if lives is None else lives


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its folder, which may be on another machine."""
    with tempfile.TemporaryFile(dir=path.parent) as now:
        return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime


def _refuse(folder: Path, process: Process, path: Path) -> NoReturn:
    text = f"{folder} is in use: process {process.pid} on {process.host} has had it since {process.since}"
    if process.lives() is None:
        age = max(0.0, _age(path))
        text += f" and was seen {age:.0f} s ago (if it is dead, the folder is free in {DEAD_S - age:.0f} s)"
    raise ConfigError(f"{text}; wait for it or stop it, or give another --out")


@contextmanager
def _beating(owner: Owner) -> Iterator[None]:
    """The owner file is touched now and then, and removed at the end."""
    path, done = owner.folder / OWNER, threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_S):
            with suppress(OSError):
                if _read(path) == owner.process:
                    os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(OSError):
            if _read(path) == owner.process:
                path.unlink()


def _machine() -> str:
    """Where a process number means one process: a host since it was started, and a container of it."""
    found = [socket.gethostname()]
    with suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        found.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(found)


def _born(pid: int) -> str:
    """When a process of this machine started, in ticks since the machine did; empty if there is none."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]
    except FileNotFoundError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:  # a system without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "unknown"
