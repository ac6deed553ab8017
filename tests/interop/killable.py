"""The app of a worker in a process of its own: `tickbird worker tests.interop.killable:app`."""

from __future__ import annotations

import os

import redis.asyncio as aioredis

from tests.interop.tasks import register
from tickbird import App

app = App("interop", prefix=os.environ["TICKBIRD_INTEROP_PREFIX"])
register(app, aioredis.Redis.from_url(os.environ["TICKBIRD_REDIS_URL"]), sticks=True)
