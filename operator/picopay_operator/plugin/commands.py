"""The commands of `kubectl picopay`: read, ask a pure function, show or carry out what it says.

Called by `main.py`. What is to be seen or done is decided in `overview.py` and `changes.py`.
"""

import asyncio
import logging
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from picopay_operator import names
from picopay_operator.cache import Key
from picopay_operator.client import Client, load_kubeconfig
from picopay_operator.contract import ExitCode
from picopay_operator.errors import ApiError, ConfigurationError
from picopay_operator.plan.outcome import Observed
from picopay_operator.plugin import archive, bundle, changes, overview, reading, text
from picopay_operator.plugin.changes import Change, Refused
from picopay_operator.resources import RESOURCES

FIELD_MANAGER = "kubectl-picopay"

_LOOK_S = 2.0
"""How often is looked for new pods while logs are followed."""

_HTTP_UNAVAILABLE = {0, 429, 500, 502, 503, 504}


class Failed(Exception):
    """The command ends with a sentence for people and an exit code."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class Session(msgspec.Struct, frozen=True):
    """A command, the engine that it is about, and where to ask and to write."""

    given: Namespace
    client: Client
    key: Key
    out: TextIO
    paint: text.Paint

    async def observed(self) -> Observed:
        """Look at the engine."""
        return await reading.observed(self.client, self.key)

    def show(self, shown: Any, written: str) -> None:
        """Write something: as JSON where that is asked for, else the text."""
        if wants_json(self.given):
            written = msgspec.json.encode(shown).decode()
        self.out.write(f"{written}\n")
        self.out.flush()


async def run(given: Namespace, out: TextIO, *, colours: bool) -> ExitCode:
    """Carry a command out.

    Raises:
        Failed: it could not be, or was refused.
    """
    # What is wrong with a kubeconfig is told once, by us.
    logging.getLogger("kubernetes").addHandler(logging.NullHandler())
    try:
        configuration, namespace = await load_kubeconfig(given.kubeconfig, given.context)
    except ConfigurationError as error:
        raise Failed(str(error), ExitCode.CONFIGURATION) from error
    client = Client(configuration)
    key = Key(given.namespace or namespace, given.engine)
    session = Session(given, client, key, out, text.Paint(enabled=colours))
    try:
        return await _COMMANDS[given.command](session) or ExitCode.OK
    except Refused as refused:
        raise Failed(str(refused), ExitCode.REFUSED) from refused
    except ApiError as error:
        unavailable = error.status in _HTTP_UNAVAILABLE
        code = ExitCode.UNAVAILABLE if unavailable else ExitCode.REFUSED
        raise Failed(str(error), code) from error
    finally:
        await client.close()


def wants_json(given: Namespace) -> bool:
    """Tell whether a program reads what is written."""
    return getattr(given, "output", "text") == "json"


async def _status(session: Session) -> ExitCode:
    observed = await session.observed()
    shown = overview.overview(observed)
    session.show(shown, text.overview(shown, observed.now, session.paint))
    return ExitCode.FAILED if session.given.exit_code and not shown.ready else ExitCode.OK


async def _plan(session: Session) -> None:
    shown = overview.schema_plan(await session.observed())
    session.show(shown, text.schema_plan(shown, session.paint))


async def _events(session: Session) -> None:
    observed = await session.observed()
    bodies = await session.client.list_objects(RESOURCES["Event"].path(session.key.namespace))
    shown = overview.events(observed, bodies)
    session.show(shown, text.events(shown, observed.now, session.paint))


async def _keys(session: Session) -> None:
    observed = await session.observed()
    if session.given.action == "rotate":
        await _carry_out(session, changes.rotate(observed))
        return
    shown = overview.admin_key(observed)
    session.show(shown, text.admin_key(shown, session.paint))


async def _approve(session: Session) -> None:
    observed = await session.observed()
    await _carry_out(session, changes.approve(observed, session.given.plan_hash))


async def _retry(session: Session) -> None:
    await _carry_out(session, changes.retry(await session.observed()))


async def _promote(session: Session) -> None:
    await _carry_out(session, changes.promote(await session.observed()))


async def _rollback(session: Session) -> None:
    observed = await session.observed()
    await _carry_out(session, changes.rollback(observed, session.given.to))


async def _carry_out(session: Session, change: Change) -> None:
    namespace, name = session.key
    if change.patch:
        path = RESOURCES[names.KIND].path(namespace, name)
        await session.client.merge(path, change.patch, FIELD_MANAGER)
    for job in change.deleted_jobs:
        await session.client.delete(RESOURCES["Job"].path(namespace, job), None)
    session.show(change, "\n".join([change.message, *(f"  {note}" for note in change.notes)]))


async def _logs(session: Session) -> None:
    """Show the logs of all pods of a component: followed all at once, else one after the other."""
    pods = await _pods(session)
    if not pods:
        raise Refused(f"{session.key.name} has no pods of the component {session.given.component}")
    parameters = {"tailLines": str(session.given.tail), "container": session.given.component}
    if session.given.previous:
        parameters["previous"] = "true"
    if session.given.follow:
        shown = await _follow(session, pods, parameters | {"follow": "true"})
    else:
        shown = [await _log(session, pod, parameters) for pod in pods]
    if errors := [error for error in shown if error]:
        if len(errors) == len(shown):
            raise errors[0]
        # That one pod has no log (yet) says nothing about the others.
        session.out.writelines(f"{session.paint.bad(str(error))}\n" for error in errors)


async def _follow(
    session: Session, pods: Sequence[str], parameters: Mapping[str, str]
) -> list[ApiError | None]:
    """Follow the logs of pods, and of those that begin later, until all have ended.

    Return for each why it had none. A pod that has no log yet is asked again.
    """
    following: dict[str, asyncio.Task[ApiError | None]] = {}
    try:
        while True:
            known = set(following)
            for pod in pods:
                task = following.get(pod)
                if task is None or (task.done() and task.result()):
                    following[pod] = asyncio.create_task(_log(session, pod, parameters))
            _, running = await asyncio.wait(following.values(), timeout=_LOOK_S)
            if not running and known.issuperset(pods):
                return [task.result() for task in following.values()]
            pods = await _pods(session)
    finally:
        for task in following.values():
            task.cancel()
        await asyncio.gather(*following.values(), return_exceptions=True)


async def _pods(session: Session) -> list[str]:
    return await reading.pods(session.client, session.key, session.given.component)


async def _log(session: Session, pod: str, parameters: Mapping[str, str]) -> ApiError | None:
    """Write the log of a pod; return why there is none."""
    path = f"{RESOURCES['Pod'].path(session.key.namespace, pod)}/log"
    try:
        async for line in session.client.lines(path, parameters):
            session.out.write(f"{session.paint.head(pod)} {line}\n")
            session.out.flush()
    except ApiError as error:
        return error
    return None


async def _support_bundle(session: Session) -> None:
    now = datetime.now(UTC)
    path = session.given.file or archive.path(session.key, now)
    # The file first: whether it can be written is known at once then.
    with archive.created(path) as file:
        gathered = await bundle.gather(
            session.client, session.key, session.given.operator_namespace
        )
        archive.write(file, gathered, session.key, now)
    shown = archive.written(path, gathered)
    session.show(shown, text.support_bundle(shown, session.paint))


_COMMANDS: Mapping[str, Callable[[Session], Awaitable[ExitCode | None]]] = {
    "status": _status,
    "plan": _plan,
    "approve": _approve,
    "retry": _retry,
    "rollback": _rollback,
    "promote": _promote,
    "keys": _keys,
    "logs": _logs,
    "events": _events,
    "support-bundle": _support_bundle,
}
