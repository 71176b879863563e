"""What installations were fetching when they were stopped."""

from __future__ import annotations

from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.gallery.installs.stopped import MOST_STOPPED, StoppedInstallations

FILES = (GalleryFile(filename="a.gguf", uri="https://host/a.gguf"),)


def test_by_the_request() -> None:
    """The same request, made anew, is the same installation; it is forgotten once somebody asked."""
    stopped = StoppedInstallations()
    stopped.add(InstallRequest(id="a", overrides={"x": 1, "y": 2}), FILES)

    assert stopped.pop(InstallRequest(id="b")) is None
    assert FILES == stopped.pop(InstallRequest(id="a", overrides={"y": 2, "x": 1}))
    assert stopped.pop(InstallRequest(id="a", overrides={"x": 1, "y": 2})) is None


def test_bounded() -> None:
    """Of many that nobody takes up again, those that were stopped last are remembered."""
    stopped = StoppedInstallations()
    for number in range(MOST_STOPPED):
        stopped.add(InstallRequest(id=f"m{number}"), FILES)
    stopped.add(InstallRequest(id="m0"), FILES)
    stopped.add(InstallRequest(id="more"), FILES)

    assert MOST_STOPPED == len(stopped)
    assert stopped.pop(InstallRequest(id="m1")) is None
    assert FILES == stopped.pop(InstallRequest(id="m0")) == stopped.pop(InstallRequest(id="more"))
