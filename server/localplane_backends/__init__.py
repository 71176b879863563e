"""The programs that serve models. Each speaks the backend protocol and runs in a process of its own."""
