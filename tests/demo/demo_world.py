"""What the demo's tests need around them: running receivers, free ports, patience."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

from demo.receivers import Mode, Received

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Receivers:
    """Running receivers: the warehouse over HTTP, the mailboxes over SMTP."""

    client: httpx.Client
    smtp_port: int

    def set_mode(self, mode: Mode) -> None:
        self.client.post("/mode", json={"mode": mode}).raise_for_status()

    def received(self) -> Received:
        return msgspec.json.decode(self.client.get("/received").content, type=Received)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def answers(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        client.get("/")
        return True
    return False


def wait_until(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Return as soon as it holds; fail when it does not in time."""
    end_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end_s:
            pytest.fail(f"{holds} did not hold within {within_s:.0f} s")
        time.sleep(0.02)
