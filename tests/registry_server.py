"""A registry of containers: an OCI layout that a web server serves, with tokens if it is told to want them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from file_server import Asked, FileServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"

Layer = tuple[str, bytes, str]
"""Media type, content, and title if it has one."""


class RegistryServer:
    """Repositories on a file server."""

    def __init__(self, files: FileServer, *, token: str = "") -> None:
        self._files = files
        self._token = token
        self.host = files.url.removeprefix("http://")
        self.token_requests: list[Asked] = []
        """Those that asked for a token."""
        files.routes["/token"] = self._give_token

    def push(
        self, repository: str, tag: str, layers: Sequence[Layer], *, has_index: bool = False
    ) -> str:
        """Put an artifact there, and return the digest of its manifest."""
        described = [self._blob(repository, *layer) for layer in layers]
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(repository, "application/vnd.oci.empty.v1+json", b"{}", ""),
            "layers": described,
        }
        digest = self._manifest(repository, MANIFEST, manifest, *([] if has_index else [tag]))
        if has_index:
            listed = [
                {
                    "digest": "sha256:" + "0" * 64,
                    "platform": {"os": "windows", "architecture": "m"},
                },
                {"digest": digest, "mediaType": MANIFEST},
            ]
            self._manifest(repository, INDEX, {"schemaVersion": 2, "manifests": listed}, tag)
        return digest

    def blob_path(self, repository: str, content: bytes) -> str:
        """Return where a layer is."""
        return f"/v2/{repository}/blobs/sha256:{hashlib.sha256(content).hexdigest()}"

    def _blob(self, repository: str, kind: str, content: bytes, title: str) -> dict[str, Any]:
        served = self._files.put(self.blob_path(repository, content), content, etag='"blob"')
        served.key = f"Bearer {self._token}" if self._token else ""
        described = {
            "mediaType": kind,
            "digest": f"sha256:{served.sha256}",
            "size": len(content),
        }
        return described | ({"annotations": {TITLE: title}} if title else {})

    def _manifest(self, repository: str, kind: str, content: Mapping[str, Any], *tags: str) -> str:
        body = json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"

        def answer(asked: Asked) -> tuple[int, Mapping[str, str], bytes]:
            if self._token and asked.headers.get("authorization") != f"Bearer {self._token}":
                realm = f'realm="{self._files.url}/token",service="here",scope="repository:x:pull"'
                return 401, {"WWW-Authenticate": f"Bearer {realm}"}, b""
            return 200, {"Content-Type": kind, "Docker-Content-Digest": digest}, body

        for reference in (*tags, digest):
            self._files.routes[f"/v2/{repository}/manifests/{reference}"] = answer
        return digest

    def _give_token(self, asked: Asked) -> tuple[int, Mapping[str, str], bytes]:
        self.token_requests.append(asked)
        return 200, {}, json.dumps({"token": self._token}).encode()
