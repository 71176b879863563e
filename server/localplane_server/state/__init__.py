"""Sole owner of `state.db` and of the lock on the data directory."""
