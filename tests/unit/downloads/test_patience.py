"""How often, and after which waits, something is tried again."""

from __future__ import annotations

import pytest

from localplane_server.downloads.patience import Patience, TransferError, persist
from localplane_server.errors import DownloadFailedError

PATIENCE = Patience(attempts=3, first_delay_seconds=1.0, longest_delay_seconds=8.0)
BROKE = TransferError("it broke")


def test_delays() -> None:
    """Each wait is twice the last, up to a limit, and a little less by chance."""
    for failures, most in ((1, 1.0), (2, 2.0), (4, 8.0), (20, 8.0)):
        assert 0.75 * most <= PATIENCE.delay(failures, BROKE) <= most


def test_server_that_says_when() -> None:
    """A wait that the server wants is kept, unless it is too long."""
    busy = TransferError("busy", retry_after_seconds=30.0)
    assert 30.0 == PATIENCE.delay(1, busy)
    assert not PATIENCE.is_over(1, busy)
    assert PATIENCE.is_over(1, TransferError("busy", retry_after_seconds=601.0))


def test_end() -> None:
    """Patience ends after some failures, and at once where another attempt is of no use."""
    assert not PATIENCE.is_over(2, BROKE)
    assert PATIENCE.is_over(3, BROKE)
    assert PATIENCE.is_over(1, TransferError("gone", is_lasting=True))


async def test_persist() -> None:
    """The last cause is what is told, with the status if that was it."""
    causes = iter([BROKE, TransferError("it is gone", is_lasting=True, status=404)])

    async def attempt() -> None:
        raise next(causes)

    with pytest.raises(DownloadFailedError, match="cannot download m: it is gone") as caught:
        await persist(Patience(first_delay_seconds=0.01), "m", attempt)
    assert {"source": "m", "status": "404"} == caught.value.metadata
