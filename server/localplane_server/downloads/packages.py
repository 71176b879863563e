"""Wheels of a package index: which one is meant, and where it is."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.patience import Patience, TransferError, persist
from localplane_server.downloads.pip_settings import PipSettings
from localplane_server.downloads.proxies import Proxies
from localplane_server.downloads.sources import PackageSource
from localplane_server.downloads.web import Answer, WebClient, told_size
from localplane_server.errors import DownloadFailedError

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_LARGEST_PAGE = 64 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel that the index has."""

    file_name: str
    """Its name."""
    url: str
    """Where it is."""
    sha256: str = ""
    """Its SHA-256. Empty if the index does not tell."""
    size_bytes: int | None = None
    """Its size, if the index tells."""


class PackageIndex:
    """The indexes that the operator's pip uses.

    The operator chose them, so they may have any address, and so may the hosts that their pages link
    to; nothing else is allowed that was not before.
    """

    def __init__(
        self,
        settings: PipSettings,
        policy: AddressPolicy,
        *,
        patience: Patience,
        is_offline: bool = False,
        proxies: Proxies | None = None,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._patience = patience
        self._is_offline = is_offline
        self._proxies = proxies

    async def find(self, source: PackageSource, patience: Patience | None = None) -> Wheel:
        """Find the wheel of a version.

        Args:
            source: What is wanted.
            patience: Waits and attempts, if not the usual ones.

        Raises:
            DownloadFailedError: If there is none, or no index answers.
        """
        project = _normalised(source.project)
        name = f"{source.project}=={source.version}"
        if not self._settings.index_urls:
            raise DownloadFailedError(name, "pip's settings name no package index")
        for index in self._settings.index_urls:
            async with self.client([index]) as web:
                listed = await persist(
                    patience or self._patience, name, partial(_listed, web, index, project)
                )
            matching = [
                wheel for wheel in listed if _is_of(wheel.file_name, project, source.version)
            ]
            best = min(matching, key=_distance, default=None)
            if best is not None and _distance(best) < _NEVER:
                return best
        where = (
            "the package index" if len(self._settings.index_urls) == 1 else "none of the indexes"
        )
        has = "has no wheel of it" if len(self._settings.index_urls) == 1 else "has a wheel of it"
        raise DownloadFailedError(name, f"{where} {has} for this kind of machine")

    def hosts_of(self, wheel: Wheel) -> list[str]:
        """Return URLs of the hosts that may be asked for a wheel."""
        return [*self._settings.index_urls, wheel.url]

    @asynccontextmanager
    async def client(self, urls: Iterable[str]) -> AsyncGenerator[WebClient]:
        """Give a client that may reach the hosts of some URLs, whatever their addresses are."""
        hosts = [_host(url) for url in urls]
        async with WebClient(
            self._policy.also(hosts),
            self._settings.credentials,
            patience=self._patience,
            is_offline=self._is_offline,
            certificate=self._settings.certificate,
            proxies=self._proxies,
        ) as web:
            yield web


def wheel_name(source: PackageSource) -> str:
    """Return the name of a wheel, the same for all spellings of it."""
    return f"{_normalised(source.project)}=={_version(source.version)}"


def _host(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{parts.port}" if parts.port else shown


async def _listed(web: WebClient, index: str, project: str) -> list[Wheel]:
    """Return the wheels that an index has of a project."""
    async with web.request(
        f"{index}/{project}/", {"Accept": _ACCEPT}, expected=frozenset({_NOT_FOUND})
    ) as answer:
        if answer.status == _NOT_FOUND:
            return []
        answer.check_plain()
        content = await answer.read(_LARGEST_PAGE)
    try:
        if answer.headers.get("content-type", "").partition(";")[0].strip() == _JSON:
            return list(_of_json(answer, content))
        return list(_of_html(answer, content))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TransferError("the package index's page cannot be read", is_lasting=True) from error


def _of_json(answer: Answer, content: bytes) -> Iterable[Wheel]:
    for file in json.loads(content)["files"]:
        yield Wheel(
            file_name=str(file["filename"]),
            url=urldefrag(urljoin(answer.url, file["url"])).url,
            sha256=_checked(str(file.get("hashes", {}).get("sha256", ""))),
            size_bytes=told_size(file.get("size")),
        )


def _of_html(answer: Answer, content: bytes) -> Iterable[Wheel]:
    page = _Page()
    page.feed(content.decode("utf-8", "replace"))
    for link in page.links:
        url, fragment = urldefrag(urljoin(urljoin(answer.url, page.base), link))
        name = unquote(urlsplit(url).path.rpartition("/")[2])
        digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        yield Wheel(file_name=name, url=url, sha256=_checked(digest))


class _Page(HTMLParser):
    """The links of a page of an index."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link, or what links are relative to."""
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.links.append(href)
        elif href and tag == "base" and not self.base:
            self.base = href


def _checked(digest: str) -> str:
    return digest if _SHA256.fullmatch(digest.lower()) else ""


def _normalised(project: str) -> str:
    return re.sub(r"[-_.]+", "-", project).lower()


def _version(written: str) -> str:
    """Return a version as two spellings of the same have it in common, as far as people go."""
    lowered = written.lower().removeprefix("v").replace("-", ".").replace("_", ".")
    release, plus, local = lowered.partition("+")
    while release.endswith(".0"):
        release = release.removesuffix(".0")
    return release + plus + local


def _is_of(file_name: str, project: str, version: str) -> bool:
    parts = file_name.removesuffix(".whl").split("-")
    if not file_name.endswith(".whl") or len(parts) not in (5, 6):
        return False
    return _normalised(parts[0]) == project and _version(parts[1]) == _version(version)


_NEVER = 9


def _distance(wheel: Wheel) -> int:
    """Return how far a wheel is from what is wanted here: one that is for every machine."""
    tag = wheel.file_name.removesuffix(".whl").rpartition("-")[2]
    if tag == "any":
        return 0
    machine = platform.machine()
    return 1 if any("linux" in one and one.endswith(machine) for one in tag.split(".")) else _NEVER
