"""The peer-to-peer network that this service is in, or that it is in none."""
