"""The two clients."""

from __future__ import annotations

from localplane_client.backends import BackendMethods
from localplane_client.calling import AsyncCaller, BlockingCaller
from localplane_client.galleries import GalleryMethods
from localplane_client.inference import InferenceMethods
from localplane_client.jobs import JobMethods
from localplane_client.metrics import MetricsMethods
from localplane_client.models import ModelMethods
from localplane_client.peers import PeerMethods
from localplane_client.system import SystemMethods
from localplane_client.tokenizer import TokenizerMethods
from localplane_client.tokens import TokenMetricsMethods


class Methods(
    BackendMethods,
    GalleryMethods,
    InferenceMethods,
    JobMethods,
    MetricsMethods,
    ModelMethods,
    PeerMethods,
    SystemMethods,
    TokenizerMethods,
    TokenMetricsMethods,
):
    """All methods, by the names of their RPCs."""


class Client(BlockingCaller, Methods):
    """A client whose methods return what the service answers. Threads may share it.

    A context manager: leaving it ends the connection. Methods raise `LocalplaneError`.
    """


class AsyncClient(AsyncCaller, Methods):
    """A client whose methods are awaited. It belongs to the event loop that it was made in.

    An async context manager: leaving it ends the connection. Methods raise `LocalplaneError`.
    """
