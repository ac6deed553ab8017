"""HTTP basic authentication: one user, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dashboard.settings import Credentials

CHALLENGE = 'Basic realm="Tickbird", charset="UTF-8"'
_MAX_HEADER = 2_048


def signed_in(authorization: str | None, expected: Credentials) -> bool:
    """Whether an Authorization header carries the expected user and password."""
    scheme, _, encoded = (authorization or "")[:_MAX_HEADER].partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, f"{expected.user}:{expected.password}".encode())
