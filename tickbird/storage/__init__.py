"""Redis: the only place that knows its keys, its wire names and its scripts."""
