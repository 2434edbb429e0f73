"""The operations of the event feed and of the audit."""

from picopay_api.engine.ids import EVENT
from picopay_api.errors import EventNotFound
from picopay_api.http import answers, parameters
from picopay_api.http.operations import Call, Reply, operation


@operation(
    "GET",
    "/v1/events",
    scope="events:read",
    answer=answers.Events,
    parameters=(parameters.AFTER, parameters.LIMIT),
)
async def list_events(call: Call) -> Reply:
    """Read the event feed.

    Events come in the order of their `position`: nothing is skipped and nothing comes twice. Keep
    `next_after` with what you did about the events, and ask again with `?after=`.
    """
    after, limit = call.query.get("after", 0), call.query.get("limit", parameters.LIMIT_DEFAULT)
    found = await call.engine.events.list(call.ledger, after, limit + 1)
    return Reply(body=answers.events(found, after, limit))


@operation(
    "GET",
    "/v1/events/{event}",
    scope="events:read",
    answer=answers.Event,
    errors=(EventNotFound,),
)
async def get_event(call: Call) -> Reply:
    """Get an event."""
    id = call.id("event", EVENT, EventNotFound)
    return Reply(body=answers.event(await call.engine.events.get(call.ledger, id)))


@operation("GET", "/v1/audit", scope="audit:read", answer=answers.Audit)
async def get_audit(call: Call) -> Reply:
    """Get the state of the auditor.

    It follows the journal and checks sums, balances, floors and the hash chain. `findings` is empty
    and every sum is zero, or something is very wrong.
    """
    return Reply(body=answers.audit(await call.engine.audit.state(call.ledger)))


OPERATIONS = (list_events, get_event, get_audit)
