"""How the demo's two web servers (the shop, the receivers) log and run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn
from litestar.logging import LoggingConfig

if TYPE_CHECKING:
    from litestar import Litestar

LOGGING = LoggingConfig(
    root={"level": "WARNING", "handlers": ["console"]},
    log_exceptions="always",
    disable_stack_trace={400, 404, 405, 413, 503},  # said in the answer; not our fault
)


def serve(app: Litestar, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; then running requests have one second."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
