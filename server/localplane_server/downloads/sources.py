"""The URIs that name files, and what they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from localplane_server.downloads.addresses import shown
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.errors import SourceRefusedError

SCHEMES = "https, http, file, huggingface (hf), github, oci, ollama, pypi"
"""What a source may be, for messages."""

_LONGEST = 4096
_LONGEST_REPOSITORY = 255
_BARE_REGISTRIES = ("ghcr.io/", "quay.io/", "docker.io/")
_PREFERRED = "?"
"""What a name begins with that is only preferred, in the place where one is named."""
_PROJECT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class WebSource:
    """A file that a web server has."""

    url: str
    """Where."""
    file_name: str
    """Last part of its path."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of this machine."""

    path: str
    """Where."""

    @property
    def file_name(self) -> str:
        """Last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """A layer of what a registry of containers has under a name."""

    registry: str
    """URL of the registry, without a slash at its end."""
    repository: str
    """Name of the repository."""
    reference: str
    """Tag or digest."""
    layer: str = ""
    """Title or digest of the layer. Empty for the only one."""
    preferred: str = ""
    """Name of the file that is meant if there are several and none is named. Empty for none."""
    is_ollama: bool = False
    """Whether it is a model as Ollama publishes them: the layer with the weights is meant."""

    @property
    def file_name(self) -> str:
        """Title of the layer. Empty when it has none here."""
        return "" if self.layer.startswith("sha256:") else self.layer


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A file in a wheel of the package index."""

    project: str
    """Name of the project."""
    version: str
    """Exact version."""
    member: str
    """Path in the wheel."""

    @property
    def file_name(self) -> str:
        """Last part of its path."""
        return self.member.rpartition("/")[2]


Source = WebSource | FileSource | RegistrySource | PackageSource


def parse_source(uri: str, endpoints: Endpoints) -> Source:
    """Find out what a URI stands for.

    Raises:
        SourceRefusedError: If it is none of a known kind, or lacks a part.
    """
    uri = uri.strip()
    if not uri or len(uri) > _LONGEST or not uri.isprintable():
        raise SourceRefusedError(shown(uri[:80]), "it is no URI")
    if uri.startswith(_BARE_REGISTRIES):
        return _oci(uri, uri, endpoints)
    if uri.startswith("hf.co/"):
        return _hugging_face(uri, uri.removeprefix("hf.co/"), endpoints)
    scheme, colon, rest = uri.partition(":")
    rest = rest.removeprefix("//")
    match scheme.lower():
        case "https" | "http" if colon:
            return WebSource(uri, _last(urlsplit(uri).path) if _is_url(uri) else "")
        case "file" if colon:
            return _file(uri, rest)
        case "huggingface" | "hf" if colon:
            return _hugging_face(uri, rest, endpoints)
        case "github" if colon:
            return _github(uri, rest, endpoints)
        case "oci" if colon:
            return _oci(uri, rest, endpoints)
        case "ollama" if colon:
            return _ollama(uri, rest, endpoints)
        case "pypi" if colon:
            return _pypi(uri, rest)
        case _:
            raise SourceRefusedError(
                shown(uri), f"no source of files is called so; known are {SCHEMES}"
            )


def preferring(uri: str, name: str) -> str:
    """Return a URI that means the same, but where one of several files would have to be named: that of a name."""
    written = uri.strip()
    is_artifact = written.startswith(_BARE_REGISTRIES) or written.lower().startswith("oci:")
    if not is_artifact or "#" in written:
        return uri
    return f"{written}#{_PREFERRED}{quote(name, safe='')}"


def is_in_wheel(uri: str) -> bool:
    """Whether a URI names a file that comes in a wheel."""
    return uri.strip().partition(":")[0].lower() == "pypi"


def _is_url(uri: str) -> bool:
    try:
        urlsplit(uri)
    except ValueError:
        return False
    return True


def _file(uri: str, rest: str) -> FileSource:
    path = unquote(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest)
    if "\0" in path or not path:
        raise SourceRefusedError(shown(uri), "it has no path")
    return FileSource(path)


