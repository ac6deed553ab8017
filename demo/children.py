"""The demo's processes: started, watched, and ended in order; none outlives the demo."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process, create_subprocess_exec
from collections import deque
from enum import IntEnum
from time import monotonic
from typing import TYPE_CHECKING

from tickbird.embedded import EmbeddedServer, die_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TAIL_LINES = 15
_LONGEST_LINE = 2_000
_QUICK_DEATH_S = 3.0
_MOST_QUICK_DEATHS = 3
_POLL_S = 0.1
_READY_WITHIN_S = 60.0
_END_WITHIN_S = {1: 3.0, 2: 0.5}
"""Per rank. With the embedded server after them, all is over within five seconds."""


class Rank(IntEnum):
    """Who ends first: those who make work and do it, then those who receive it."""

    FIRST = 1
    SECOND = 2


class ChildDied(Exception):
    """A part of the demo is gone that it cannot do without."""


class Child:
    """One process of the demo. What it says is kept (its last lines) and, if wanted, shown.

    It is in a session of its own, so that Ctrl-C reaches only the demo, which ends it in order.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        rank: Rank = Rank.FIRST,
        shown_as: str | None = None,
        restarts: bool = False,
        may_finish: bool = False,
    ) -> None:
        self.name = name
        self.rank = rank
        self.restarts = restarts
        """Another one takes its place when it dies."""
        self.may_finish = may_finish
        """Ending with code 0 is no death."""
        self._command = command
        self._shown_as = shown_as
        """What stands before its lines on our output; None: they are not shown."""
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def pid(self) -> int:
        """Its process id, also after its end."""
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: by that signal); None while it runs."""
        return self._running.returncode

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start it, anew after an end."""
        self._tail.clear()
        self._process = await create_subprocess_exec(
            *self._command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
        self._reader = asyncio.create_task(self._read())

    async def wait(self) -> int:
        """Wait for its end and its last words; the exit code."""
        code = await self._running.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=1)
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def last_words(self) -> str:
        """Its last lines, indented."""
        return "\n".join(f"  {line}" for line in self._tail) or "  (it said nothing)"

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._process

    async def _read(self) -> None:
        stream = self._running.stdout
        if stream is None:
            raise RuntimeError(f"{self.name} has no output")
        rest = b""
        while chunk := await stream.read(65_536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._hear(line)
            rest = rest[-_LONGEST_LINE:]
        if rest:
            self._hear(rest)

    def _hear(self, line: bytes) -> None:
        text = line[:_LONGEST_LINE].decode(errors="replace").rstrip()
        self._tail.append(text)
        if self._shown_as is not None:
            print(f"{self._shown_as}{text}", flush=True)


class Children:
    """All processes of the demo, and the embedded server if it has one."""

    def __init__(self, environment: Mapping[str, str], server: EmbeddedServer | None) -> None:
        self._environment = environment
        self._server = server
        self._all: list[Child] = []

    async def start(self, *children: Child) -> None:
        """Start them at once."""
        for child in children:
            self._all.append(child)
            await child.start(self._environment)

    async def wait_until_answering(self, child: Child, host: str, port: int) -> None:
        """Wait until a child answers HTTP; ChildDied if it ends or takes over a minute."""
        end_s = monotonic() + _READY_WITHIN_S
        while not await _answers(host, port):
            if child.exit_code is not None:
                await child.wait()
                raise ChildDied(_obituary(child))
            if monotonic() > end_s:
                raise ChildDied(
                    f"{child.name} does not answer on port {port}; its last lines:\n"
                    f"{child.last_words()}"
                )
            await asyncio.sleep(_POLL_S)

    async def watch(self) -> None:
        """Watch them for ever: restart those that may be, raise ChildDied for the others."""
        try:
            async with asyncio.TaskGroup() as watchers:
                for child in self._all:
                    watchers.create_task(self._watch(child))
                if self._server is not None:
                    watchers.create_task(_watch_server(self._server))
                await asyncio.Event().wait()
        except* ChildDied as deaths:
            raise deaths.exceptions[0] from None

    async def end(self) -> None:
        """End all, rank by rank; what does not end by itself in time is killed."""
        for rank in Rank:
            group = [child for child in self._all if child.rank == rank]
            _send(group, signal.SIGTERM)
            ends = [asyncio.create_task(child.wait()) for child in group]
            if ends:
                await asyncio.wait(ends, timeout=_END_WITHIN_S[rank])
                _send(group, signal.SIGKILL)
                await asyncio.wait(ends)

    async def _watch(self, child: Child) -> None:
        quick_deaths = 0
        while True:
            begun_s = monotonic()
            code = await child.wait()
            if code == 0 and child.may_finish:
                return
            quick_deaths = quick_deaths + 1 if monotonic() - begun_s < _QUICK_DEATH_S else 0
            if not child.restarts or quick_deaths >= _MOST_QUICK_DEATHS:
                raise ChildDied(_obituary(child))
            gone = child.pid
            await child.start(self._environment)
            print(
                f"{child.name} (process {gone}) {_how(code)}; process {child.pid} takes its place, "
                "and what it had begun is run again within seconds",
                flush=True,
            )


def _send(children: Iterable[Child], number: signal.Signals) -> None:
    for child in children:
        child.send(number)


async def _answers(host: str, port: int) -> bool:
    """Whether a web server answers there, with whatever status."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"HEAD / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                return (await reader.readline()).startswith(b"HTTP/")
            finally:
                writer.close()
    except OSError:  # TimeoutError too
        return False


async def _watch_server(server: EmbeddedServer) -> None:
    while (code := server.exit_code()) is None:  # noqa: ASYNC110 - an exit code has no event
        await asyncio.sleep(_POLL_S)
    raise ChildDied(f"the embedded server {_how(code)}; its last lines:\n{server.log_tail()}")


def _obituary(child: Child) -> str:
    return f"{child.name} {_how(child.exit_code)}; its last lines:\n{child.last_words()}"


def _how(code: int | None) -> str:
    if code is None:
        return "runs"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
