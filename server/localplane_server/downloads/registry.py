"""Files that registries of containers have as layers: OCI artifacts, and models as Ollama publishes them."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from localplane_server.downloads.addresses import AddressPolicy, default_port
from localplane_server.downloads.credentials import Credentials, bearer
from localplane_server.downloads.patience import TransferError
from localplane_server.downloads.sources import RegistrySource
from localplane_server.downloads.transfer import Located
from localplane_server.downloads.web import WebClient, told_size
from localplane_server.errors import DownloadFailedError, SourceRefusedError

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_TITLES = (
    "org.opencontainers.image.title",
    *("org.cncf.model.filepath", "org.cnai.model.filepath"),
)
"""Annotations with the path of the file that a layer is: the usual one, and those of ModelPack."""
_WEIGHTS = re.compile(
    r"application/(?:vnd\.ollama\.image\.model"
    r"|vnd\.docker\.ai\.gguf(?:\.v\d+)?"
    r"|vnd\.(?:cncf|cnai)\.model\.weight\.v\d+\.(?:raw|gguf)"
    r"|(?:x-|vnd\.)?gguf)"
)
"""Media types of layers that are the weights of a model, as one file: of Ollama, Docker and ModelPack, and of GGUF."""
_MOST_NAMES = 20
_LONGEST_CHALLENGE = 4096
_LARGEST_MANIFEST = 4 * 1024 * 1024
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_PARAMETER = re.compile(r'(?<![a-z_])([a-z_]++)\s*+=\s*+(?:"([^"]*)"|([^\s,"]+))', re.IGNORECASE)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_ENDINGS = (
    ("tar+gzip", ".tar.gz"),
    ("tar.gzip", ".tar.gz"),
    ("tar+zstd", ".tar.zst"),
    ("tar", ".tar"),
)
_UNAUTHORIZED = 401


class Registry:
    """Finds the layer that a source means."""

    def __init__(self, web: WebClient, policy: AddressPolicy, credentials: Credentials) -> None:
        self._web = web
        self._policy = policy
        self._credentials = credentials

    async def locate(self, source: RegistrySource) -> Located:
        """Return where the layer is, with its digest and what to send for it.

        Raises:
            TransferError: If the registry does not answer as one does.
            SourceRefusedError: If it leads where it must not.
            DownloadFailedError: If there is no such layer.
        """
        base = f"{self._origin(source.registry)}/v2/{source.repository}"
        manifest, credentials = await self._manifest(source, base, source.reference, None)
        if "manifests" in manifest:
            digest = _of_this_machine(manifest["manifests"], source)
            manifest, credentials = await self._manifest(source, base, digest, credentials)
        layer = _layer(manifest.get("layers"), source)
        digest = layer["digest"]
        found = _DIGEST.fullmatch(digest)
        size = told_size(layer.get("size"))
        if found is None or size is None:
            raise TransferError("its manifest has a layer without SHA-256 or size", is_lasting=True)
        return Located(
            url=f"{base}/blobs/{digest}",
            file_name=_file_name(layer, source),
            credentials=credentials,
            size_bytes=size,
            sha256=found[1],
        )

    def _origin(self, registry: str) -> str:
        """Return a registry's URL: a registry of this very machine seldom has a certificate."""
        parts = urlsplit(registry)
        host = parts.hostname or ""
        is_here = host == "localhost" or host.startswith("127.") or host == "::1"
        port = parts.port or default_port("http")
        if is_here and parts.scheme == "https" and self._policy.names(host, port):
            return parts._replace(scheme="http").geturl()
        return registry

    async def _manifest(
        self, source: RegistrySource, base: str, reference: str, credentials: Credentials | None
    ) -> tuple[Mapping[str, Any], Credentials | None]:
        """Get a manifest or an index, with a token if the registry wants one."""
        url = f"{base}/manifests/{reference}"
        accept = {"Accept": ", ".join((*_MANIFESTS, *_INDEXES))}
        expected = frozenset({_UNAUTHORIZED}) if credentials is None else frozenset()
        async with self._web.request(
            url, accept, credentials=credentials, expected=expected
        ) as answer:
            challenge = answer.headers.get("www-authenticate", "")
            is_refused = answer.status == _UNAUTHORIZED
            content = await answer.read(_LARGEST_MANIFEST)
        if is_refused:
            token = await self._token(source, challenge)
            credentials = self._credentials.bound(base, bearer(token))
            return await self._manifest(source, base, reference, credentials)
        wanted = _DIGEST.fullmatch(reference)
        if wanted and hashlib.sha256(content).hexdigest() != wanted[1]:
            raise TransferError("its manifest does not have the digest it is named by")
        return _object(content, "manifest"), credentials

    async def _token(self, source: RegistrySource, challenge: str) -> str:
        """Get a token from where the registry sends for one.

        Whatever key there is for the registry stays with it: the place that gives tokens gets the
        key that was given for that place, if any.
        """
        kind, _, rest = challenge[:_LONGEST_CHALLENGE].partition(" ")
        said = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
        if kind.lower() != "bearer" or "realm" not in said:
            cause = "the registry wants a key"
            raise TransferError(cause, is_lasting=True, status=_UNAUTHORIZED)
        scope = said.get("scope") or f"repository:{source.repository}:pull"
        query = {"service": said.get("service", ""), "scope": scope}
        words = "&".join(
            f"{name}={quote(value, safe=':/')}" for name, value in query.items() if value
        )
        joint = "&" if "?" in said["realm"] else "?"
        async with self._web.request(f"{said['realm']}{joint}{words}") as answer:
            told = _object(await answer.read(_LARGEST_MANIFEST), "token")
        token = told.get("token") or told.get("access_token")
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
            raise TransferError("the registry gives no token", is_lasting=True)
        return token