def _hugging_face(uri: str, rest: str, endpoints: Endpoints) -> WebSource:
    path, _, revision = rest.partition("@")
    parts = _parts(uri, path, at_least=3, shape="OWNER/REPOSITORY/PATH[@REVISION]")
    file = "/".join(map(quote, parts[2:]))
    where = (
        f"{quote(parts[0])}/{quote(parts[1])}/resolve/{quote(revision or 'main', safe='')}/{file}"
    )
    return WebSource(f"{endpoints.hugging_face}/{where}", parts[-1])


def _github(uri: str, rest: str, endpoints: Endpoints) -> WebSource:
    path, _, branch = rest.partition("@")
    parts = _parts(uri, path, at_least=3, shape="OWNER/REPOSITORY/PATH[@BRANCH]")
    branches = _parts(uri, branch or "main", at_least=1, shape="OWNER/REPOSITORY/PATH[@BRANCH]")
    where = "/".join(map(quote, [*parts[:2], *branches, *parts[2:]]))
    return WebSource(f"{endpoints.github_raw}/{where}", parts[-1])


def _oci(uri: str, rest: str, endpoints: Endpoints) -> RegistrySource:
    name, _, layer = rest.partition("#")
    registry, slash, repository = name.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, repository = "docker.io", name
    if registry in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        url = endpoints.docker
        repository = repository if "/" in repository else f"library/{repository}"
    else:
        url = f"https://{registry}"
    if layer.startswith(_PREFERRED):
        preferred = unquote(layer.removeprefix(_PREFERRED))
        return _registry_source(uri, url, repository, preferred=preferred)
    return _registry_source(uri, url, repository, layer=unquote(layer))


def _ollama(uri: str, rest: str, endpoints: Endpoints) -> RegistrySource:
    registry, slash, repository = rest.partition("/")
    if slash and ("." in registry or ":" in registry or registry == "localhost"):
        url = f"https://{registry}"
    else:
        url, repository = endpoints.ollama, rest
    repository = repository if "/" in repository else f"library/{repository}"
    return _registry_source(uri, url, repository, is_ollama=True)


def _registry_source(
    uri: str,
    registry: str,
    rest: str,
    *,
    layer: str = "",
    preferred: str = "",
    is_ollama: bool = False,
) -> RegistrySource:
    name, at, digest = rest.partition("@")
    repository, colon, tag = name.partition(":")
    reference = digest if at else tag if colon else "latest"
    is_right = bool(_DIGEST.fullmatch(reference) if at else _TAG.fullmatch(reference))
    repository = repository.lower() if is_ollama else repository
    is_right = is_right and len(repository) <= _LONGEST_REPOSITORY
    if not is_right or not _REPOSITORY.fullmatch(repository):
        raise SourceRefusedError(shown(uri), "expected REGISTRY/REPOSITORY[:TAG|@sha256:DIGEST]")
    return RegistrySource(registry, repository, reference, layer, preferred, is_ollama)


def _pypi(uri: str, rest: str) -> PackageSource:
    pin, _, member = rest.partition("/")
    project, equals, version = pin.partition("==")
    if (
        not equals
        or not _PROJECT.fullmatch(project)
        or not _VERSION.fullmatch(version)
        or not member
    ):
        raise SourceRefusedError(shown(uri), "expected pypi://PACKAGE==VERSION/PATH/IN/WHEEL")
    return PackageSource(project, version, unquote(member))


def _parts(uri: str, path: str, *, at_least: int, shape: str) -> list[str]:
    """Split a path, and refuse one that could leave its place."""
    parts = [unquote(part) for part in path.split("/")]
    if len(parts) < at_least or any(part in ("", ".", "..") or "/" in part for part in parts):
        raise SourceRefusedError(shown(uri), f"expected {shape}")
    return parts


def _last(path: str) -> str:
    return unquote(path).rpartition("/")[2]
