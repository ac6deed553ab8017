"""Is this server fit to hold jobs? Asked once by every process before it begins."""

from __future__ import annotations

import re

from redis.exceptions import RedisError

from tickbird.errors import UnsupportedServer
from tickbird.inspector import ServerInfo, server_info
from tickbird.storage.connection import Connection, shown_url, unavailable

MIN_VERSION = (7, 0)
"""Script flags came with Redis 7.0; every Valkey (7.2 and later) reports at least that."""


async def require_usable_server(connection: Connection) -> ServerInfo:
    """Look at the server and refuse one on which jobs would not be safe.

    Raises RedisUnavailable (no answer, wrong password) or UnsupportedServer (older than Redis
    7.0, or a policy that evicts keys), each in one sentence.
    """
    try:
        info = await connection.reader.info()
    except (RedisError, OSError) as error:
        raise unavailable(connection.url, error) from error
    where = shown_url(connection.url)
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < MIN_VERSION:
        raise UnsupportedServer(
            f"Redis at {where} is version {version}; Tickbird needs Redis 7.0 or Valkey 7.2 or later"
        )
    server = server_info(info)
    if server.memory_policy not in ("", "noeviction"):
        raise UnsupportedServer(
            f"Redis at {where} evicts keys when memory runs out (maxmemory-policy "
            f"{server.memory_policy}): it would delete jobs; set it to noeviction"
        )
    return server
