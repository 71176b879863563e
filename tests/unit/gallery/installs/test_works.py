"""Installing and deleting as jobs."""

from __future__ import annotations

import json

import pytest

from localplane_server.errors import InvalidArgumentError, InvalidModelNameError, ModelNotFoundError
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.gallery.installs.works import DeleteWork, InstallWork, deletion
from workshop import Workshop


async def test_both(workshop: Workshop) -> None:
    """What was written down is done, and what it came to can be written down."""
    installing, deleting = (
        InstallWork(workshop.installer, workshop.resolver),
        DeleteWork(workshop.remover),
    )
    request = InstallRequest.from_json(workshop.model("tiny"))

    installed = await installing.run(
        json.loads(json.dumps(request.to_json())), workshop.told.append, is_again=False
    )
    deleted = await deleting.run(
        json.loads(json.dumps(deletion("tiny"))), workshop.told.append, is_again=False
    )

    assert "tiny" == json.loads(json.dumps(installed))["name"]
    assert ["._gallery_tiny.yaml", "tiny.gguf", "tiny.yaml"] == (
        json.loads(json.dumps(deleted))["removed"]
    )


async def test_identity(workshop: Workshop) -> None:
    """A gallery's entry is one whatever it is called; a deletion is of what is called just so."""
    installing = InstallWork(workshop.installer, workshop.resolver)
    workshop.gallery.add("Tiny")
    refused = {"id": 1}

    assert installing.identity({"id": "tiny"}) == installing.identity({"id": "test@TINY"})
    assert installing.identity({"id": "tiny"}) != installing.identity({"id": "other"})
    assert installing.identity({"url": "https://h/x"}) == {"url": "https://h/x", "name": ""}
    assert refused == installing.identity(refused)
    assert deletion("a") == DeleteWork(workshop.remover).identity(deletion("a"))


async def test_again(workshop: Workshop) -> None:
    """An installation that was done, and of which nobody knows that, comes to the same end."""
    installing = InstallWork(workshop.installer, workshop.resolver)
    request = InstallRequest.from_json(workshop.model("tiny")).to_json()
    await installing.run(request, workshop.told.append, is_again=False)

    again = await installing.run(request, workshop.told.append, is_again=True)

    assert ["tiny.gguf"] == again["kept"]
    assert ["https://host/tiny.gguf"] == workshop.source.fetched


async def test_deleted_again(workshop: Workshop) -> None:
    """A deletion that was done, and of which nobody knows that, is no failure; one of a model that never was is."""
    deleting = DeleteWork(workshop.remover)

    done = await deleting.run(deletion("tiny"), workshop.told.append, is_again=True)

    assert [] == done["removed"]
    with pytest.raises(ModelNotFoundError):
        await deleting.run(deletion("tiny"), workshop.told.append, is_again=False)


async def test_discard(workshop: Workshop) -> None:
    """What an installation has fetched is thrown away; a deletion fetches nothing."""
    request = InstallRequest.from_json(workshop.model("tiny")).to_json()

    await InstallWork(workshop.installer, workshop.resolver).discard(request)
    await DeleteWork(workshop.remover).discard(deletion("tiny"))

    assert ["https://host/tiny.gguf"] == [uri for uri, _ in workshop.source.discarded]


async def test_wrong(workshop: Workshop) -> None:
    """What cannot be a request fails as one that cannot be used."""
    with pytest.raises(InvalidArgumentError):
        await DeleteWork(workshop.remover).run({}, workshop.told.append, is_again=False)
    with pytest.raises(InvalidArgumentError):
        await InstallWork(workshop.installer, workshop.resolver).run(
            {}, workshop.told.append, is_again=False
        )
    with pytest.raises(InvalidModelNameError):
        deletion("..")
