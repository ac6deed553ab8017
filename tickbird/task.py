"""The typed face of a job: a function users can call, or have called later."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar

import msgspec

from tickbird.errors import InvalidOption, UndecodableData
from tickbird.options import Dedup, JobOptions, parse_options
from tickbird.retry import Retry

if TYPE_CHECKING:
    from tickbird.handle import JobHandle

P = ParamSpec("P")
R = TypeVar("R")

Executor = Literal["async", "thread", "process"]
"""Where a task runs: on the worker's event loop, in one of its threads, or in a process of its own
kind, which can be killed when it runs too long."""

Send = Callable[[str, str, Any, Mapping[str, Any]], Awaitable["JobHandle[Any]"]]
"""Adds a job: queue, task name, data, options."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A function's parameters, as far as job data must fit them."""

    parameters: inspect.Signature
    types: Mapping[str, Any]

    @classmethod
    def of(cls, function: Callable[..., Any], name: str, skip: int = 0) -> Signature:
        """Read a function's signature; refuse one whose arguments cannot be named.

        The first `skip` parameters are not filled from data.
        """
        whole = inspect.signature(function)
        parameters = whole.replace(parameters=list(whole.parameters.values())[skip:])
        for parameter in parameters.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise InvalidOption(
                    f"task {name!r} takes {parameter}: job data names every argument, "
                    "so positional-only parameters and *args cannot be filled"
                )
        try:
            hints = typing.get_type_hints(function)
        except (NameError, TypeError):
            hints = {}  # a name only a type checker can see: the value goes in as it comes
        return cls(parameters, {n: hints[n] for n in parameters.parameters if n in hints})

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, as they are stored; a call that would fail later fails now."""
        bound = self.parameters.bind(*args, **kwargs)
        arguments = dict(bound.arguments)
        for parameter in self.parameters.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(parameter.name, {}))
        return arguments

    def arguments(self, data: bytes) -> dict[str, Any]:
        """Stored data as keyword arguments, converted to the annotated types.

        Raises UndecodableData when it is no JSON object or does not fit.
        """
        try:
            arguments = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UndecodableData(f"the job's data is not JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise UndecodableData(
                f"the job's data must be a JSON object of arguments, not {type(arguments).__name__}"
            )
        try:
            self.parameters.bind(**arguments)
            return {name: self._convert(name, value) for name, value in arguments.items()}
        except (TypeError, msgspec.ValidationError) as error:
            raise UndecodableData(f"the job's data does not fit the task: {error}") from error

    def _convert(self, name: str, value: Any) -> Any:
        if name not in self.types or not _is_checkable(self.types[name]):
            return value
        return msgspec.convert(value, self.types[name])


@functools.lru_cache(maxsize=4_096)
def _is_checkable(annotation: Any) -> bool:
    """Whether JSON values can be converted to this type; others are passed as they come."""
    try:
        return not isinstance(msgspec.inspect.type_info(annotation), msgspec.inspect.CustomType)
    except (TypeError, RuntimeError):
        return False


class Task(Generic[P, R]):
    """A registered function. Call it to run it here and now; `delay` has a worker run it.

    The job's name is the task's, its data the arguments by parameter name, so that clients in
    other languages can add it: `queue.add("send_email", {to: ..., subject: ...})`.
    """

    def __init__(
        self,
        function: Callable[P, Coroutine[Any, Any, R]] | Callable[P, R],
        *,
        name: str,
        queue: str,
        retry: Retry,
        options: JobOptions,
        send: Send,
        executor: Executor | None = None,
        wants_context: bool = False,
    ) -> None:
        is_async = inspect.iscoroutinefunction(function)
        self.executor: Executor = executor or ("async" if is_async else "thread")
        if (self.executor == "async") != is_async:
            raise InvalidOption(
                f"task {name!r} is {'' if is_async else 'not '}async: executor must be "
                f"{'async' if is_async else 'thread or process'}, not {self.executor!r}"
            )
        if self.executor == "process" and (wants_context or not _is_importable(function)):
            raise InvalidOption(
                f"task {name!r} runs in another process, which imports it: it must stand at the "
                "top of a module that is not the main program, and takes no Context"
            )
        self.wants_context = wants_context
        self.name = name
        self.queue = queue
        self.retry = retry
        self.function = function
        self.signature = Signature.of(function, name, skip=int(wants_context))
        self._options = options
        self._send = send
        functools.update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"Task({self.name!r}, queue={self.queue!r})"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself, without a queue."""
        return self.function(*args, **kwargs)

    async def delay(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Add a job that will call the function with these arguments."""
        data = self.signature.bind(args, kwargs)
        return await self._send(self.queue, self.name, data, self._given_options())

    def options(self, **options: Any) -> Task[P, R]:
        """The same task with other options: JobOptions, and `queue`, `retry`, `idempotency_key`.

        An `idempotency_key` makes a repeat within `idempotency_ttl` (24 h) find the first job,
        also after it has finished.
        """
        changed = dict(options)
        if "idempotency_key" in changed:
            ttl = changed.pop("idempotency_ttl", "24h")
            changed["dedup"] = Dedup(changed.pop("idempotency_key"), ttl=ttl)
        queue = changed.pop("queue", self.queue)
        retry = as_retry(changed.pop("retry", self.retry))
        parse_options(changed)  # names what is wrong before anything is built
        task: Task[P, R] = Task(
            self.function,
            name=self.name,
            queue=queue,
            retry=retry,
            options=replace(self._options, **changed),
            send=self._send,
            executor=self.executor,
            wants_context=self.wants_context,
        )
        return task

    def schedule_options(self) -> dict[str, Any]:
        """The options for jobs that a schedule adds."""
        given = self._given_options()
        return {
            name: value
            for name, value in given.items()
            if name not in ("delay", "dedup", "job_id", "timestamp_ms")
        }

    def _given_options(self) -> dict[str, Any]:
        given = {name: getattr(self._options, name) for name in JobOptions.__slots__}
        if given["attempts"] is None:
            given["attempts"] = self.retry.attempts
        if given["backoff"] is None and self.retry.attempts > 1:
            given["backoff"] = self.retry.stored_backoff
        return given


def _is_importable(function: Callable[..., Any]) -> bool:
    return function.__module__ != "__main__" and "<locals>" not in function.__qualname__


def as_retry(retry: Retry | int) -> Retry:
    """A Retry, where a number stands for that many attempts."""
    return retry if isinstance(retry, Retry) else Retry(retry)
