"""What a request must be before anything looks at it: right size, readable, right host, signed in.

Wraps the whole application, so that a refused request never reaches the routing and a
stranger cannot tell existing paths from others.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from litestar.enums import ScopeType

from dashboard.auth.basic import CHALLENGE, signed_in
from dashboard.settings import Settings, is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litestar.types import ASGIApp, Receive, Scope, Send

MAX_URL_BYTES = 8_000
MAX_HEADER_BYTES = 16_000
MAX_HEADERS = 100
OPEN = ("/healthz", "/readyz", "/favicon.ico", "/static/")
"""Answered without signing in: probes, and the files an error page needs."""

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.%]+\]|[^:\[\]@/\\\s]+)(?::\d{1,5})?")


class Gate:
    """ASGI: refuses in a sentence, or passes on."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self._hosts = _hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not."""
        if scope["type"] == ScopeType.WEBSOCKET:
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await _answer(send, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = list(scope["headers"])
        target = (scope.get("raw_path") or b"") + b"?" + (scope.get("query_string") or b"")
        if len(target) > MAX_URL_BYTES:
            return 414, f"The address is longer than {MAX_URL_BYTES:,} bytes."
        if (
            len(headers) > MAX_HEADERS
            or sum(len(k) + len(v) for k, v in headers) > MAX_HEADER_BYTES
        ):
            return 431, "The request has too many headers."
        if not self._is_known_host(headers):
            return 400, (
                "The dashboard does not answer to this host name; --allowed-host NAME lets it."
            )
        if not _is_readable(target):
            return 400, "The address holds bytes that are no text."
        if not self._may_enter(scope, headers):
            return 401, "Sign in to see the dashboard."
        return None

    def _is_known_host(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b"host"]
        if len(given) != 1:
            return False
        match = _HOST.fullmatch(given[0].decode("latin-1"))
        if match is None:
            return False
        name = _canonical(match["name"])
        return self._hosts is None or name in self._hosts or is_loopback(name)

    def _may_enter(self, scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        credentials = self.settings.credentials
        root = scope.get("root_path", "").rstrip("/")
        path = scope["path"].removeprefix(root)
        if credentials is None or path in OPEN[:-1] or path.startswith(OPEN[-1]):
            return True
        given = next((v for k, v in headers if k == b"authorization"), b"")
        return signed_in(given.decode("latin-1"), credentials)


def _hosts(settings: Settings) -> frozenset[str] | None:
    """The names the dashboard answers to besides loopback; None: any."""
    if not settings.allowed_hosts and not is_loopback(settings.host):
        return None
    return frozenset(_canonical(name) for name in (settings.host, *settings.allowed_hosts))


def _canonical(name: str) -> str:
    """Lower case, no brackets, no trailing dot, addresses in their shortest form."""
    plain = name.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(plain))
    except ValueError:
        return plain


def _is_readable(target: bytes) -> bool:
    decoded = unquote_to_bytes(target)
    if _CONTROL.search(decoded):
        return False
    try:
        decoded.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = sentence.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 401:  # noqa: PLR2004 - unauthorized
        headers.append((b"www-authenticate", CHALLENGE.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
