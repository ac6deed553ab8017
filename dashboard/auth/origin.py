"""The guard of every write: a request from our own pages, not from a page elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dashboard.problems import Refused

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler


def same_origin(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Refuse what another site may have sent: browsers say where a request comes from.

    `Sec-Fetch-Site` must be same-origin; where a browser does not send it, `Origin` must be
    this host. A script says so by itself: `curl -H 'Origin: http://127.0.0.1:8000' ...`.
    """
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        if site == "same-origin":
            return
        raise Refused("This request comes from another site, so nothing was done.")
    origin = urlsplit(connection.headers.get("origin", ""))
    if origin.scheme in ("http", "https") and origin.netloc == connection.headers.get("host"):
        return
    raise Refused("This request does not say that it comes from this dashboard: nothing was done.")
