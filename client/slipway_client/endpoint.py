"""Methods of the API, written once for both clients.

A method of a resource builds a `Call`. A descriptor sends it: on a synchronous resource the method returns the result,
on an asynchronous one an awaitable of it. The types follow: `overload` picks the face by the class of the resource.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from slipway_client.calls import Call, Page
from slipway_client.effects import Flow, Items
from slipway_client.exchange import Exchange
from slipway_client.following import Place
from slipway_client.streams import AsyncEventStream, EventStream

P = ParamSpec("P")
T = TypeVar("T")


class Driver(Protocol):
    """Performer of flows and lists: a client of either kind."""

    exchange: Exchange

    def perform(self, flow: Flow[Any]) -> Any: ...
    def each(self, items: Items[Any]) -> Any: ...
    def listen(self, place: Place) -> Any: ...


class Resource:
    """Part of a client."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver


class SyncResource(Resource): ...


class AsyncResource(Resource): ...


class flow(Generic[P, T]):
    """Method whose flow is performed: the result, or an awaitable of it."""

    def __init__(self, build: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, resource: SyncResource, owner: Any) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: AsyncResource, owner: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, resource: Resource, owner: Any) -> Any:
        return _bound(self._build, resource, resource._driver.perform)


class endpoint(Generic[P, T]):
    """Method that sends one call: its result, or an awaitable of it."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, resource: SyncResource, owner: Any) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: AsyncResource, owner: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, resource: Resource, owner: Any) -> Any:
        driver = resource._driver
        return _bound(self._build, resource, lambda call: driver.perform(driver.exchange.result(call)))


class listing(Generic[P, T]):
    """Method that iterates over a list, page by page as needed."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[Page[T]]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, resource: SyncResource, owner: Any) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, resource: AsyncResource, owner: Any) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, resource: Resource, owner: Any) -> Any:
        driver = resource._driver
        return _bound(self._build, resource, lambda call: driver.each(driver.exchange.items(call)))


class streaming(Generic[P]):
    """Method that opens a stream of events."""

    def __init__(self, build: Callable[Concatenate[Any, P], Place]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, resource: SyncResource, owner: Any) -> Callable[P, EventStream]: ...
    @overload
    def __get__(self, resource: AsyncResource, owner: Any) -> Callable[P, AsyncEventStream]: ...
    def __get__(self, resource: Resource, owner: Any) -> Any:
        return _bound(self._build, resource, resource._driver.listen)


def _bound(
    build: Callable[..., Any], resource: Resource, perform: Callable[[Any], Any]
) -> Callable[..., Any]:
    @wraps(build)
    def method(*args: Any, **options: Any) -> Any:
        return perform(build(resource, *args, **options))

    return method
