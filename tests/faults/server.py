"""A redis-server of the test's own, to be killed, stopped and started again on the same data."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import redis

from tests.conftest import require_or_skip


class OwnServer:
    """Keeps its data in an append-only file, written through each second, and never evicts."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._program = require_or_skip("redis-server", "apt-get install redis-server")
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder}/s"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "--port", "0", "--unixsocket", f"{self._folder}/s", "--dir",
             str(self._folder), "--save", "", "--appendonly", "yes", "--maxmemory-policy",
             "noeviction", "--enable-debug-command", "local", *self._options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            client = redis.Redis(unix_socket_path=f"{self._folder}/s")
            try:
                client.ping()
            except (redis.ConnectionError, FileNotFoundError):
                time.sleep(0.02)
            else:
                return
            finally:
                client.close()
        raise TimeoutError("redis-server does not answer")

    def kill(self) -> None:
        """As a power button does, the disk apart."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def command(self, *command: str) -> object:
        client = redis.Redis(unix_socket_path=f"{self._folder}/s")
        try:
            return client.execute_command(*command)
        finally:
            client.close()
