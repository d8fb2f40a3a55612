"""Errors with the status and the words Qdrant answers them with."""

from __future__ import annotations


class ApiError(Exception):
    """A request that is answered with an error.

    `status` is the HTTP status; the message is the text of the reply's `status.error`.
    """

    status = 500


class NotFound(ApiError):
    """What was named does not exist."""

    status = 404

    @classmethod
    def collection(cls, name: str) -> NotFound:
        """The error for a collection that does not exist."""
        return cls(f"Not found: Collection `{name}` doesn't exist!")


class BadRequest(ApiError):
    """The request is malformed or asks for what cannot be done."""

    status = 400


class WrongInput(BadRequest):
    """The request is well formed and its content is wrong."""

    def __init__(self, detail: str) -> None:
        """`detail` follows Qdrant's prefix."""
        super().__init__(f"Wrong input: {detail}")


class Unsupported(BadRequest):
    """A Qdrant feature this process does not have."""

    def __init__(self, feature: str) -> None:
        """`feature` is the subject of the sentence."""
        super().__init__(f"Bad request: {feature} is not supported by the local Qdrant stand-in")


class Conflict(ApiError):
    """The thing to be made exists already."""

    status = 409


class Unprocessable(ApiError):
    """A value is outside its allowed range."""

    status = 422


class ServiceError(ApiError):
    """The engine or the disk failed; nothing of the request may be assumed to be stored."""

    def __init__(self, detail: str) -> None:
        """`detail` follows Qdrant's prefix."""
        super().__init__(f"Service internal error: {detail}")


class StartupError(Exception):
    """Why the process cannot start, as one sentence for a person."""
