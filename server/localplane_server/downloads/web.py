"""Requests to web servers, with redirects followed one by one and every failure given its cause."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote_plus, urljoin, urlsplit

import httpcore

from localplane_server import __version__
from localplane_server.downloads.addresses import AddressPolicy, default_port, shown
from localplane_server.downloads.connections import CheckedBackend, Resolve, resolve, trusted
from localplane_server.downloads.credentials import Credentials, origin
from localplane_server.downloads.patience import Patience, TransferError
from localplane_server.downloads.proxies import Proxies, opened
from localplane_server.errors import OfflineError, SourceRefusedError

MOST_REDIRECTS = 10
"""How many are followed in a row."""
LARGEST_FILE = 1 << 50
"""Bytes. Nothing that says that it is larger is believed."""

_MOVED = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 421, 425, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not meet again."""
_HTML = re.compile(rb"\s*(?:<!doctype\s+html|<html)", re.IGNORECASE)
_TEXT_OF_ERRORS = 200
_KEPT_CONNECTIONS_SECONDS = 15.0


class Answer:
    """The head of an answer, with the body still to come."""

    def __init__(
        self, url: str, response: httpcore.Response, told: Mapping[str, str], seconds: float
    ) -> None:
        self.url = url
        """Where it came from in the end."""
        self.status = response.status
        """Its status. Never one of a failure or a redirect, but for those that were asked for."""
        self.headers = {
            name.decode("ascii", "replace").lower(): value.decode("latin-1").strip()
            for name, value in response.headers
        }
        """Its headers, by their names in lower case."""
        self.told_on_the_way = told
        """Headers of the redirects of the server that was asked first."""
        self._response = response
        self._seconds = seconds

    @property
    def length(self) -> int | None:
        """How many bytes the body has. None if the server does not say.

        Raises:
            TransferError: If no file is as large as it says.
        """
        return told_size(self.headers.get("content-length", ""))

    @property
    def whole_length(self) -> int | None:
        """How many bytes the file has of which this may be a part. None if the server does not say.

        Raises:
            TransferError: If no file is as large as it says.
        """
        told = self.headers.get("content-range", "").rpartition("/")[2]
        if self.status == 200:  # noqa: PLR2004 - of HTTP
            return self.length
        return told_size(told)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Give the body as it arrives.

        Raises:
            TransferError: If it breaks off.
        """
        with _causes():
            async for piece in self._response.aiter_stream():
                yield piece

    async def read(self, most_bytes: int) -> bytes:
        """Return the body.

        Raises:
            TransferError: If it breaks off, is larger than that, or takes longer than documents may.
        """
        content = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                async for piece in self.pieces():
                    content += piece
                    if len(content) > most_bytes:
                        cause = f"it is larger than {most_bytes} bytes"
                        raise TransferError(cause, is_lasting=True)
        except TimeoutError as error:
            raise TransferError("it took too long") from error
        return bytes(content)

    def check_plain(self) -> None:
        """Refuse a body that was compressed on the way: it is not the file.

        Raises:
            TransferError: If it is one.
        """
        encoding = self.headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            cause = f"the server compresses it ({encoding}) although it was asked not to"
            raise TransferError(cause, is_lasting=True)

    def check_kind(self, file_name: str) -> None:
        """Refuse a web page in the place of a file: a login, a captive portal, an error with status 200.

        Raises:
            TransferError: If the headers say that it is one.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml") and not may_be_page(file_name):
            raise WebPageError


class WebPageError(TransferError):
    """The server sent a web page in the place of a file."""

    def __init__(self) -> None:
        super().__init__("the server sent a web page instead of the file", is_lasting=True)


def may_be_page(file_name: str) -> bool:
    """Whether a file of this name may well be a web page."""
    return file_name.lower().endswith((".html", ".htm", ".xhtml"))


def check_beginning(beginning: bytes, file_name: str) -> None:
    """Refuse a web page in the place of a file, by how it begins.

    Raises:
        TransferError: If it is one.
    """
    if _HTML.match(beginning) and not may_be_page(file_name):
        raise WebPageError


