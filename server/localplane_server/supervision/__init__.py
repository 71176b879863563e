"""Backend processes: started, watched, measured and ended."""
