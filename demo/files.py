"""Files that are there whole or not at all."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def written_at_once(path: Path) -> Iterator[Path]:
    """A draft to fill; it becomes `path` in one step when all went well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # two workers, two drafts
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
