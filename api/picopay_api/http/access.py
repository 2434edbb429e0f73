"""Who asks, and how often: the API key of a request, and the requests that each key has left.

Used by `operations.py` before anything of the request is read.
"""

from time import monotonic
from uuid import UUID

import msgspec

from picopay_api.engine.ids import API_KEY, format_id
from picopay_api.engine.keys import Keys, Principal
from picopay_api.errors import ApiKeyInvalid, AuthenticationRequired, RateLimited
from picopay_api.http.headers import AGAIN, Headers
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import AUTHENTICATION_FAILURES, RATE_LIMITED

_SECRET_LENGTH_MAX = 200
_WINDOWS_MAX = 10_000

_log = get_logger(__name__)


async def authenticate(keys: Keys, headers: Headers) -> Principal:
    """Find out who asks, by `Authorization: Bearer ppk_…` or `X-API-Key: ppk_…`.

    Raises:
        AuthenticationRequired: there is no key.
        ApiKeyInvalid: the key is unknown, expired or revoked, or there are two different ones.
        RateLimited: too many requests came with keys that are nobody's.
    """
    try:
        return await keys.authenticate(_secret(headers))
    except (AuthenticationRequired, ApiKeyInvalid) as error:
        AUTHENTICATION_FAILURES.inc()
        _log.info(Event.AUTHENTICATION_FAILED, code=error.code)
        raise
    except RateLimited:
        RATE_LIMITED.inc()
        raise


def _secret(headers: Headers) -> str:
    sent = headers.get(b"authorization", b"")
    if sent[:7] == b"Bearer " and AGAIN not in sent and b"x-api-key" not in headers:
        found = {sent[7:].strip()}  # as nearly everybody sends it
    else:
        found = _secrets(headers)
    if not found:
        raise AuthenticationRequired("send `Authorization: Bearer ppk_…` or `X-API-Key: ppk_…`")
    if len(found) > 1:
        raise ApiKeyInvalid("two different API keys were sent")
    (secret,) = found
    if not 0 < len(secret) <= _SECRET_LENGTH_MAX:
        raise ApiKeyInvalid("the API key is unknown, expired or revoked")
    return secret.decode("latin-1")


def _secrets(headers: Headers) -> set[bytes]:
    found: set[bytes] = set()
    for value in headers.get(b"authorization", b"").split(AGAIN):
        scheme, _, secret = value.strip().partition(b" ")
        if scheme.lower() == b"bearer":
            found.add(secret.strip())
    if b"x-api-key" in headers:
        found.update(value.strip() for value in headers[b"x-api-key"].split(AGAIN))
    return found


class _Window(msgspec.Struct):
    """The requests of a key since a moment (monotonic seconds)."""

    began_s: float
    requests: int = 0


class RateLimiter:
    """Counts the requests of each key in fixed windows, in this process."""

    def __init__(self, requests_max: int, window_s: int) -> None:
        self._requests_max = requests_max
        self._window_s = window_s
        self._windows: dict[UUID, _Window] = {}
        policy = f'"default";q={requests_max};w={window_s}'
        self._policy = (b"ratelimit-policy", policy.encode())

    def admit(self, principal: Principal, headers: list[tuple[bytes, bytes]]) -> None:
        """Count a request, and add the headers that tell what is left (IETF draft, RateLimit).

        Raises:
            RateLimited: nothing was left.
        """
        now_s = monotonic()
        window = self._windows.get(principal.key)
        if window is None or now_s - window.began_s >= self._window_s:
            if len(self._windows) >= _WINDOWS_MAX:
                self._forget(now_s)
            window = self._windows[principal.key] = _Window(now_s)
        window.requests += 1
        left = self._requests_max - window.requests
        resets_s = max(1, round(self._window_s - (now_s - window.began_s)))
        headers.append(self._policy)
        headers.append((b"ratelimit", b'"default";r=%d;t=%d' % (max(0, left), resets_s)))
        if left >= 0:
            return
        RATE_LIMITED.inc()
        if left == -1:
            _log.info(
                Event.RATE_LIMITED, ledger=principal.ledger, key=format_id(API_KEY, principal.key)
            )
        raise RateLimited(
            f"this API key may make {self._requests_max} requests in {self._window_s} s",
            retry_after_s=resets_s,
        )

    def _forget(self, now_s: float) -> None:
        """Drop the windows that are over; when none is, all of them: better than without bound."""
        current = {
            key: window
            for key, window in self._windows.items()
            if now_s - window.began_s < self._window_s
        }
        self._windows = current if len(current) < _WINDOWS_MAX else {}
