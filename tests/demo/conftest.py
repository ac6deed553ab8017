"""Real receivers and a real Redis for the demo's tests."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from demo_world import PATIENCE_S, ROOT, Receivers, answers, free_ports, wait_until

from demo.receivers import Mode
from tickbird.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def receivers_process() -> Iterator[Receivers]:
    port, smtp_port = free_ports(2)
    command = [sys.executable, "-m", "demo.receivers", "--port", str(port)]
    process = subprocess.Popen([*command, "--smtp-port", str(smtp_port)], cwd=ROOT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            wait_until(lambda: answers(client))
            yield Receivers(client, smtp_port)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture
def receivers(receivers_process: Receivers) -> Iterator[Receivers]:
    yield receivers_process
    receivers_process.set_mode(Mode.OK)


@pytest.fixture
def places(receivers: Receivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the tasks' files; their webhooks and mails go to the receivers."""
    monkeypatch.setenv("SHOP_SMTP", f"127.0.0.1:{receivers.smtp_port}")
    monkeypatch.setenv("SHOP_WEBHOOK_URL", str(receivers.client.base_url.join("/webhooks")))
    monkeypatch.setenv("SHOP_FILES", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def shop_redis_url() -> Iterator[str]:
    with EmbeddedServer() as server:
        yield server.url
