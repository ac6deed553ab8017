"""Every write to a queue, in one place: allowed, done, recorded."""
