"""Indexes of galleries: a real one where it is, and else one that is as large."""

from __future__ import annotations

import os
from pathlib import Path

REAL = "localai-gallery-index.yaml"
ENTRIES = 1032


def large_index() -> bytes:
    """Return LocalAI's index from the folder `LOCALPLANE_TEST_DATA`, or one of that size and form."""
    folder = os.environ.get("LOCALPLANE_TEST_DATA")
    if folder and (file := Path(folder) / REAL).is_file():
        return file.read_bytes()
    return synthetic_index()


def synthetic_index(entries: int = ENTRIES) -> bytes:
    """Return an index in which every fourth entry begins a family that the next three merge."""
    parts = ["---\n"]
    for number in range(entries):
        family = number // 4
        if number % 4 == 0:
            parts.append(
                f"- &family{family}\n"
                '  url: "github:mudler/LocalAI/gallery/chatml.yaml@master"\n'
                "  icon: https://host.example/icons/picture.png\n"
                "  license: apache-2.0\n"
                "  tags:\n    - llm\n    - gguf\n    - gpu\n    - cpu\n    - text-to-text\n"
            )
        else:
            parts.append(f"- !!merge <<: *family{family}\n")
        name = f"model-{family}-{number % 4}b"
        parts.append(
            f'  name: "{name}"\n'
            f"  urls:\n    - https://host.example/{name}\n    - https://host.example/{name}-GGUF\n"
            "  description: |\n"
            f"    {name} is a small model that answers questions about many things.\n"
            + "    It was tuned on conversations, and it reasons step by step before it answers.\n"
            * 5
            + "  overrides:\n"
            f"    parameters:\n      model: {name}-Q4_K_M.gguf\n"
            "  files:\n"
            f"    - filename: {name}-Q4_K_M.gguf\n"
            f"      sha256: {number:064x}\n"
            f"      uri: huggingface://owner/{name}-GGUF/{name}-Q4_K_M.gguf\n"
        )
    return "".join(parts).encode()
