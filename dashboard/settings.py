"""Everything the dashboard can be told, read once at start."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field

from tickbird.errors import InvalidOption


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The one user of HTTP basic authentication."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Credentials:
        """Read "user:password"; neither may be empty, the user holds no colon."""
        user, _, password = text.partition(":")
        if not user or not password:
            raise InvalidOption(
                "--auth (or TICKBIRD_AUTH) must be user:password, neither of them empty"
            )
        return cls(user=user, password=password)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Frozen settings of one dashboard. Invalid combinations fail at construction."""

    redis_url: str | None = None
    """Which Redis; None: TICKBIRD_REDIS_URL, else redis://localhost:6379/0."""
    host: str = "127.0.0.1"
    """The address to bind. Anything but loopback needs `credentials`."""
    port: int = 8000
    """The port to bind, 1-65535; 0: any free one."""
    root_path: str = ""
    """The prefix a proxy in front has stripped, such as /ops/queue."""
    credentials: Credentials | None = None
    """Who may come in (HTTP basic); None: everybody who reaches the loopback address."""
    read_only: bool = False
    """True: every action is refused; the dashboard's own history is still written."""
    allowed_hosts: tuple[str, ...] = ()
    """Names (no port) browsers may use, besides loopback names and `host`. Empty with a
    public host: any, since credentials are required there."""
    environment: str = ""
    """A name shown in the header, such as production; empty: nothing."""
    sample_interval_s: float = 1.0
    """Seconds between two samples."""
    alert_window_s: float = 600.0
    """Seconds over which a rising depth is judged."""
    alert_failure_rate: float = 0.1
    """Share of failed attempts above which an alert fires."""
    alert_min_attempts: int = 20
    """Attempts in the window below which the failure rate is not judged."""

    @property
    def redis_address(self) -> str:
        """The URL that counts, as tickbird resolves it: given, environment, local server."""
        return self.redis_url or os.environ.get("TICKBIRD_REDIS_URL") or "redis://localhost:6379/0"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:  # noqa: PLR2004 - the range of TCP ports
            raise InvalidOption(f"--port must be between 0 and 65535, not {self.port}")
        if not is_loopback(self.host) and self.credentials is None:
            raise InvalidOption(
                f"--host {self.host} would show your jobs to the network: give --auth "
                "user:password (or TICKBIRD_AUTH), or bind 127.0.0.1"
            )
        if self.root_path and not self.root_path.startswith("/"):
            raise InvalidOption(f"--root-path must start with a slash, not {self.root_path!r}")


def is_loopback(host: str) -> bool:
    """Whether a bind address is reachable from this machine only."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
