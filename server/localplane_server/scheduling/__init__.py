"""Which backends are loaded: the life of each, its calls, its stop."""
