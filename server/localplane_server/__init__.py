"""The management plane for local AI backends: the server and its command line."""

__version__ = "0.1.0"
