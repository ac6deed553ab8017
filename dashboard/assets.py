"""Where templates and static files are, and the two functions templates link with."""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from hashlib import blake2b, sha384
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from jinja2 import pass_context

from dashboard.problems import NotThere

if TYPE_CHECKING:
    from jinja2.runtime import Context
    from litestar import Request

PACKAGE = Path(__file__).resolve().parent
HOME = PACKAGE if (PACKAGE / "templates").is_dir() else PACKAGE.parent  # wheel, else checkout
TEMPLATES, STATIC = HOME / "templates", HOME / "static"

_PLAIN_SEGMENT = re.compile(r"(?!~)(?!\.{1,2}$)[^\x00-\x20\x7f-\xa0/\\\ud800-\udfff%?#]{1,256}")
_ENCODED = "~"


def to_segment(text: str) -> str:
    """A queue's label or a job's id as one path segment that survives every server and proxy.

    Most stay readable (percent-encoded UTF-8). What a path cannot carry (slashes, controls,
    bytes that are no UTF-8, dots alone, nothing) becomes `~` and base64url of its bytes.
    """
    if _PLAIN_SEGMENT.fullmatch(text):
        return quote(text, safe=":@!$&'()*+,;=-._")
    raw = text.encode("utf-8", errors="surrogateescape")
    return _ENCODED + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def from_segment(segment: str) -> str:
    """The text a (percent-decoded) path segment stands for; NotThere when it stands for none."""
    if not segment.startswith(_ENCODED):
        return segment
    encoded = segment.removeprefix(_ENCODED)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise NotThere("That address names nothing.") from None
    return raw.decode("utf-8", errors="surrogateescape")


def path_of(request: Request[Any, Any, Any], name: str, **segments: str) -> str:
    """The path of a route by its name, below the mount point. Segments are raw texts."""
    root = request.scope.get("root_path", "").rstrip("/")
    safe = {key: to_segment(value) for key, value in segments.items()}
    return root + request.app.route_reverse(name, **safe)


@pass_context
def url(context: Context, name: str, query: dict[str, Any] | None = None, **segments: str) -> str:
    """In templates: the address of a route; parameters that are None or "" are left out."""
    kept = {key: value for key, value in (query or {}).items() if value not in (None, "", 0)}
    path = path_of(context["request"], name, **segments)
    return f"{path}?{urlencode(kept, errors='surrogateescape')}" if kept else path


@pass_context
def static(context: Context, path: str) -> str:
    """In templates: the address of a static file; it changes with the file's content."""
    root = context["request"].scope.get("root_path", "").rstrip("/")
    return f"{root}/static/{path}?v={_digest(path, _changed_ns(path))}"


def integrity(path: str) -> str:
    """In templates: what `integrity=` of a script says about a static file."""
    return _integrity(path, _changed_ns(path))


def _changed_ns(path: str) -> int:
    return (STATIC / path).stat().st_mtime_ns


@lru_cache(maxsize=64)
def _digest(path: str, _version: int) -> str:
    return blake2b((STATIC / path).read_bytes(), digest_size=6).hexdigest()


@lru_cache(maxsize=64)
def _integrity(path: str, _version: int) -> str:
    digest = sha384((STATIC / path).read_bytes()).digest()
    return f"sha384-{base64.b64encode(digest).decode()}"
