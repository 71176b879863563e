"""The programs that serve models. Each speaks the backend protocol in a process of its own."""
