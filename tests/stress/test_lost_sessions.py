"""Sessions that are lost at any moment, under two committers that are asked the same: once is once."""

import asyncio
import random
from uuid import UUID

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Command
from picopay_api.engine.committer import Committer
from picopay_api.errors import InsufficientFunds, UnavailableError
from picopay_api.worker.audit_all import audit_everything
from support.committing import Desk, again, committing
from support.journal import Book
from support.proxy import Proxy, proxied

CUTS = 20
CLIENTS = 12
PAYMENTS_EACH_MIN = 20  # and more until the last cut, so that every cut meets some of them


class Payer:
    """Pays through one of the committers, and asks again when it is told to."""

    def __init__(self, committers: list[Committer]) -> None:
        self._committers = committers
        self.told: dict[str, set[str]] = {}
        self.new: dict[str, int] = {}

    async def pay(self, book: Book, accounts: list[UUID], until: "asyncio.Task[None]") -> None:
        """Pay one after the other, each through both committers at once, until a task is done."""
        paid = 0
        while paid < PAYMENTS_EACH_MIN or not until.done():
            source, destination = random.sample(accounts, 2)
            payment = book.payment(source, destination, random.randrange(1, 300))
            await asyncio.gather(
                *[self._until_told(committer, again(payment)) for committer in self._committers]
            )
            paid += 1

    async def _until_told(self, committer: Committer, payment: Command) -> None:
        key = str(payment.key)
        for _ in range(1_000):
            try:
                outcome = await committer.submit(again(payment))
            except InsufficientFunds as refusal:
                told, replayed = refusal.code, refusal.replayed
            except UnavailableError:
                continue
            else:
                told, replayed = str(outcome.id), outcome.replayed
            self.told.setdefault(key, set()).add(told)
            self.new[key] = self.new.get(key, 0) + (not replayed)
            return
        raise AssertionError("it is never told")


async def cut_on(proxy: Proxy) -> None:
    """Lose sessions again and again; at times, what was asked arrives and the answer does not."""
    for _ in range(CUTS):
        await asyncio.sleep(random.uniform(0.02, 0.2))
        if random.random() < 0.5:
            proxy.mute()
            await asyncio.sleep(random.uniform(0.001, 0.02))
        await proxy.cut()


async def test_what_is_lost_at_any_moment_is_done_once(database_url: DatabaseUrl) -> None:
    async with (
        proxied(database_url) as proxy,
        committing(database_url, proxy.url) as desk,
        committing(database_url, proxy.url) as other,
    ):
        accounts = [await desk.book.account() for _ in range(4)]
        await desk.submit_all(*[desk.book.payment(desk.book.world, a, 500) for a in accounts])
        payer = Payer([desk.committer, other.committer])
        async with asyncio.TaskGroup() as group:
            chaos = group.create_task(cut_on(proxy))
            for _ in range(CLIENTS):
                group.create_task(payer.pay(desk.book, accounts, chaos))
        await check(desk, payer)
        assert "unreachable" in desk.delivery.reasons + other.delivery.reasons


async def check(desk: Desk, payer: Payer) -> None:
    """Each key was told one outcome, at most once as new; the journal says the same."""
    assert all(len(outcomes) == 1 for outcomes in payer.told.values())
    paid = {key for key, (told,) in payer.told.items() if told != InsufficientFunds.code}
    assert 0 < len(paid) < len(payer.told)
    # A refusal has no id: told by two processes at the same moment, both may take it for theirs.
    assert all(payer.new[key] <= 1 for key in paid)
    for key, (told,) in payer.told.items():
        rows = await desk.rows_of(key)
        assert [str(id) for id in rows] == ([told] if key in paid else [])
    assert await audit_everything(desk.book.database, lambda _: None) == []
