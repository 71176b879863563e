"""What the gateway can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Settings of one gateway."""

    allowed_hosts: frozenset[str] = frozenset()
    """Names, without a port, that a Host header may have besides loopback's and own addresses."""
    allowed_origins: frozenset[str] = frozenset()
    """Origins of pages, such as `https://app.example`, that may use the API besides its own."""
    public_url: str | None = None
    """URL under which clients reach the gateway. Its host and its origin are allowed."""
    max_body_bytes: int = 32 * 1024 * 1024
    """Largest body of a request."""
    public_methods: frozenset[str] = frozenset()
    """Full names, `/package.Service/Method`, of methods that need no key although they are not declared so."""
    docs_enabled: bool = True
    """Whether `/docs` and `/openapi.json` are served."""
