"""What an operator is set up by: one frozen struct, and the only reader of the environment.

`VARIABLES` says what there is to set: the help of the command line and the reference are made from it.
"""

import socket
from collections.abc import Mapping
from importlib.metadata import version
from typing import NamedTuple

from msgspec import Struct

from picopay_operator.plan.outcome import Release

_IMAGE = "picopay/picopay-api"
_POSTGRES_IMAGE = "docker.io/library/postgres"
_PREFIX = "PICOPAY_OPERATOR_"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMATS = ("json", "text")


class Variable(NamedTuple):
    """A variable of the environment: what it is when it is not set, and what it is for."""

    default: str
    meaning: str


VARIABLES = {
    "PICOPAY_OPERATOR_NAMESPACES": Variable(
        "", "Namespaces to look after, separated by commas; all when there are none."
    ),
    "PICOPAY_OPERATOR_API_IMAGE": Variable(
        _IMAGE, "The image of the API, with or without a tag, for engines that name none."
    ),
    "PICOPAY_OPERATOR_POSTGRES_IMAGE": Variable(
        _POSTGRES_IMAGE, "The image of PostgreSQL, without a tag, for databases in the cluster."
    ),
    "PICOPAY_OPERATOR_PORT": Variable(
        "8080", "The port of its metrics and probes; 0 for any that is free."
    ),
    "PICOPAY_OPERATOR_RESYNC_S": Variable(
        "300", "After how many seconds an engine is looked at in any case."
    ),
    "PICOPAY_OPERATOR_WORKERS": Variable("8", "How many engines are looked at at a time."),
    "PICOPAY_OPERATOR_SERVICE_ACCOUNT": Variable(
        "picopay-operator", "The service account that it runs as."
    ),
    "POD_NAME": Variable("", "By what it is told from others; the name of the host when empty."),
    "POD_NAMESPACE": Variable("default", "Where it runs and has its Lease."),
    "LOG_LEVEL": Variable("INFO", f"The least that is logged: {', '.join(_LEVELS)}."),
    "PICOPAY_LOG_FORMAT": Variable("json", f"The form of the log: {', '.join(_FORMATS)}."),
}
"""What can be set, and what it is for."""


class SettingsError(ValueError):
    """The environment is wrong; the message lists all that is."""


class Settings(Struct, frozen=True):
    """The settings of an operator.

    `namespaces` are those that are watched, all when there are none; `account` is the service account that it
    runs as, which in all namespaces gives itself the right to the Secrets of engines.
    """

    namespaces: tuple[str, ...] = ()
    api_image: str = _IMAGE
    postgres_image: str = _POSTGRES_IMAGE
    port: int = 8080
    resync_s: int = 300
    workers: int = 8
    pod_name: str = "picopay-operator"
    pod_namespace: str = "default"
    account: str = "picopay-operator"
    log_level: str = "INFO"
    log_format: str = "json"

    @property
    def release(self) -> Release:
        """What engines get that ask for nothing else."""
        return Release(version("picopay"), self.api_image, self.postgres_image)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the environment.

        Raises:
            SettingsError: a value cannot be, or a variable that begins with our prefix means nothing.
        """
        read = _Reader(environment)
        namespaces = read.text("PICOPAY_OPERATOR_NAMESPACES")
        settings = cls(
            namespaces=tuple(one.strip() for one in namespaces.split(",") if one.strip()),
            api_image=read.text("PICOPAY_OPERATOR_API_IMAGE"),
            postgres_image=read.text("PICOPAY_OPERATOR_POSTGRES_IMAGE"),
            port=read.number("PICOPAY_OPERATOR_PORT", 0, 65_535),
            resync_s=read.number("PICOPAY_OPERATOR_RESYNC_S", 10, 86_400),
            workers=read.number("PICOPAY_OPERATOR_WORKERS", 1, 64),
            pod_name=read.text("POD_NAME") or socket.gethostname(),
            pod_namespace=read.text("POD_NAMESPACE"),
            account=read.text("PICOPAY_OPERATOR_SERVICE_ACCOUNT"),
            log_level=read.one_of("LOG_LEVEL", _LEVELS),
            log_format=read.one_of("PICOPAY_LOG_FORMAT", _FORMATS),
        )
        read.conclude()
        return settings


class _Reader:
    """Reads variables, and keeps what is wrong for the end, so that all of it is told at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._wrong: list[str] = []

    def text(self, name: str) -> str:
        return self._environment.get(name, "").strip() or VARIABLES[name].default

    def number(self, name: str, least: int, most: int) -> int:
        text = self.text(name)
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        self._wrong.append(f"{name} must be a whole number from {least} to {most}, not {text!r}")
        return least

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        text = self.text(name)
        if text not in choices:
            self._wrong.append(f"{name} must be one of {', '.join(choices)}, not {text!r}")
        return text

    def conclude(self) -> None:
        unknown = [
            name for name in self._environment if name.startswith(_PREFIX) and name not in VARIABLES
        ]
        self._wrong += [f"{name} is no setting" for name in sorted(unknown)]
        if self._wrong:
            raise SettingsError("; ".join(self._wrong))
