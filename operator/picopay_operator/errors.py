"""What can go wrong between the operator and the API server: a small tree. Standard library only.

`reconcile.py` catches all of it: what is wrong is shown on the engine, and tried again later.
"""


class OperatorError(Exception):
    """Anything that keeps a reconcile from its end; the message is for people."""


class ConfigurationError(OperatorError):
    """Which API server is meant cannot be found out."""


class AdoptionRefused(OperatorError):
    """An object of a wanted name is there, and is not the engine's: it is left alone."""


class ChangesUndone(OperatorError):
    """Somebody else undoes what is applied, each time."""


class DefinitionOutdated(OperatorError):
    """The definition of `PicoPayEngine` in the cluster is of an older release than the operator."""


class SeenLate(OperatorError):
    """An object was there that the watch had not told of yet: what to do must be planned anew."""


class ApiError(OperatorError):
    """The API server has refused a request, or has not answered.

    `status` is that of HTTP, 0 without an answer; `retry_after_s` is what the server asked for.
    """

    def __init__(self, message: str, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class NotFound(ApiError):
    """There is no such object, or no such kind."""


class Conflict(ApiError):
    """Somebody else was faster, or owns the field."""


class PermissionDenied(ApiError):
    """The operator's account may not do this: its roles are not those of this release."""


class AdmissionDenied(ApiError):
    """It may, but a rule of the cluster is against it: a quota, Pod Security, a policy or a webhook."""


class FieldUnknown(ApiError):
    """The definition of a kind lacks `field`, which was to be written."""

    def __init__(self, message: str, status: int, field: str) -> None:
        super().__init__(message, status)
        self.field = field


class Terminating(ApiError):
    """The namespace is on its way out, and nothing new is taken in it."""


class Unprocessable(ApiError):
    """The API server does not take the object: what the engine asks for is not possible here."""
