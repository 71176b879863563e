"""What every call passes through, where the library beneath it has ended first."""

from __future__ import annotations

from typing import Any

import grpc

from localplane_server.events import CallFinished, Events
from localplane_server.rpc.access import Keys
from localplane_server.rpc.inprocess import InProcessContext
from localplane_server.rpc.interceptors import CallInterceptor


class EndingContext(InProcessContext):
    """The context of a call whose server stops while the call still ends.

    After that the library's own context breaks the process when it is asked for the peer.
    """

    has_ended = False

    def peer(self) -> str:
        assert not self.has_ended
        return super().peer()


async def test_server_stops_first() -> None:
    """A call that ends after its server is noted, with the peer that was asked for in time."""
    finished: list[CallFinished] = []
    bus = Events()
    bus.listen(CallFinished, finished.append)
    context = EndingContext(None, None)

    async def behaviour(request: Any, _context: Any) -> Any:
        context.has_ended = True
        return request

    handler: Any = grpc.unary_unary_rpc_method_handler(behaviour)
    wrapped: Any = CallInterceptor(Keys({}), bus).wrap(
        "/localplane.v1.ModelService/GetModel", handler
    )

    assert "answer" == await wrapped.unary_unary("answer", context)
    assert ["inprocess"] == [note.peer for note in finished]