class WebClient:
    """Sends requests to hosts that the policy allows. An async context manager."""

    def __init__(
        self,
        policy: AddressPolicy,
        credentials: Credentials,
        *,
        patience: Patience,
        is_offline: bool = False,
        certificate: str = "",
        proxies: Proxies | None = None,
        find: Resolve = resolve,
    ) -> None:
        self._policy = policy
        self._credentials = credentials
        self._patience = patience
        self._is_offline = is_offline
        self._certificate = certificate
        self._opening = asyncio.Lock()
        self._proxies = proxies or Proxies()
        self._find = find
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.aclose()

    @asynccontextmanager
    async def request(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        credentials: Credentials | None = None,
        expected: frozenset[int] = frozenset(),
    ) -> AsyncGenerator[Answer]:
        """Send a request, follow redirects, and give the answer for as long as the context is open.

        Args:
            url: Where to.
            headers: What to send besides what every request has.
            method: What to ask for.
            credentials: Those to send in place of the client's own.
            expected: Statuses that are no failure here though they are 300 or more.

        Raises:
            OfflineError: If the service is to stay off the network.
            SourceRefusedError: If the URL, or a redirect, leads where it must not.
            TransferError: If there is no answer, or one that tells a failure.
        """
        if self._is_offline:
            raise OfflineError(shown(url))
        credentials = credentials or self._credentials
        told: dict[str, str] = {}
        first = url
        for _ in range(MOST_REDIRECTS + 1):
            self._policy.check_url(url)
            key = credentials.authorization(url)
            sent = {
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                "User-Agent": f"localplane/{__version__}",
                **(headers or {}),
                **({"Authorization": key} if key else {}),
            }
            async with self._sent(method, url, sent) as response:
                answer = Answer(url, response, told, self._patience.document_seconds)
                if answer.status in _MOVED and answer.status not in expected:
                    if origin(url) == origin(first):
                        told |= answer.headers
                    url = self._next(answer)
                    continue
                if answer.status not in expected and answer.status >= 300:  # noqa: PLR2004 - of HTTP
                    raise await _status_error(answer)
                yield answer
                return
        raise TransferError(f"more than {MOST_REDIRECTS} redirects in a row", is_lasting=True)

    def _next(self, answer: Answer) -> str:
        location = _text(answer.headers.get("location", ""))
        if not location:
            raise TransferError("a redirect that leads nowhere", is_lasting=True)
        try:
            target = urljoin(answer.url, location)
            return target.partition("#")[0]
        except ValueError:
            raise SourceRefusedError(shown(answer.url), "it redirects to what is no URL") from None

    @asynccontextmanager
    async def _sent(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[httpcore.Response]:
        patience = self._patience
        timeouts = {
            "connect": patience.connect_seconds,
            "read": patience.stall_seconds,
            "write": patience.stall_seconds,
        }
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("ascii" if parts.netloc.isascii() else "idna")
        target = quote(parts.path or "/", safe="/%:@-._~!$&'()*+,;=")
        if parts.query:
            target += "?" + quote(parts.query, safe="/?%:@-._~!$&'()*+,;=[]|^`{}\"\\<>")
        host_header = host if b":" not in host else b"[" + host + b"]"
        if parts.port is not None:
            host_header += b":%d" % parts.port
        request = httpcore.Request(
            method,
            httpcore.URL(
                scheme=parts.scheme.encode(), host=host, port=parts.port, target=target.encode()
            ),
            headers=[
                (b"Host", host_header),
                *((name.encode(), value.encode("latin-1")) for name, value in headers.items()),
            ],
            extensions={"timeout": timeouts},
        )
        proxy = self._proxies.of(url)
        if proxy:
            await self._check_behind(url)
        pool = await self._opened(proxy)
        with _causes(url):
            response = await pool.handle_async_request(request)
        try:
            yield response
        finally:
            await response.aclose()

    async def _check_behind(self, url: str) -> None:
        """Look at what a proxy is to be asked for, as far as that can be known here.

        It resolves names by itself. Where this machine knows the name, too, it must not mean a private address.
        """
        parts = self._policy.check_url(url)
        host, port = parts.hostname or "", parts.port or default_port(parts.scheme)
        with contextlib.suppress(OSError):
            self._policy.reachable(host, port, await self._find(host, port))

    async def _opened(self, proxy: str) -> httpcore.AsyncConnectionPool:
        """Return the connections through a proxy, or those without one."""
        async with self._opening:
            if (pool := self._pools.get(proxy)) is not None:
                return pool
            through = opened(proxy) if proxy else None
            policy = self._policy
            if through is not None:
                # The operator named it, so it may have any address.
                policy = policy.also([through.url.host.decode()])
            # Reading all certificates takes a while; nobody waits for it who has no use for it.
            files = [self._certificate] if self._certificate else []
            try:
                tls = await asyncio.to_thread(trusted, *files)
            except OSError as error:
                cause = f"the certificates of pip's settings cannot be read: {error.strerror}"
                raise TransferError(cause, is_lasting=True) from error
            pool = self._pools[proxy] = httpcore.AsyncConnectionPool(
                ssl_context=tls,
                proxy=through,
                max_connections=64,
                max_keepalive_connections=16,
                keepalive_expiry=_KEPT_CONNECTIONS_SECONDS,
                network_backend=CheckedBackend(policy, self._find),
            )
            return pool


def _text(header: str) -> str:
    """Return what a header says that may be UTF-8, as addresses often are that should have been quoted."""
    with contextlib.suppress(UnicodeError):
        return header.encode("latin-1").decode()
    return header


def retry_after(value: str) -> float | None:
    """Return the seconds that a `Retry-After` header asks for: a number, or a date."""
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def told_size(told: object) -> int | None:
    """Return the size that somebody tells of a file, as a number or in digits. None if that tells none.

    Raises:
        TransferError: If no file is as large.
    """
    if isinstance(told, str):
        # A number of any length takes any time to read.
        told = int(told[:20]) if told.isdecimal() else None
    if isinstance(told, bool) or not isinstance(told, int) or told < 0:
        return None
    if told > LARGEST_FILE:
        raise TransferError(f"it is said to have {told} bytes or more", is_lasting=True)
    return told


async def _status_error(answer: Answer) -> TransferError:
    said = ""
    with contextlib.suppress(TransferError):
        kind = answer.headers.get("content-type", "")
        if "html" not in kind and (answer.length or 0) <= 64 * 1024:
            text = (await answer.read(64 * 1024)).decode(errors="replace")
            if not _repeats(text, answer.url):
                said = " ".join(text.split())[:_TEXT_OF_ERRORS]
    cause = f"{urlsplit(answer.url).hostname} answered {answer.status}"
    if answer.status in (401, 403):
        cause += ", which means that it wants a key, or another one"
    return TransferError(
        f"{cause}: {said}" if said.isprintable() and said else cause,
        is_lasting=answer.status not in _PASSING,
        status=answer.status,
        retry_after_seconds=retry_after(answer.headers.get("retry-after", "")),
    )


def _repeats(text: str, url: str) -> bool:
    """Whether a text repeats a part of a URL's query, which may be a key."""
    parts = [part.partition("=") for part in urlsplit(url).query.split("&")]
    values = {value or name for name, _, value in parts} - {""}
    return any(value in text or unquote_plus(value) in text for value in values)


def _untrusted(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return what was wrong with a certificate, if that is what an error comes from."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _causes(url: str = "") -> Generator[None]:
    """Say in words of ours what the library reports."""
    host = f" to {urlsplit(url).hostname}" if url else ""
    try:
        yield
    except httpcore.ConnectTimeout as error:
        raise TransferError(f"no connection{host} in time") from error
    except (httpcore.ReadTimeout, httpcore.WriteTimeout) as error:
        raise TransferError("the server stalled: it sent nothing for too long") from error
    except httpcore.ConnectError as error:
        if (untrusted := _untrusted(error)) is not None:
            text = f"the certificate is not trusted: {untrusted.verify_message}"
            raise TransferError(text, is_lasting=True) from error
        raise TransferError(f"no connection{host}: {error.__cause__ or error}") from error
    except httpcore.RemoteProtocolError as error:
        raise TransferError(f"the server broke off, or does not speak HTTP: {error}") from error
    except httpcore.ProxyError as error:
        raise TransferError(f"the proxy does not let it through: {error}") from error
    except httpcore.NetworkError as error:
        raise TransferError("the connection broke") from error
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        # What the library says repeats what was to be sent.
        raise TransferError("the request cannot be sent", is_lasting=True) from error
    except (httpcore.TimeoutException, httpcore.PoolTimeout) as error:
        raise TransferError("it took too long") from error
