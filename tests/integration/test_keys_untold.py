"""API keys are told to nobody: not by a log at its most talkative, and not by how close a guess was."""

import asyncio
import hashlib
from pathlib import Path

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.keys import new_secret
from support.api import Api, as_key, served
from support.fleet import Member, fleet

CHARACTERS_OF_A_SECRET_MAX = 12  # in a row; its last four are its hint, and shown


async def raw(member: Member, request: bytes) -> None:
    """Send bytes as they are and wait for the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", member.port)
    writer.write(request)
    writer.write_eof()
    await asyncio.wait_for(reader.read(), 20)
    writer.close()


async def test_no_place_of_a_request_leads_a_key_into_the_log(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    async with fleet(database_url, tmp_path, 1, LOG_LEVEL="DEBUG") as [member]:
        secrets = [member.client.headers["Authorization"].removeprefix("Bearer "), new_secret()]
        for secret in secrets:
            await say_everywhere(member, secret)
    text = (tmp_path / "0.log").read_text(encoding="utf-8")
    assert '"level":"debug"' in text
    for secret in secrets:
        digits = secret.removeprefix("ppk_")
        for start in range(len(digits) - CHARACTERS_OF_A_SECRET_MAX):
            part = digits[start : start + CHARACTERS_OF_A_SECRET_MAX]
            lines = [line for line in text.splitlines() if part in line]
            assert lines == []


async def say_everywhere(member: Member, secret: str) -> None:
    """Send a secret in every place that it may be put by mistake."""
    ask = member.client.request
    body = {"source": "@world", "destination": "@bob", "amount": 1, "asset": "USD"}
    headers = [
        {"Authorization": f"Basic {secret}"},
        {"Authorization": f"Digest username={secret}"},
        {"Authorization": secret},
        {"Authorization": f"bearer  {secret}x"},
        {"X-API-Key": f"{secret} {secret}"},
        {"X-API-Key": secret, "Authorization": f"Bearer {secret}y"},
        {"Cookie": f"key={secret}", "User-Agent": secret, "Referer": f"http://x/{secret}"},
        {"Request-Id": secret},
        {"Traceparent": secret},
        {"PicoPay-Version": secret},
        {"Content-Type": secret},
        {"Idempotency-Key": secret},
        {"Idempotency-Key": secret},  # a replay, which is an event
        {secret: secret},
    ]
    for each in headers:
        await ask("POST", "/v1/payments", json=body, headers=each)
        await ask("GET", "/v1/accounts", headers=each)
    for path in ("/v1/accounts/@{}", "/v1/{}", "/{}", "/v1/payments/{}", "/v1/api_keys/{}"):
        await ask("GET", path.format(secret))
    for query in ("api_key={}", "{}=1", "cursor={}", "reference={}", "metadata[key]={}"):
        await ask("GET", "/v1/accounts?" + query.format(secret))
    for number, wrong in enumerate(
        [{"secret": secret}, {**body, "source": f"@{secret}"}, {**body, secret: secret}, [secret]]
    ):
        key = {"Idempotency-Key": f"{number}"}
        await ask("POST", "/v1/payments", json=wrong, headers=key)
        await ask("POST", "/v1/api_keys", json=wrong, headers=key)
    word = secret.encode()
    for request in (
        b"GET /livez HTTP/1.1\r\nAuthorization Bearer %s\r\n\r\n" % word,
        b"GET /%s\r\n\r\n" % word,
        b"%s\r\n\r\n" % word,
        b"%s / HTTP/1.1\r\n\r\n" % word,
        b"POST /v1/payments HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n" % word,
    ):
        await raw(member, request)


async def test_a_guess_is_told_nothing_of_how_close_it_was(database_url: DatabaseUrl) -> None:
    """What is compared is a hash: by a dictionary here, by a unique index in the database.

    So there is no comparison whose length could be measured: a guess that is right but for its last
    digit has another hash from its first bit on.
    """
    async with served(database_url) as api:
        secret = await api.secret("payments:read")
        assert (await api.client.get("/v1/payments", headers=as_key(secret))).status_code == 200
        guesses = [
            secret[:-1],
            secret[:-1] + ("0" if secret[-1] != "0" else "1"),
            secret + "0",
            secret.upper(),
            "ppk_" + "0" * 64,
            hashlib.sha256(secret.encode()).hexdigest(),
        ]
        answers = [await told(api, guess) for guess in guesses]
        assert answers == [answers[0]] * len(guesses)
        stored = await api.engine.database.rows("SELECT hash FROM picopay.api_key")
        assert hashlib.sha256(secret.encode()).digest() in {row["hash"] for row in stored}


async def told(api: Api, guess: str) -> tuple[int, dict[str, object]]:
    """Return what a guess is answered, but for what is another in each answer."""
    answer = await api.client.get("/v1/payments", headers=as_key(guess))
    assert answer.status_code == 401
    problem = answer.json()
    del problem["request_id"]
    return answer.status_code, problem
