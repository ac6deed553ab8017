"""What is wrong now: the trend, the rules over it, and the engine that keeps their states."""
