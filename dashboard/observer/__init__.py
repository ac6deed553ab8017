"""What the dashboard knows about the queues now: one sampler writes it, everything reads it."""
