"""Our Lua scripts: assembled from their includes, run by name."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

from redis.exceptions import NoScriptError, ResponseError

_INCLUDE = re.compile(r"^-- @include (\S+)\n", re.MULTILINE)


@cache
def source(name: str) -> str:
    """The whole text of a script: its first line, the libraries once each, then the rest."""
    text = _read(name)
    first, _, rest = text.partition("\n")
    included: list[str] = []
    parts: list[str] = []

    def include(library: str) -> None:
        if library in included:
            return
        included.append(library)
        body = _read(library)
        for needed in _INCLUDE.findall(body):
            include(needed)
        parts.append(_INCLUDE.sub("", body))

    for library in _INCLUDE.findall(rest):
        include(library)
    return "\n".join([first, *parts, _INCLUDE.sub("", rest)])


@cache
def sha(name: str) -> str:
    """The digest under which the server knows the script."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def _read(name: str) -> str:
    return files(__package__).joinpath(f"lua/{name}.lua").read_text(encoding="utf-8")


class Caller(Protocol):
    """What sends a command once: Connection.call."""

    async def __call__(self, *command: Any) -> Any:
        """Send the command and give its reply."""


async def run(call: Caller, name: str, meta_key: str, *args: Any) -> Any:
    """Run a script by its digest, or by its text where the server does not know it yet.

    The one declared key routes the call in a cluster; the script builds the others in the
    same slot from the prefix among its arguments.
    """
    try:
        return await call("EVALSHA", sha(name), 1, meta_key, *args)
    except ResponseError as error:
        if not isinstance(error, NoScriptError) and not str(error).startswith("NOSCRIPT"):
            raise
    return await call("EVAL", source(name), 1, meta_key, *args)
