"""Puts the generated OpenAPI document into the gateway's package when a wheel is built.

A checkout and an editable install read ``gateway/openapi.yaml`` where ``make gen`` writes it; a
copy beside the package would go stale. An installed wheel has no checkout, so it carries the
document.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DOCUMENT = "gateway/openapi.yaml"
PLACE_IN_WHEEL = "localplane_gateway/openapi.yaml"


class OpenApiDocumentHook(BuildHookInterface[Any]):
    """Includes the document in standard wheels. A missing document fails the build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the document to what the wheel takes from outside its packages."""
        if version == "standard":
            build_data["force_include"][DOCUMENT] = PLACE_IN_WHEEL
