"""The command as users run it: a process, its exit code, its one line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

BEGIN = "from tickbird.cli import main; raise SystemExit(main())"


def command(*args: str) -> list[str]:
    return [sys.executable, "-c", BEGIN, "dashboard", *args]


@contextmanager
def served(*args: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dashboard process and the address it printed."""
    process = subprocess.Popen(
        command("--port", "0", *args),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def refused(*args: str, **environment: str) -> str:
    """What a command says that ends with exit code 2."""
    done = subprocess.run(
        command(*args),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def test_sigterm_ends_it_with_open_event_streams(redis_url: str) -> None:
    with (
        served("--redis-url", redis_url) as (process, address),
        httpx.stream("GET", f"{address}events", timeout=10) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "event: hello"
        process.send_signal(signal.SIGTERM)
        rest = list(lines)  # the stream ends by itself
        code = process.wait(timeout=5)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

    assert not any(line.startswith("event: error") for line in rest)
    assert code == 0


def test_credentials_may_come_from_the_environment(redis_url: str) -> None:
    with served("--redis-url", redis_url, TICKBIRD_AUTH="ops:secret") as (_, address):
        stranger = httpx.get(f"{address}healthz"), httpx.get(address)
        signed_in = httpx.get(address, auth=("ops", "secret"))

    assert [answer.status_code for answer in stranger] == [200, 401]
    assert signed_in.status_code in (200, 503)
    assert "server" not in signed_in.headers


def test_a_public_host_without_auth_is_refused(redis_url: str) -> None:
    said = refused("--host", "0.0.0.0", "--redis-url", redis_url, TICKBIRD_AUTH="")

    assert "--auth" in said
    assert said.count("\n") == 0


def test_a_taken_port_is_said_plainly(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port), "--redis-url", redis_url)

    assert f"127.0.0.1:{port}" in said
    assert said.count("\n") == 0


def test_no_redis_and_a_wrong_url_are_said_plainly() -> None:
    gone = refused("--redis-url", "unix:///tmp/no-such-socket")
    wrong = refused("--redis-url", "http://example.net")

    assert "no Redis answers" in gone
    assert "redis://" in wrong
