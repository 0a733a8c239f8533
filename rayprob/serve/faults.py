"""Errors of a server: which status each has, and their form in JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar

from rayprob import errors
from rayprob.errors import LabelError, QueryError, RayprobError, SampleError, ServeError, SpecError, UnknownImage

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Refused(ServeError):
    """A request that is refused for what it is, before its question is read; subclasses state the HTTP status."""

    status: ClassVar[int] = HTTPStatus.BAD_REQUEST
    headers: ClassVar[Mapping[str, str]] = NO_HEADERS


class NoToken(Refused):
    """The token is missing or wrong."""

    status = HTTPStatus.UNAUTHORIZED
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({"WWW-Authenticate": "Bearer"})


class TooLarge(Refused):
    """The body is larger than allowed."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class NotServed(Refused):
    """There is nothing of this name."""

    status = HTTPStatus.NOT_FOUND


class Busy(Refused):
    """Too many requests wait already, or no replica can compute."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({"Retry-After": "1"})


class Late(Refused):
    """There was no answer in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT


@dataclass(frozen=True)
class ErrorReply:
    """An error as it is sent: plain data, which also passes between processes."""

    status: int
    kind: str
    message: str
    at: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: RayprobError) -> "ErrorReply":
        """Return an error as it is sent. Its kind is a class of `rayprob.errors`."""
        kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == errors.__name__)
        at = error.at if isinstance(error, QueryError) else None
        headers = dict(error.headers) if isinstance(error, Refused) else {}
        return cls(int(status_of(error)), kind, str(error), at, headers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {"error": {"status": self.status, "kind": self.kind, "message": self.message, "at": self.at}}


def status_of(error: RayprobError) -> int:
    """Return the HTTP status of an error; what a request cannot correct is a 500."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, UnknownImage):
        return HTTPStatus.NOT_FOUND
    is_of_request = isinstance(error, SampleError | QueryError | LabelError | SpecError)
    return HTTPStatus.UNPROCESSABLE_ENTITY if is_of_request else HTTPStatus.INTERNAL_SERVER_ERROR
