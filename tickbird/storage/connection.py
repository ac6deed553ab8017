"""Connections to Redis: their deadlines, and what an error on one means.

Three kinds, never mixed. `call` sends one command and never repeats it: whether a
write may be repeated is decided by its lane (lanes.py). `reader` is an ordinary client with
retries, for commands that are safe to repeat. `blocking_client` waits for a wake-up on a
connection of its own.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from tickbird.errors import InvalidUrl, RedisUnavailable, TickbirdError
from tickbird.storage.replies import TABLE, Meaning, code_of, refusal_of

DEFAULT_URL = "redis://localhost:6379/0"
_SOCKET_TIMEOUT_S = 5.0


class NotSent(Exception):
    """No connection: the command cannot have had an effect. `__cause__` says why."""


class ReplyLost(Exception):
    """The command was sent and no reply came: it may have had its effect."""


class NotNow(Exception):
    """The server refused for a passing reason; the command had no effect."""


def redis_url(given: str | None) -> str:
    """The URL to use: the one given, else TICKBIRD_REDIS_URL, else the local server."""
    return given or os.environ.get("TICKBIRD_REDIS_URL") or DEFAULT_URL


def shown_url(url: str) -> str:
    """The URL without its password, for messages."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)


def _pool_options(url: str) -> dict[str, Any]:
    try:
        options = dict(aioredis.connection.parse_url(url))
        parts = urlsplit(url)
        database = parts.path.strip("/")
        if parts.scheme != "unix" and database and not database.isdecimal():
            raise ValueError(f"the database must be a number, not {database!r}")
    except ValueError as error:
        raise InvalidUrl(
            f"cannot read the Redis URL {shown_url(url)!r}: {error}. "
            "It looks like redis://[user:password@]host[:port][/database], rediss://... or unix:///path"
        ) from error
    return options


class Connection:
    """What several queues of one app share: a URL and the connections to it."""

    def __init__(self, url: str | None = None, *, max_connections: int = 64) -> None:
        self.url = redis_url(url)
        self._options = _pool_options(self.url)
        self._max_connections = max_connections
        self._pool: Any = None
        self._reader: aioredis.Redis | None = None

    def __repr__(self) -> str:
        return f"Connection({shown_url(self.url)!r})"

    async def call(self, *command: Any) -> Any:
        """Send one command once and give its reply.

        Raises NotSent, ReplyLost or NotNow where a caller may decide to send again; a
        TickbirdError or ResponseError where the server has decided. Being cancelled drops
        the connection, so that no later command can get this one's reply.
        """
        if self._pool is None:
            self._pool = aioredis.BlockingConnectionPool(
                max_connections=self._max_connections,
                timeout=_SOCKET_TIMEOUT_S,
                retry=AsyncRetry(NoBackoff(), 0),
                **self._options,
            )
        pool = self._pool
        try:
            connection = await pool.get_connection()
        except (RedisError, OSError) as error:
            raise _connect_failure(self.url, error) from error
        settled = False
        try:
            await connection.send_command(*command)
            reply = await connection.read_response()
        except (ResponseError, BusyLoadingError, AuthenticationError) as error:
            settled = TABLE.get(code_of(error)) is not Meaning.NOT_HERE
            meaning = _meaning_of(self.url, error)
            if meaning is error:
                raise
            raise meaning from error
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise ReplyLost(str(error)) from error
        else:
            settled = True
            return reply
        finally:
            if not settled:
                await connection.disconnect(nowait=True)
            await pool.release(connection)

    @property
    def reader(self) -> Any:  # redis-py types every reply as a union of all decodings
        """A client for reads and for writes that are the same when done twice; it retries."""
        if self._reader is None:
            self._reader = aioredis.Redis(
                connection_pool=aioredis.BlockingConnectionPool(
                    max_connections=16,
                    timeout=_SOCKET_TIMEOUT_S,
                    # No health checks: without a password, the one redis-py 8.1 makes while it
                    # connects begins to connect again, without end. Retries heal stale ones.
                    retry=AsyncRetry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3),
                    **self._options,
                )
            )
        return self._reader

    def blocking_client(self, name: str, block_s: float) -> Any:
        """A client of one connection for calls that wait on the server up to `block_s`.

        A half-open connection ends two seconds after the server should have answered.
        `name` is told to the server (CLIENT SETNAME).
        """
        return aioredis.Redis(
            connection_pool=aioredis.ConnectionPool(
                max_connections=1,
                retry=AsyncRetry(NoBackoff(), 0),
                client_name=name,
                **{**self._options, "socket_timeout": block_s + 2},
            )
        )

    def thread_client(self, *, timeout_s: float) -> Any:
        """A blocking client for a thread that shares nothing with the event loop."""
        parse_url: Any = redis.connection.parse_url
        options = dict(parse_url(self.url))
        return redis.Redis(
            connection_pool=redis.ConnectionPool(
                max_connections=2,
                retry=redis.retry.Retry(NoBackoff(), 0),
                **{**options, "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s},
            )
        )

    async def aclose(self) -> None:
        """Close all connections; the object may be used again after."""
        pool, self._pool = self._pool, None
        reader, self._reader = self._reader, None
        if pool is not None:
            await pool.disconnect()
        if reader is not None:
            await reader.aclose()
            await reader.connection_pool.disconnect()


def _connect_failure(url: str, error: Exception) -> Exception:
    """What a failed connection means: credentials never heal by waiting, the rest may."""
    if _refuses_credentials(error):
        return unavailable(url, error)
    not_sent = NotSent(str(error))
    not_sent.__cause__ = error
    return not_sent


def _refuses_credentials(error: BaseException | None) -> bool:
    """Whether user or password is what is wrong; redis-py hides it under a ConnectionError."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, AuthenticationError | AuthorizationError):
            return True
        if any(word in str(error) for word in ("WRONGPASS", "NOAUTH", "already authenticated")):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _meaning_of(url: str, error: RedisError) -> Exception:
    """What an error reply says to the caller of `call`."""
    refusal = refusal_of(error)
    if refusal is not None:
        return refusal
    meaning = TABLE.get(code_of(error))
    if meaning in (Meaning.NOT_NOW, Meaning.NOT_HERE):
        return NotNow(f"{code_of(error)} {error}")
    if meaning in (Meaning.FORBIDDEN, Meaning.WRONG_SERVER):
        return unavailable(url, error)
    return error


def unavailable(url: str, error: BaseException) -> TickbirdError:
    """One sentence for a person: the server cannot be used, and why."""
    if isinstance(error, TickbirdError):
        return error
    where = shown_url(url)
    if _refuses_credentials(error):
        return RedisUnavailable(
            f"Redis at {where} refuses the user or password ({error}); "
            "put the right ones into the URL: redis://user:password@host:6379/0"
        )
    if isinstance(error, NoPermissionError):
        return RedisUnavailable(f"Redis at {where} does not let this user run a command: {error}")
    if isinstance(error, RedisError) and TABLE.get(code_of(error)) is Meaning.WRONG_SERVER:
        return RedisUnavailable(
            f"Redis at {where} is part of a cluster and sends us elsewhere ({error}); "
            "a cluster cannot be used by the address of one server"
        )
    return RedisUnavailable(
        f"no Redis answers at {where} ({error}); start one, or give another address by "
        "--redis-url or TICKBIRD_REDIS_URL"
    )
