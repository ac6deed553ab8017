from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from demo_world import PATIENCE_S, ROOT, wait_until

from demo.__main__ import Ports

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="looks for processes in /proc, which only Linux has"
)

ORDER = {"email": "someone@mail.example", "product": "honey"}
EVERYBODY = 8
"""The demo, its server, the receivers, two workers, the shop, the dashboard, the load."""
END_WITHIN_S = 25.0
"""Five seconds are promised; a loaded machine may need more, and the point is that it ends."""


def test_the_demo_works_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--scenario", "steady", "--port", "0") as demo:
        page, shop = read_addresses(demo)

        assert httpx.get(page, timeout=PATIENCE_S).status_code == 200
        status = httpx.post(f"{shop}/orders", json=ORDER, timeout=PATIENCE_S).headers["Location"]
        wait_until(lambda: httpx.get(f"{shop}{status}").json()["progress"] == "done")
        wait_until(lambda: len(processes_of(tmp_path)) == EVERYBODY)

        demo.send_signal(signal.SIGTERM)

        assert demo.wait(END_WITHIN_S) == 0
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_does_not_end_the_demo(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--scenario", "steady", "--port", "0") as demo:
        _, shop = read_addresses(demo)
        for pid in processes_of(tmp_path):
            if b"demo.tasks:app" in command_of(pid):
                os.kill(pid, signal.SIGKILL)

        status = httpx.post(f"{shop}/orders", json=ORDER, timeout=PATIENCE_S).headers["Location"]
        wait_until(lambda: httpx.get(f"{shop}{status}").json()["progress"] == "done")

        demo.send_signal(signal.SIGINT)
        assert demo.wait(END_WITHIN_S) == 0
    assert processes_of(tmp_path) == []


def test_a_dead_shop_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--scenario", "steady", "--port", "0") as demo:
        read_addresses(demo)
        (shop,) = [pid for pid in processes_of(tmp_path) if b"demo.shop" in command_of(pid)]

        os.kill(shop, signal.SIGKILL)

        assert demo.stdout is not None
        assert any("shop was ended by SIGKILL" in line for line in demo.stdout)
        assert demo.wait(END_WITHIN_S) == 1
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--scenario", "steady", "--port", "0") as demo:
        read_addresses(demo)

        demo.kill()

        wait_until(lambda: processes_of(tmp_path) == [])


def test_without_a_server_under_the_url_it_says_so_in_a_sentence(tmp_path: Path) -> None:
    url = "redis://127.0.0.1:1"
    with running_demo(tmp_path, "--redis-url", url) as demo:
        output, _ = demo.communicate(timeout=PATIENCE_S)

    assert demo.returncode == 2
    assert "127.0.0.1:1" in output
    assert "Traceback" not in output


def test_a_taken_port_is_passed_over_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]

        ports = Ports.choose(wanted)

    assert wanted < ports.dashboard < ports.shop
    assert f"port {wanted} is taken" in capsys.readouterr().out


def test_a_free_port_is_taken_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        wanted = probe.getsockname()[1]

    assert Ports.choose(wanted).dashboard == wanted
    assert capsys.readouterr().out == ""


@contextmanager
def running_demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m demo` with its temporary files in `folder`."""
    environment = {
        key: text for key, text in os.environ.items() if not key.endswith(("REDIS_URL", "_AUTH"))
    }
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env={**environment, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with demo:
        try:
            yield demo
        finally:
            if demo.poll() is None:
                demo.kill()  # its children end with it


def read_addresses(demo: subprocess.Popen[str]) -> tuple[str, str]:
    """The dashboard's address, on a line of its own, and the shop's, in the sentence after it."""
    assert demo.stdout is not None
    heard: list[str] = []
    for line in demo.stdout:
        heard.append(line)
        if line.startswith("The shop takes orders at "):
            page = next(text.strip() for text in heard if text.startswith("http://127.0.0.1:"))
            return page, line.split()[-1].removesuffix("/orders.")
    pytest.fail(f"the demo ended before it gave its address:\n{''.join(heard)}")


def processes_of(demo_folder: Path) -> list[int]:
    """Every process that has the demo's folder in its environment or its command line.

    The server overwrites its environment, but its socket's path stands in its title.
    """
    needle = str(demo_folder).encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or somebody else's
            said = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            if needle in said:
                found.append(int(folder.name))
    return found


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
