"""Child processes that run handlers which must be killable. One call at a time each, reused.

Parent and child talk over a socket pair: frames of four bytes of length and msgpack. A child
imports functions by the names the parent's own registry holds, never by names from Redis.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from tickbird import errors
from tickbird.errors import Steering, TickbirdError

_HEADER_BYTES = 4
MAX_FRAME_BYTES = 16 * 1024 * 1024


class Call(msgspec.Struct, array_like=True):
    """What the parent asks."""

    module: str
    qualname: str
    data: bytes


class Answer(msgspec.Struct, array_like=True):
    """What the child gives back: a result as JSON, or an error in parts."""

    result: bytes | None = None
    kind: str = ""
    message: str = ""
    trace: str = ""
    delay: float | str | None = None


class ChildError(Exception):
    """A handler failed in its child process; `remote_trace` is its traceback there."""

    def __init__(self, kind: str, message: str, trace: str) -> None:
        super().__init__(message or kind)
        self.kind = kind
        self.remote_trace = trace


class Child:
    """One child process and the socket to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls) -> Child:
        """Start an interpreter that waits for calls."""
        ours, theirs = socket.socketpair()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tickbird.child",
            str(theirs.fileno()),
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_FRAME_BYTES)
        return cls(process, reader, writer)

    async def ask(self, call: Call) -> Answer:
        """Have one call made. Raises ChildError when the child dies in it."""
        frame = msgspec.msgpack.encode(call)
        try:
            self._writer.write(len(frame).to_bytes(_HEADER_BYTES, "big") + frame)
            await self._writer.drain()
            size = int.from_bytes(await self._reader.readexactly(_HEADER_BYTES), "big")
            reply = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError) as error:
            code = await self._process.wait()
            raise ChildError(
                "ProcessDied", f"the job's process ended with code {code}", ""
            ) from error
        return msgspec.msgpack.decode(reply, type=Answer)

    def kill(self) -> None:
        """End it now."""
        self._writer.close()
        if self._process.returncode is None:
            self._process.kill()


class ProcessPool:
    """Idle children, reused; at most `size` are kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[Child] = []
        self._is_closed = False

    def prepare(self, function: Callable[..., Any], data: bytes) -> ProcessRun:
        """A call of an importable function with stored data; nothing runs yet."""
        return ProcessRun(self, Call(function.__module__, function.__qualname__, data))

    async def take(self) -> Child:
        """An idle child, or a new one."""
        return self._idle.pop() if self._idle else await Child.start()

    def give_back(self, child: Child) -> None:
        """Keep a child that is fit for the next call."""
        if self._is_closed or len(self._idle) >= self._size:
            child.kill()
        else:
            self._idle.append(child)

    def close(self) -> None:
        """End all idle children; those at work end when they are given back."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().kill()


class ProcessRun:
    """A handler in a child process. Stopped by killing it."""

    def __init__(self, pool: ProcessPool, call: Call) -> None:
        self._pool = pool
        self._call = call
        self._child: Child | None = None
        self._stopped_by: BaseException | None = None

    async def result(self) -> Any:
        """Run it in a child and give its result."""
        child = self._child = await self._pool.take()
        try:
            if self._stopped_by is not None:
                raise self._stopped_by
            answer = await child.ask(self._call)
        except BaseException:
            child.kill()
            if self._stopped_by is not None:
                raise self._stopped_by from None
            raise
        finally:
            self._child = None
        self._pool.give_back(child)
        if answer.result is not None:
            return msgspec.Raw(answer.result)
        raise _error_of(answer)

    def interrupt(self, error: BaseException) -> None:
        """Kill the child."""
        self._stopped_by = error
        if self._child is not None:
            self._child.kill()


def _error_of(answer: Answer) -> BaseException:
    """The error a child reports: our own kinds as they are, others as ChildError."""
    kind = getattr(errors, answer.kind, None)
    if isinstance(kind, type) and issubclass(kind, Steering | TickbirdError):
        if answer.delay is not None:
            return kind(answer.delay)
        return kind(answer.message)
    return ChildError(answer.kind, answer.message, answer.trace)
