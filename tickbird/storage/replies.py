"""What each error reply of Redis means for a call, in one table.

A script of ours is checked by the server before it starts, so that every reply of the kind
"not now" says: nothing was done, send it again.
"""

from __future__ import annotations

from enum import Enum

from redis.exceptions import RedisError

from tickbird.errors import InvalidOption, JobNotFound, LockLost, QueueFull, TickbirdError


class Meaning(Enum):
    """What to do about an error reply."""

    NOT_NOW = "send it again, with growing pauses"
    NOT_HERE = "the same, over a new connection: this server is not the master any more"
    FULL = "tell the caller: no memory"
    FORBIDDEN = "tell the caller: user, password or permissions"
    WRONG_SERVER = "tell the caller: a cluster, asked as if it were one server"
    UNKNOWN_SCRIPT = "send the script's text"


TABLE = {
    "LOADING": Meaning.NOT_NOW,  # reading its data after a start
    "BUSY": Meaning.NOT_NOW,  # somebody's script runs long
    "NOREPLICAS": Meaning.NOT_NOW,  # min-replicas-to-write is not met
    "MISCONF": Meaning.NOT_NOW,  # it cannot write to its disk
    "TRYAGAIN": Meaning.NOT_NOW,  # a slot is on the move
    "CLUSTERDOWN": Meaning.NOT_NOW,
    "UNBLOCKED": Meaning.NOT_NOW,  # a blocking call was ended by the server
    "READONLY": Meaning.NOT_HERE,  # it has become a replica
    "MASTERDOWN": Meaning.NOT_HERE,  # a replica without its master
    "OOM": Meaning.FULL,
    "NOAUTH": Meaning.FORBIDDEN,
    "WRONGPASS": Meaning.FORBIDDEN,
    "NOPERM": Meaning.FORBIDDEN,
    "MOVED": Meaning.WRONG_SERVER,
    "ASK": Meaning.WRONG_SERVER,
    "CROSSSLOT": Meaning.WRONG_SERVER,
    "NOSCRIPT": Meaning.UNKNOWN_SCRIPT,
}

# What our own scripts refuse, by the first word of the error.
_REFUSALS: dict[str, type[TickbirdError]] = {
    "NO_PARENT": JobNotFound,
    "OTHER_PARENT": InvalidOption,
    "LOCK_LOST": LockLost,
}


def code_of(error: RedisError) -> str:
    """The first word of an error reply; redis-py takes it off where it has a class for it."""
    return str(getattr(error, "status_code", None) or str(error).split(" ", 1)[0])


def refusal_of(error: RedisError) -> TickbirdError | None:
    """The error of ours that a reply stands for: a script's refusal, or a full server."""
    code, text = code_of(error), str(error)
    if code in _REFUSALS:
        return _REFUSALS[code](text.removeprefix(code).strip().partition(" script: ")[0])
    if TABLE.get(code) is Meaning.FULL or "used memory > 'maxmemory'" in text:
        return QueueFull(
            "Redis is at its memory limit (maxmemory): nothing was added; "
            "let the queues drain, remove finished jobs, or give Redis more memory"
        )
    return None
