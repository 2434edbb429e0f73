"""What an operator is set up by: one frozen struct, and the only reader of the environment."""

import socket
from collections.abc import Mapping
from importlib.metadata import version

from msgspec import Struct

from picopay_operator.plan.outcome import Release

_IMAGE = "picopay/picopay-api"
_POSTGRES_IMAGE = "docker.io/library/postgres"
_PREFIX = "PICOPAY_OPERATOR_"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


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
        namespaces = read.text("PICOPAY_OPERATOR_NAMESPACES", "")
        settings = cls(
            namespaces=tuple(one.strip() for one in namespaces.split(",") if one.strip()),
            api_image=read.text("PICOPAY_OPERATOR_API_IMAGE", _IMAGE),
            postgres_image=read.text("PICOPAY_OPERATOR_POSTGRES_IMAGE", _POSTGRES_IMAGE),
            port=read.number("PICOPAY_OPERATOR_PORT", 8080, 0, 65_535),
            resync_s=read.number("PICOPAY_OPERATOR_RESYNC_S", 300, 10, 86_400),
            workers=read.number("PICOPAY_OPERATOR_WORKERS", 8, 1, 64),
            pod_name=read.text("POD_NAME", socket.gethostname()),
            pod_namespace=read.text("POD_NAMESPACE", "default"),
            account=read.text("PICOPAY_OPERATOR_SERVICE_ACCOUNT", "picopay-operator"),
            log_level=read.one_of("LOG_LEVEL", "INFO", _LEVELS),
            log_format=read.one_of("PICOPAY_LOG_FORMAT", "json", ("json", "text")),
        )
        read.conclude()
        return settings


class _Reader:
    """Reads variables, and keeps what is wrong for the end, so that all of it is told at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._wrong: list[str] = []
        self._known: set[str] = set()

    def text(self, name: str, default: str) -> str:
        self._known.add(name)
        return self._environment.get(name, "").strip() or default

    def number(self, name: str, default: int, least: int, most: int) -> int:
        text = self.text(name, str(default))
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        self._wrong.append(f"{name} must be a whole number from {least} to {most}, not {text!r}")
        return default

    def one_of(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        text = self.text(name, default)
        if text not in choices:
            self._wrong.append(f"{name} must be one of {', '.join(choices)}, not {text!r}")
        return text

    def conclude(self) -> None:
        unknown = [
            name
            for name in self._environment
            if name.startswith(_PREFIX) and name not in self._known
        ]
        self._wrong += [f"{name} is no setting" for name in sorted(unknown)]
        if self._wrong:
            raise SettingsError("; ".join(self._wrong))
