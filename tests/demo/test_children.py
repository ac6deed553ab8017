from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from demo_world import PATIENCE_S

from demo.children import Child, ChildDied, Children
from tickbird.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SLEEPER = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True)\nwhile True: signal.pause()"
)


async def test_a_child_that_dies_is_reported_with_its_last_words() -> None:
    async with running(python("the shop", "raise SystemExit('no tea left')")) as children:
        with pytest.raises(ChildDied, match=r"(?s)the shop ended with code 1.*no tea left"):
            await asyncio.wait_for(children.watch(), PATIENCE_S)


async def test_a_killed_worker_is_replaced_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker = python("worker-1", SLEEPER, shown_as="", restarts=True)
    async with running(worker) as children:
        killed = worker.pid
        watching = asyncio.create_task(children.watch())

        os.kill(killed, signal.SIGKILL)
        await said(capsys, f"worker-1 (process {killed}) was ended by SIGKILL")

        assert worker.pid != killed
        assert worker.exit_code is None
        watching.cancel()


async def test_a_worker_that_never_lives_is_given_up() -> None:
    async with running(python("worker-1", "raise SystemExit(3)", restarts=True)) as children:
        with pytest.raises(ChildDied, match="worker-1 ended with code 3"):
            await asyncio.wait_for(children.watch(), PATIENCE_S)


async def test_a_load_that_has_finished_is_no_death(capsys: pytest.CaptureFixture[str]) -> None:
    load = python("load", "print('done')", shown_as="load | ", may_finish=True)
    async with running(load) as children:
        watching = asyncio.create_task(children.watch())
        await load.wait()

        assert not watching.done()
        assert "load | done" in capsys.readouterr().out
        watching.cancel()


async def test_a_dead_embedded_server_is_reported() -> None:
    with EmbeddedServer() as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)

        with pytest.raises(ChildDied, match="embedded server was ended by SIGKILL"):
            await asyncio.wait_for(Children(os.environ, server).watch(), PATIENCE_S)


async def test_a_child_that_ignores_the_end_is_killed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.children._END_WITHIN_S", {1: 0.1, 2: 0.1})
    stubborn = python("stubborn", STUBBORN, shown_as="")
    async with running(stubborn) as children:
        await said(capsys, "ready")

        await children.end()

        assert stubborn.exit_code == -signal.SIGKILL


async def test_a_child_that_dies_before_it_answers_is_reported() -> None:
    shop = python("the shop", "raise SystemExit('port taken')")
    async with running(shop) as children:
        with pytest.raises(ChildDied, match="port taken"):
            await children.wait_until_answering(shop, "127.0.0.1", 1)


async def test_a_flood_without_line_ends_is_bounded() -> None:
    loud = python("loud", "import sys; sys.stdout.write('x' * 5_000_000)", may_finish=True)
    async with running(loud):
        await loud.wait()

        assert len(loud.last_words()) < 5_000


def python(
    name: str,
    code: str,
    *,
    shown_as: str | None = None,
    restarts: bool = False,
    may_finish: bool = False,
) -> Child:
    return Child(
        name,
        [sys.executable, "-c", code],
        shown_as=shown_as,
        restarts=restarts,
        may_finish=may_finish,
    )


@asynccontextmanager
async def running(*some: Child) -> AsyncIterator[Children]:
    children = Children(os.environ, None)
    await children.start(*some)
    try:
        yield children
    finally:
        await children.end()


async def said(capsys: pytest.CaptureFixture[str], words: str) -> None:
    """Wait until a child (or who watches it) has said so."""
    heard = ""
    async with asyncio.timeout(PATIENCE_S):
        while words not in heard:
            await asyncio.sleep(0.01)
            heard += capsys.readouterr().out