def _object(content: bytes, what: str) -> Mapping[str, Any]:
    try:
        read = json.loads(content)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise TransferError(f"the registry's {what} cannot be read", is_lasting=True)
    return read


def _of_this_machine(manifests: Any, source: RegistrySource) -> str:
    """Choose from an index: what is for this kind of machine, or else the first that is for none."""
    if not isinstance(manifests, list):
        raise TransferError("the registry's index cannot be read", is_lasting=True)
    listed = [one for one in manifests if isinstance(one, dict) and _digest(one)]

    def kind(one: Mapping[str, Any]) -> tuple[Any, Any]:
        of = one.get("platform")
        return (of.get("os"), of.get("architecture")) if isinstance(of, dict) else (None, None)

    machine = _MACHINES.get(platform.machine(), platform.machine())
    for wanted in (("linux", machine), (None, None)):
        for one in listed:
            if kind(one) == wanted:
                return _digest(one)
    raise DownloadFailedError(_name(source), "it has nothing for this kind of machine")


def _digest(one: Mapping[str, Any]) -> str:
    digest = one.get("digest")
    return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else ""


def _layer(layers: Any, source: RegistrySource) -> Mapping[str, Any]:
    """Choose the layer that is meant."""
    if not isinstance(layers, list):
        raise TransferError("the registry's manifest cannot be read", is_lasting=True)
    listed: list[Mapping[str, Any]]
    listed = [one for one in layers if isinstance(one, dict) and _digest(one)]
    if source.is_ollama:
        ways = [[one for one in listed if _kind(one) == _OLLAMA_MODEL]]
    elif source.layer:
        ways = [
            [one for one in listed if source.layer in (_title(one), one["digest"])],
            [one for one in listed if source.layer == _last(_title(one))],
        ]
    else:
        ways = [
            listed,
            [one for one in listed if source.preferred and source.preferred == _last(_title(one))],
            [one for one in listed if _WEIGHTS.fullmatch(_kind(one))],
        ]
    for chosen in ways:
        if len(chosen) == 1:
            return chosen[0]
    if source.is_ollama or not listed:
        raise DownloadFailedError(_name(source), "it has no model in it")
    names = ", ".join(_title(one) or str(one["digest"]) for one in listed[:_MOST_NAMES])
    more = len(listed) - _MOST_NAMES
    names += f" and {more} more" if more > 0 else ""
    if source.layer:
        cause = f"it has not one file {source.layer}, but {names}"
    else:
        cause = f"it has several files; name one of them after a #: {names}"
    raise SourceRefusedError(_name(source), cause)


def _kind(layer: Mapping[str, Any]) -> str:
    return str(layer.get("mediaType", "")).partition(";")[0].strip().lower()


def _title(layer: Mapping[str, Any]) -> str:
    annotations = layer.get("annotations")
    if isinstance(annotations, dict):
        for key in _TITLES:
            title = annotations.get(key)
            if isinstance(title, str) and title and title.isprintable():
                return title
    return ""


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _file_name(layer: Mapping[str, Any], source: RegistrySource) -> str:
    if title := _title(layer):
        return _last(title)
    name = _last(source.repository)
    kinds: Sequence[tuple[str, str]] = _ENDINGS
    media_type = _kind(layer)
    ending = next((ending for kind, ending in kinds if media_type.endswith(kind)), "")
    is_gguf = media_type == _OLLAMA_MODEL or "gguf" in media_type
    return name + (".gguf" if is_gguf else ending)


def _name(source: RegistrySource) -> str:
    joint = "@" if source.reference.startswith("sha256:") else ":"
    return f"{urlsplit(source.registry).netloc}/{source.repository}{joint}{source.reference}"
