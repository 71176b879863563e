"""Following what changes: one mechanism for backends, token metrics, and whatever else is watched."""
