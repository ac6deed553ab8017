"""Tasks that run in child processes: they must stand at the top of an importable module."""

from __future__ import annotations

import os
import time

from tickbird import App, Backoff, DoNotRetry, Retry

app = App("children")


@app.task(executor="process", retry=1)
def pid_of(n: int) -> list[int]:
    return [n, os.getpid()]


@app.task(executor="process", retry=1)
def fail(how: str) -> None:
    if how == "refuse":
        raise DoNotRetry("not in this process")
    if how == "die":
        os._exit(7)
    raise ValueError("broke in the child")


@app.task(executor="process", retry=Retry(1, Backoff("fixed", 0)), timeout="300ms")
def hang() -> None:
    time.sleep(60)
