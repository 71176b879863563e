"""Work that lasts: queued, followed, stopped and taken up again, whoever asked for it."""
