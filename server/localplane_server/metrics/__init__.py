"""The service's figures for monitoring systems: fed by events and samples, read from memory."""
