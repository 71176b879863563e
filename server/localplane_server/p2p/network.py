"""What is known of a peer-to-peer network."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

ONLINE = timedelta(seconds=40)
"""How long after it announced itself a node still counts as online: LocalAI's rule."""


class Role(enum.Enum):
    """What a node is for."""

    LLAMA_CPP_WORKER = "llama_cpp_worker"
    MLX_WORKER = "mlx_worker"
    FEDERATED = "federated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Another node."""

    name: str
    """Name."""
    id: str
    """Identifier, unique in the network."""
    tunnel_address: str
    """Address on this machine that leads to the node. Empty when there is no tunnel to it."""
    service_id: str
    """Service that the node offers."""
    last_seen: datetime
    """When it last announced itself, in UTC."""

    def is_online(self, now: datetime) -> bool:
        """Whether it has announced itself lately."""
        return now - self.last_seen < ONLINE


class Network(Protocol):
    """A network that this service may be in."""

    @property
    def is_on(self) -> bool:
        """Whether the service is in a network."""

    @property
    def token(self) -> str:
        """The token with which others join. Empty when there is no network."""

    def nodes(self, role: Role) -> Sequence[Node]:
        """Return the nodes for a role, by identifier."""


class NoNetwork:
    """The service is in no network: nobody can join and nobody is known."""

    is_on = False
    token = ""

    def nodes(self, role: Role) -> Sequence[Node]:
        """Return nobody."""
        return ()
