"""Where the sources with names of their own are, as the environment says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from localplane_server.downloads.credentials import Credentials, bearer
from localplane_server.errors import SettingsError

_OF_HUGGING_FACE = ("HF_MIRROR", "HF", "HF_ENDPOINT")
"""Variables that name the hub, the strongest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """URLs, none with a slash at its end."""

    hugging_face: str = "https://huggingface.co"
    """The hub of `huggingface://`."""
    github_raw: str = "https://raw.githubusercontent.com"
    """The host of files behind `github:`."""
    ollama: str = "https://registry.ollama.ai"
    """The registry of `ollama://` where the name has none."""
    docker: str = "https://registry-1.docker.io"
    """The registry that calls itself docker.io."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Endpoints:
        """Read what the environment says of them."""
        for name in _OF_HUGGING_FACE:
            if value := environment.get(name, "").strip().rstrip("/"):
                return cls(hugging_face=value if "://" in value else f"https://{value}")
        return cls()

    def credentials(self, environment: Mapping[str, str]) -> Credentials:
        """Read the keys that the environment has for them.

        Raises:
            SettingsError: If one cannot be a key.
        """
        token = environment.get("HF_TOKEN", "").strip()
        if not token:
            return Credentials()
        if not (token.isascii() and token.isprintable()):
            raise SettingsError("cannot use HF_TOKEN: it has a character that is in no key")
        try:
            return Credentials().bound(self.hugging_face, bearer(token))
        except ValueError as error:
            raise SettingsError("cannot use Hugging Face's endpoint: it is no URL") from error
