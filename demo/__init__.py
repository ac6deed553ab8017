"""The demo: the shop of an online store, whose slow work is done by Tickbird. `make demo` runs it."""
