"""Methods of the clients. Each is written once, as what makes its request; the client decides how it is called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from google.protobuf.message import Message

from localplane_client.calling import AsyncCaller, BlockingCaller, Method
from localplane_client.streams import AnswerStream, AsyncAnswerStream

P = ParamSpec("P")
Answer = TypeVar("Answer", bound=Message)
MakeRequest = Callable[Concatenate[Any, P], Message]


class Declared(Generic[P, Answer]):
    """A method as a class has it, bound to no client yet."""

    def __init__(self, make_request: MakeRequest[P], method: Method[Answer]) -> None:
        self.method = method
        """The method of the service."""
        self.__doc__ = make_request.__doc__
        self._make_request = make_request


class Unary(Declared[P, Answer]):
    """A method that answers once: of a `Client` it returns the answer, of an `AsyncClient` it is awaited."""

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: BlockingCaller, owner: type) -> Callable[P, Answer]: ...
    @overload
    def __get__(
        self, client: AsyncCaller, owner: type
    ) -> Callable[P, Coroutine[Any, Any, Answer]]: ...
    def __get__(self, client: BlockingCaller | AsyncCaller | None, owner: type) -> Any:
        """Bind the method to a client."""
        if client is None:
            return self
        return _bound(self._make_request, client, client.unary, self.method)


class Streaming(Declared[P, Answer]):
    """A method that answers piece by piece, with the stream that fits the client."""

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: BlockingCaller, owner: type) -> Callable[P, AnswerStream[Answer]]: ...
    @overload
    def __get__(
        self, client: AsyncCaller, owner: type
    ) -> Callable[P, AsyncAnswerStream[Answer]]: ...
    def __get__(self, client: BlockingCaller | AsyncCaller | None, owner: type) -> Any:
        """Bind the method to a client."""
        if client is None:
            return self
        return _bound(self._make_request, client, client.stream, self.method)


def _bound(make_request: Any, client: Any, start: Any, method: Method[Any]) -> Callable[..., Any]:
    @functools.wraps(make_request)
    def call(*args: Any, **kwargs: Any) -> Any:
        return start(method, make_request(client, *args, **kwargs))

    return call


def unary(
    rpc: str, answer: type[Answer], *, is_quick: bool = True
) -> Callable[[MakeRequest[P]], Unary[P, Answer]]:
    """Make a method of what makes its request.

    Args:
        rpc: Service and name of the RPC: `BackendService/LoadModel`.
        answer: What it answers with.
        is_quick: Whether it answers at once, so that it has a deadline unless told otherwise.
    """
    method = Method(f"/localplane.v1.{rpc}", answer, is_quick)
    return lambda make_request: Unary(make_request, method)


def streaming(rpc: str, answer: type[Answer]) -> Callable[[MakeRequest[P]], Streaming[P, Answer]]:
    """Make a method of what makes its request.

    Args:
        rpc: Service and name of the RPC: `InferenceService/ChatStream`.
        answer: What its stream is made of.
    """
    method = Method(f"/localplane.v1.{rpc}", answer, is_quick=False)
    return lambda make_request: Streaming(make_request, method)
