"""Clients of the bank: each asks for whatever comes into its mind and writes down what it was told.

Used by `bank.py`. A client that is not answered, or is told to come back, asks again with the same key,
of any process, until it knows; so does the one whose process was killed.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec

from support.bank_history import OK, History, Move, Operation, Reading, Replay, StateChange
from support.fleet import Member
from support.waiting import PROMPT_S

_DONE_KEPT = 200
_PAUSE_S = 0.05
_FIRST_FUNDS_MINOR = 20_000
_ASK_AGAIN = ("idempotency_key_in_flight",)


class Town(msgspec.Struct):
    """What all clients know and have seen."""

    accounts: list[str]
    history: History
    by_id: dict[str, str]
    """Accounts by their ids."""

    calm: asyncio.Event
    """Cleared while the books are looked at."""

    busy: int = 0
    lost: int = 0
    """How often an answer did not come, or was to come back later."""

    def moving(self) -> int:
        """Return how many operations have been answered."""
        return len(self.history.operations)


class Client:
    """One client; what it does follows from the seed, what it is told does not."""

    def __init__(self, number: int, seed: int, town: Town, members: Sequence[Member]) -> None:
        self._number = number
        self._chance = random.Random(f"{seed}-client-{number}")
        self._town = town
        self._members = members
        self._asked = 0
        self._mine: list[str] = []  # accounts that nobody else freezes or closes
        self._state: dict[str, str] = {}
        self._done: list[tuple[str, dict[str, Any], Operation]] = []
        self._deeds = {
            self._pay: 40,
            self._transact: 14,
            self._reverse: 9,
            self._ask_the_same: 9,
            self._ask_another: 4,
            self._look: 14,
            self._dry_run: 4,
            self._open_an_account: 2,
            self._freeze_or_unfreeze: 4,
            self._close: 1,
        }

    async def settle(self) -> None:
        """Open a first account, with money from the world."""
        await self._open_an_account()
        move = ("world", self._mine[0], _FIRST_FUNDS_MINOR)
        await self._order("/v1/payments", _posting(move), (move,))

    async def live(self, ended: asyncio.Event) -> None:
        """Do one thing after the other until the end; `settle` first."""
        while not ended.is_set():
            await self._town.calm.wait()
            (deed,) = self._chance.choices(list(self._deeds), list(self._deeds.values()))
            self._town.busy += 1
            try:
                await deed()
            finally:
                self._town.busy -= 1
            await asyncio.sleep(self._chance.uniform(0, _PAUSE_S))

    async def _pay(self) -> None:
        move = self._move()
        await self._order("/v1/payments", _posting(move), (move,))

    async def _transact(self) -> None:
        moves = tuple(self._move() for _ in range(self._chance.randint(1, 4)))
        body = {"postings": [_posting(move) for move in moves]}
        await self._order("/v1/transactions", body, moves)

    async def _reverse(self) -> None:
        booked = [one for _, _, one in self._done if one.told == OK and one.reverses is None]
        if not booked:
            return
        one = self._chance.choice(booked)
        moves = tuple((there, here, amount) for here, there, amount in reversed(one.moves))
        path = f"/v1/transactions/tx_{one.id}/reverse"
        await self._order(path, {}, moves, reverses=one.id)

    async def _ask_the_same(self) -> None:
        if self._done:
            path, body, one = self._chance.choice(self._done)
            await self._ask_once_more(path, body, one, same=True)

    async def _ask_another(self) -> None:
        if self._done:
            path, _, one = self._chance.choice(self._done)
            await self._ask_once_more(path, _another(path, one), one, same=False)

    async def _look(self) -> None:
        account = self._chance.choice(self._town.accounts)
        sent, answered, answer = await self._ask("GET", f"/v1/accounts/@{account}/balance")
        assert answer.status_code == 200, answer.text
        balance = int(answer.json()["balance"]["posted"])
        self._town.history.readings.append(
            Reading(sent=sent, answered=answered, account=account, balance=balance)
        )

    async def _dry_run(self) -> None:
        body = {"postings": [_posting(self._move())], "dry_run": True}
        _, _, answer = await self._ask("POST", "/v1/transactions", body)
        assert answer.status_code in {200, 422}, answer.text

    async def _open_an_account(self) -> None:
        name = f"account-{self._number}-{len(self._mine)}"
        body = {"reference": name, "asset": "USD"}
        key = f"{name}-key"
        _, _, answer = await self._ask("POST", "/v1/accounts", body, key)
        assert answer.status_code == 201, answer.text
        self._town.by_id[answer.json()["id"]] = name
        self._town.accounts.append(name)
        self._mine.append(name)
        self._state[name] = "open"
        _, _, again = await self._ask("POST", "/v1/accounts", body, key)
        assert again.json()["id"] == answer.json()["id"]

    async def _freeze_or_unfreeze(self) -> None:
        account = self._chance.choice(self._mine)
        if self._state[account] == "open":
            await self._change(account, "freeze", "frozen")
            # It stays so for a moment only: a town of frozen accounts sees nothing happen.
            await asyncio.sleep(self._chance.uniform(0, 0.2))
            await self._change(account, "unfreeze", "open")

    async def _close(self) -> None:
        account = self._chance.choice(self._mine)
        if len(self._mine) > 2:
            await self._change(account, "close", "closed")

    async def _change(self, account: str, verb: str, state: str) -> None:
        path = f"/v1/accounts/@{account}/{verb}"
        sent, answered, answer = await self._ask("POST", path)
        if answer.status_code == 200:
            self._state[account] = state
            self._town.history.states.append(
                StateChange(sent=sent, answered=answered, account=account, state=state)
            )
        else:
            assert answer.json()["code"] in {"account_not_empty", "account_state_conflict"}

    def _move(self) -> Move:
        """Choose who pays whom; one account is everybody's."""
        accounts = self._town.accounts
        hot = accounts[:1] if self._chance.random() < 0.3 else accounts
        source = "world" if self._chance.random() < 0.2 else self._chance.choice(hot)
        others = [each for each in accounts if each != source]
        return source, self._chance.choice(others), self._chance.randrange(1, 2_000)

    async def _order(
        self, path: str, body: dict[str, Any], moves: tuple[Move, ...], reverses: str | None = None
    ) -> None:
        self._asked += 1
        key = f"client-{self._number}-{self._asked}"
        sent, answered, answer = await self._ask("POST", path, body, key)
        told, id = _told(answer)
        said = answer.json()
        lacking = told == "insufficient_funds"
        operation = Operation(
            sent=sent,
            answered=answered,
            key=key,
            moves=moves,
            told=told,
            id=id,
            reverses=reverses,
            account=self._town.by_id[said["account"]] if lacking else None,
            available=int(said["available"]) if lacking else None,
        )
        self._town.history.operations.append(operation)
        self._done.append((path, body, operation))
        del self._done[:-_DONE_KEPT]

    async def _ask_once_more(
        self, path: str, body: dict[str, Any], one: Operation, *, same: bool
    ) -> None:
        sent, answered, answer = await self._ask("POST", path, body, one.key)
        told, id = _told(answer)
        self._town.history.replays.append(
            Replay(sent=sent, answered=answered, key=one.key, same=same, told=told, id=id)
        )

    async def _ask(
        self, method: str, path: str, body: Any = None, key: str | None = None
    ) -> tuple[float, float, httpx.Response]:
        """Ask until there is an answer; return when it was sent first, when answered, and the answer."""
        clock = asyncio.get_running_loop().time
        headers = {} if key is None else {"Idempotency-Key": key}
        sent = clock()
        async with asyncio.timeout(PROMPT_S):
            while True:
                member = self._chance.choice(self._members)
                try:
                    answer = await member.client.request(method, path, json=body, headers=headers)
                except httpx.TransportError:
                    answer = None
                if answer is not None and not _is_to_come_back(answer):
                    return sent, clock(), answer
                self._town.lost += 1
                await asyncio.sleep(self._chance.uniform(0, 2 * _PAUSE_S))


def _another(path: str, one: Operation) -> dict[str, Any]:
    """Return another body for what was asked: with a note, which none has."""
    note = {"metadata": {"note": "another"}}
    if path.endswith("/reverse"):
        return note
    posting = _posting(one.moves[0])
    return {**posting, **note} if path == "/v1/payments" else {"postings": [posting], **note}


def _is_to_come_back(answer: httpx.Response) -> bool:
    return answer.status_code == 503 or (
        answer.status_code == 409 and answer.json()["code"] in _ASK_AGAIN
    )


def _told(answer: httpx.Response) -> tuple[str, str | None]:
    """Return `ok` and the id of what was booked, or the code of the refusal."""
    said = answer.json()
    if answer.status_code == 201:
        return OK, str(said["id"]).partition("_")[2]
    assert answer.status_code in {409, 422}, answer.text
    return str(said["code"]), None


def _posting(move: Move) -> dict[str, Any]:
    source, destination, amount = move
    return {
        "source": f"@{source}",
        "destination": f"@{destination}",
        "amount": amount,
        "asset": "USD",
    }
