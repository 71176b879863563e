"""The programs that serve models. Each speaks the backend protocol in a process of its own."""

import os

# Before grpc is imported: its own log would repeat, less clearly, what the programs say when they
# cannot listen.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
