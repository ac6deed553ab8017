"""The child's side of processes.py: `python -m tickbird.child <socket fd>`."""

from __future__ import annotations

import importlib
import signal
import socket
import sys
import traceback
from functools import reduce
from typing import Any

import msgspec

from tickbird.errors import InvalidOption
from tickbird.processes import Answer, Call
from tickbird.storage.wire import encode_result
from tickbird.task import Task


def main(fd: int) -> None:
    """Answer calls until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    with socket.socket(fileno=fd) as connection, connection.makefile("rwb") as stream:
        while header := stream.read(4):
            call = msgspec.msgpack.decode(stream.read(int.from_bytes(header, "big")), type=Call)
            frame = msgspec.msgpack.encode(_answer(call))
            stream.write(len(frame).to_bytes(4, "big") + frame)
            stream.flush()


def _answer(call: Call) -> Answer:
    try:
        return Answer(result=encode_result(_run(call)))
    except InvalidOption as error:
        return Answer(kind="InvalidOption", message=f"the task's result cannot be stored: {error}")
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its job's failure
        return Answer(
            kind=type(error).__name__,
            message=str(error),
            trace="".join(traceback.format_exception(error)),
            delay=getattr(error, "delay", None),
        )


def _run(call: Call) -> Any:
    module = importlib.import_module(call.module)
    task = reduce(getattr, call.qualname.split("."), module)
    if not isinstance(task, Task):
        raise InvalidOption(f"{call.module}.{call.qualname} is not a task where it was defined")
    return task.function(**task.signature.arguments(call.data))


if __name__ == "__main__":
    main(int(sys.argv[1]))
