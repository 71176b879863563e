"""The list of models that can be installed, made once for each state of the galleries and the models folder."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from google.protobuf import struct_pb2

from localplane.v1 import gallery_pb2, gallery_service_pb2
from localplane_server import __version__
from localplane_server.errors import InvalidArgumentError
from localplane_server.gallery.available import Wanted, available, installed_keys
from localplane_server.gallery.entry import GalleryEntry
from localplane_server.gallery.galleries import Galleries, Offer
from localplane_server.models.catalog import ModelCatalog
from localplane_server.models.configuration import ModelConfig
from localplane_server.rpc.pages import page

MOST_LISTS = 16
LONGEST_WORDS = 1024
LARGE = 100
"""From how many models on a list is made on a thread, so that nobody else waits."""

Request = gallery_service_pb2.ListAvailableModelsRequest
Response = gallery_service_pb2.ListAvailableModelsResponse


class TaggedList(NamedTuple):
    """A list, and the tag that it has as long as it is the same."""

    tag: str
    response: Response


class AvailableModels:
    """Makes the list for each request, and keeps those that were asked for last.

    The lists are shared: nobody may change one.
    """

    def __init__(self, galleries: Galleries, catalog: ModelCatalog) -> None:
        self._galleries = galleries
        self._catalog = catalog
        self._lists: OrderedDict[str, Response] = OrderedDict()
        self._pending: dict[str, asyncio.Future[Response]] = {}
        self._state: _State | None = None

    async def list(self, request: Request) -> TaggedList:
        """Return the list for a request.

        Raises:
            InvalidArgumentError: If nothing can be asked for like that.
        """
        for field in ("term", "tag", "backend"):
            if len(getattr(request, field)) > LONGEST_WORDS:
                message = f"{field} has more than {LONGEST_WORDS} characters"
                raise InvalidArgumentError(message, field=field)
        state = self._current(await self._galleries.offer())
        offer, installed = state.offer, state.installed
        tag = state.tag(request)
        response = self._lists.get(tag)
        if response is not None:
            self._lists.move_to_end(tag)
            return TaggedList(tag, response)
        if sum(len(index.entries) for index in offer.indexes) > LARGE:
            response = await self._made_aside(tag, partial(_list, offer, installed, request))
        else:
            response = _list(offer, installed, request)
        self._lists[tag] = response
        if len(self._lists) > MOST_LISTS:
            self._lists.popitem(last=False)
        return TaggedList(tag, response)

    async def _made_aside(self, tag: str, make: Callable[[], Response]) -> Response:
        """Make a list on a thread: once, however many ask for it at the same time."""
        pending = self._pending.get(tag)
        if pending is None:
            loop = asyncio.get_running_loop()
            pending = self._pending[tag] = loop.run_in_executor(None, make)
            pending.add_done_callback(lambda _: self._pending.pop(tag))
        # One who leaves takes it away from nobody else.
        return await asyncio.shield(pending)

    def _current(self, offer: Offer) -> _State:
        """Return the state of everything that a list depends on: the one before, if it is the same."""
        configured = self._catalog.configured()
        state = self._state
        # Models that were not read again are the same objects, which costs next to nothing to compare.
        if state is None or state.offer is not offer or state.configured != configured:
            state = self._state = _State(offer, configured)
        return state


class _State:
    """What there is to be listed, and to be told of it."""

    def __init__(self, offer: Offer, configured: list[ModelConfig]) -> None:
        self.offer = offer
        self.configured = configured
        self.installed = installed_keys(offer, configured)
        # The version, since another one may write another list of the same galleries.
        parts = (__version__, offer.revision, *sorted(self.installed))
        self._digest = hashlib.sha256("\0".join(parts).encode())

    def tag(self, request: Request) -> str:
        """Return the tag of the answer to a request."""
        digest = self._digest.copy()
        digest.update(b"\0\0" + request.SerializeToString(deterministic=True))
        return f'"{digest.hexdigest()[:32]}"'


def is_known(tag: str, known: str) -> bool:
    """Whether a tag is one of those that a caller has, as `If-None-Match` has them."""
    tags = [one.strip().removeprefix("W/") for one in known.split(",")]
    return tag in tags or tags == ["*"]


def query_of(request: Request) -> dict[str, str]:
    """Return what was asked for, as the query of a URL has it, but for the page."""
    return {
        field.name: _query_value(request, field.name)
        for field, _ in request.ListFields()
        if field.name != "page_token"
    }


def _query_value(request: Request, name: str) -> str:
    value = getattr(request, name)
    if name == "view":
        basic = gallery_service_pb2.GALLERY_MODEL_VIEW_BASIC
        return "basic" if value == basic else "full"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _list(offer: Offer, installed: frozenset[str], request: Request) -> Response:
    wanted = Wanted(
        term=request.term,
        tag=request.tag,
        backend=request.backend,
        installed=request.installed if request.HasField("installed") else None,
    )
    shown, token = page(
        list(available(offer, installed, wanted)),
        lambda model: model.order,
        request.page_size,
        request.page_token,
    )
    is_basic = request.view == gallery_service_pb2.GALLERY_MODEL_VIEW_BASIC
    return Response(
        models=[
            _model_to_proto(model.entry, is_installed=model.is_installed, is_basic=is_basic)
            for model in shown
        ],
        next_page_token=token or None,
    )


def _model_to_proto(
    entry: GalleryEntry, *, is_installed: bool, is_basic: bool
) -> gallery_pb2.GalleryModel:
    model = gallery_pb2.GalleryModel(
        url=entry.url or None,
        name=entry.name,
        description=entry.description or None,
        license=entry.license or None,
        urls=entry.urls,
        icon=entry.icon or None,
        tags=entry.tags,
        size=entry.size or None,
        gallery=gallery_pb2.GalleryReference(url=entry.gallery_url, name=entry.gallery),
        installed=is_installed,
        backend=entry.backend or None,
        variants=[gallery_pb2.GalleryVariant(model=variant) for variant in entry.variants],
        last_checked=entry.last_checked or None,
    )
    if is_basic:
        return model
    model.files.extend(
        gallery_pb2.GalleryFile(filename=file.filename, sha256=file.sha256, uri=file.uri)
        for file in entry.files
    )
    if entry.overrides:
        model.overrides.CopyFrom(_struct(entry.overrides))
    if entry.config_file is not None:
        model.config_file.CopyFrom(_struct(entry.config_file))
    return model


def _struct(values: object) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(values)  # type: ignore[arg-type] # a mapping of JSON, whatever is in it
    return struct
