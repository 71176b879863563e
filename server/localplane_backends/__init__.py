"""The programs that serve models. Each speaks the backend protocol in a process of its own."""

import os

# Both are read when gRPC is imported. Its own log would repeat, less clearly, what the programs say when
# they cannot listen; its newer event engine costs a seventh more for each call.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
