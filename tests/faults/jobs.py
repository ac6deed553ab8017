"""The app of the killing tests, run by real worker processes. Each start and end of a job is one
line in a ledger that survives the process."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tickbird import App, Backoff, Keep, Retry

app = App("faults", prefix=os.environ.get("FAULTS_PREFIX", "faults"), keep_completed=Keep())
LEDGER = Path(os.environ.get("FAULTS_LEDGER", "/dev/null"))


def note(what: str, key: str) -> None:
    """One line, one write: whole or not at all, whatever kills us."""
    line = f"{what} {key} {os.getpid()}\n".encode()
    handle = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line)
    os.close(handle)


@app.task(queue="work", retry=Retry(3, Backoff("fixed", "10ms")))
async def work(key: str, *, ms: int = 20) -> str:
    note("start", key)
    await asyncio.sleep(ms / 1_000)
    note("end", key)
    return key


@app.task(queue="work")
async def block(key: str, *, ms: int) -> None:
    """Blocks the whole event loop, as careless code does."""
    note("start", key)
    time.sleep(ms / 1_000)  # noqa: ASYNC251 - the fault under test
    note("end", key)


@app.task(queue="work")
def in_thread(key: str, *, ms: int) -> None:
    note("start", key)
    time.sleep(ms / 1_000)
    note("end", key)


@app.task(queue="work")
async def poison(key: str) -> None:
    note("start", key)
    os._exit(9)
