"""`python -m picopay_operator`: settings, election, watches, metrics, until SIGTERM.

It works in a cluster or against any kubeconfig. The wiring is here and nowhere else.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from time import monotonic

from kubernetes.aio.client import Configuration

from picopay_operator import election, handlers, health, logs, metrics, names
from picopay_operator.cache import Cache, Key
from picopay_operator.census import Census
from picopay_operator.client import Client, load_configuration
from picopay_operator.cluster import Cluster
from picopay_operator.errors import OperatorError
from picopay_operator.handlers import Watch, wake_of
from picopay_operator.logs import Event
from picopay_operator.queue import WorkQueue
from picopay_operator.reconcile import Reconciler
from picopay_operator.referred_watch import ReferredWatch
from picopay_operator.resources import REFERRED
from picopay_operator.settings import VARIABLES, Settings, SettingsError

_KINDS_AFTER_S = (0.0, 1.0, 3.0, 10.0, 30.0)
"""When to look for optional kinds, after something is heard of the definition of one."""

_log = logs.get_logger(__name__)


class Operator:
    """One process: stands by, and works while it holds the Lease."""

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        take_signals: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._take_signals = take_signals
        self._configuration = configuration
        self._client = Client(configuration)
        self._lease = Key(settings.pod_namespace, names.FIELD_MANAGER)
        self._lock = election.Lock(self._lease, settings.pod_name, self._client.api)
        self._cache = Cache()
        account = Key(settings.pod_namespace, settings.account)
        self._cluster = Cluster(self._client, self._cache, account, binds=not settings.namespaces)
        self._reconcile = Reconciler(
            self._cluster, self._cache, settings.release, settings.resync_s
        )
        self._queue = WorkQueue(self._reconcile, settings.workers)
        wake = wake_of(self._cache, self._queue)
        self._referred = [ReferredWatch(kind, self._client, wake) for kind in REFERRED]
        self._watch = Watch(self._cache, self._queue, self._on_engines, self._on_kinds)
        self._census = Census(
            self._client,
            self._cache,
            settings.namespaces,
            settings.resync_s,
            self._watch.gone,
            self._queue.wake,
            self._watch.listed,
        )
        self._leads = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work, or stand by, until `stop` is set or the Lease is lost."""
        _log.info(Event.STARTED, version=self._settings.release.version)
        async with health.serving(self._settings.port, self._age_s, self._refresh):
            leading = asyncio.ensure_future(election.lead(self._lock, self._lead))
            stopping = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait({leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if leading.done():
                    leading.result()
                    if not stop.is_set():
                        raise OperatorError("the Lease was lost")
            finally:
                for task in (leading, stopping):
                    task.cancel()
                await asyncio.gather(leading, stopping, return_exceptions=True)
                for referred in self._referred:
                    await referred.close()
                await self._client.close()

    async def _lead(self) -> None:
        await self._cluster.until_served()
        self._leads = True
        self._watch.echo_s = monotonic()
        metrics.LEADER.set(1)
        _log.info(Event.LEADING, identity=self._settings.pod_name)
        watching = handlers.watch(
            self._watch,
            self._configuration,
            self._lease,
            self._settings.namespaces,
            self._take_signals,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(watching)
                await self._census.prime()
                group.create_task(self._queue.run())
                group.create_task(self._census.run())
        finally:
            self._leads = False
            metrics.LEADER.set(0)
            _log.info(Event.STOPPED_LEADING)

    def _on_engines(self) -> None:
        for referred in self._referred:
            referred.follow(self._cache.referring(referred.kind))

    def _on_kinds(self) -> None:
        """Have all engines looked at, now and in a while: a kind is defined before it is served."""
        for delay_s in _KINDS_AFTER_S:
            asyncio.get_running_loop().call_later(delay_s, self._look_for_kinds)

    def _look_for_kinds(self) -> None:
        self._reconcile.forget_kinds()
        for key in list(self._cache.engines):
            self._queue.wake_afresh(key)

    def _age_s(self) -> float:
        """Return how long ago there was the last sign that this process is of use."""
        echoes = handlers.echoes(self._lease, self._settings.namespaces)
        return monotonic() - (
            self._watch.echo_s if self._leads and echoes else self._lock.answered_s
        )

    def _refresh(self) -> None:
        metrics.QUEUE_DEPTH.set(self._queue.depth)
        metrics.QUEUE_OLDEST_SECONDS.set(self._queue.oldest_s)
        metrics.EVENT_AGE_SECONDS.set(self._age_s())
        metrics.ENGINES.set(len(self._cache.engines))
        metrics.REQUESTS.set(self._client.requests)


async def _main(settings: Settings) -> None:
    stop = asyncio.Event()

    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    take_signals()
    await Operator(settings, await load_configuration(), take_signals).run(stop)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the operator; exit with 3 for wrong settings, with 1 when it cannot go on."""
    _parser().parse_args(arguments)
    try:
        settings = Settings.of(os.environ)
    except SettingsError as error:
        sys.exit(_told(error, 3))
    logs.configure(settings.log_level, settings.log_format)
    try:
        asyncio.run(_main(settings))
    except* OperatorError as errors:
        sys.exit(_told(errors.exceptions[0], 1))


def _parser() -> argparse.ArgumentParser:
    """Return what understands the command line: there is nothing to say on it, and something to ask."""
    variables = "\n".join(
        f"  {name}{f' ({one.default})' if one.default else ''}\n      {one.meaning}"
        for name, one in VARIABLES.items()
    )
    made = argparse.ArgumentParser(
        prog="python -m picopay_operator",
        description="Look after the PicoPayEngines of the cluster that this runs in, or that of KUBECONFIG.",
        epilog=f"It is set up by its environment:\n{variables}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=version("picopay"))
    return made


def _told(error: Exception, code: int) -> int:
    sys.stderr.write(f"picopay-operator: {error}\n")
    return code


if __name__ == "__main__":
    main()
