"""Files of weights: read, and made into what the engine reads."""
