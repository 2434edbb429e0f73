"""So many requests for each API key in each window, and headers that tell how many are left."""

import asyncio
import re

from picopay_api.database_url import DatabaseUrl
from support.api import as_key, served
from support.waiting import eventually


async def test_each_key_has_a_rate_of_its_own(database_url: DatabaseUrl) -> None:
    async with served(database_url, rate_limit_requests=6, rate_limit_window_s=3_600) as api:
        one, two = [await api.secret("payments:read") for _ in range(2)]
        answers = [
            await api.client.get(path, headers=as_key(one))
            for path in (
                "/v1/payments",
                "/v1/accounts",  # 403: it lacks the scope
                "/v1/payments/pay_1",  # 404
                "/v1/payments?limit=0",  # 400
                "/v1/payments",
                "/v1/payments",
                "/v1/payments",
                "/v1/accounts",
            )
        ]
        assert [answer.status_code for answer in answers] == [
            200,
            403,
            404,
            400,
            200,
            200,
            429,
            429,
        ]
        left = []
        for answer in answers:
            assert answer.headers["RateLimit-Policy"] == '"default";q=6;w=3600'
            found = re.fullmatch(r'"default";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
            assert found
            left.append(int(found[1]))
            assert 1 <= int(found[2]) <= 3_600
            if answer.status_code == 429:
                assert answer.headers["Retry-After"] == found[2]
                assert answer.json()["code"] == "rate_limited"
                assert answer.json()["retry_after_s"] == int(found[2])
            else:
                assert "Retry-After" not in answer.headers
        assert left == [5, 4, 3, 2, 1, 0, 0, 0]
        assert (await api.client.get("/v1/payments", headers=as_key(two))).status_code == 200
        # What needs no key has no rate, and a wrong key uses up nobody's.
        for path in ("/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/no"):
            answer = await api.client.get(path, headers=as_key(one))
            assert answer.status_code in {200, 404}
            assert "RateLimit" not in answer.headers
        wrong = await api.client.get("/v1/payments", headers=as_key(one + "0"))
        assert wrong.status_code == 401
        assert "RateLimit" not in wrong.headers


async def test_a_window_ends_and_another_one_begins(database_url: DatabaseUrl) -> None:
    async with served(database_url, rate_limit_requests=2, rate_limit_window_s=1) as api:
        secret = await api.secret("payments:read")

        async def statuses() -> list[int]:
            return [
                (await api.client.get("/v1/payments", headers=as_key(secret))).status_code
                for _ in range(4)
            ]

        async def used_up() -> bool:
            return (await statuses())[-1] == 429

        async def open_again() -> bool:
            answer = await api.client.get("/v1/payments", headers=as_key(secret))
            return answer.status_code == 200 and answer.headers["RateLimit"] == '"default";r=1;t=1'

        await eventually(used_up)
        await eventually(open_again)
        await eventually(used_up)


async def test_requests_at_once_are_counted_one_by_one(database_url: DatabaseUrl) -> None:
    async with served(database_url, rate_limit_requests=5, rate_limit_window_s=3_600) as api:
        secret = await api.secret("payments:read")
        calls = (api.client.get("/v1/payments", headers=as_key(secret)) for _ in range(12))
        answers = await asyncio.gather(*calls)
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 7
