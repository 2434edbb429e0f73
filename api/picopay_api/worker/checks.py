"""What must hold of a ledger, as pure functions over rows that were read.

Used by the continuous auditor and by the full audit, so that both judge by the same rules. Each
function yields what is wrong; `KINDS` says what every kind of finding means.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from uuid import UUID

import msgspec

from picopay_api.engine import chain
from picopay_api.engine.chain import Row
from picopay_api.engine.commands import Posting

Legs = Counter[tuple[UUID, int, int]]

_postings_decoder = msgspec.json.Decoder(tuple[Posting, ...])


class Fault(msgspec.Struct, frozen=True):
    """Something wrong: a kind (stable word), what it is about, and a sentence."""

    kind: str
    subject: str
    detail: str


KINDS = {
    "chain_broken": "a block does not follow from the block before it, or its hash is not its own",
    "journal_changed": "the rows of a block are not those that were sealed",
    "journal_incomplete": "the journal does not hold what a commit says",
    "journal_unread": "rows of the journal belong to no commit, or commits to no block",
    "commit_differs": "a commit and the rows that came with it do not agree",
    "postings_unreadable": "the postings of a transaction cannot be read",
    "entries_differ": "the entries of a transaction are not those of its postings",
    "asset_differs": "a posting's asset is not that of its account",
    "transaction_unbalanced": "the entries of a transaction do not add up to zero per asset",
    "sequence_broken": "an account's entries are not numbered 1, 2, 3, …",
    "running_balance_wrong": "an entry's balance is not the one before it plus its change",
    "entry_without_transaction": "an entry belongs to no row of the journal",
    "entry_without_account": "an entry belongs to no account",
    "account_undescribed": "a balance belongs to no account",
    "account_without_balance": "an account has no balance",
    "balance_differs": "an account's balance is not that of its last entry",
    "floor_crossed": "an account is below its floor",
    "held_differs": "an account holds funds without an open hold",
    "asset_unbalanced": "the balances of an asset do not add up to zero",
    "reversal_differs": "a reversal and the journal do not agree",
    "reference_differs": "a reference and the journal do not agree",
    "idempotency_key_differs": "an idempotency key and the journal do not agree",
    "metadata_differs": "what metadata is found by, and the metadata itself, do not agree",
    "ledger_unknown": "there are rows of a ledger that is not there",
}
"""Every kind of finding, and what it means."""


def check_block(
    block: chain.Block, stored_hash: bytes, before: tuple[int, int, bytes], rows: Sequence[Row]
) -> Iterator[Fault]:
    """Check a block against `before` (height, last position, hash) and against its rows."""
    height, position, previous_hash = before
    subject = str(block.height)
    if (block.height, block.first_position, block.previous_hash) != (
        height + 1,
        position + 1,
        previous_hash,
    ):
        yield Fault("chain_broken", subject, f"block {subject} does not follow block {height}")
    if chain.block_hash(block) != stored_hash:
        yield Fault("chain_broken", subject, f"block {subject} has a hash that is not its own")
    if len(rows) != block.count:
        detail = f"block {subject} sealed {block.count} rows, the journal has {len(rows)} of them"
        yield Fault("journal_changed", subject, detail)
    elif block.root != chain.merkle_root(
        [chain.leaf_hash(chain.document(block.ledger, row)) for row in rows]
    ):
        detail = f"the rows of block {subject} do not give the Merkle root that was sealed"
        yield Fault("journal_changed", subject, detail)


def check_commits(commits: Iterable[Row], rows: Sequence[Row]) -> Iterator[Fault]:
    """Check that commits are there for rows, and say of them what they are: positions rest on it."""
    came: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        came[row["xid"]].append(row)
    for commit in commits:
        with_it = came[commit["xid"]]
        ids = [row["id"] for row in with_it]
        decided_at = commit["decided_at"]
        in_ms = decided_at.replace(microsecond=decided_at.microsecond // 1000 * 1000)
        if (len(ids), min(ids, default=None), max(ids, default=None)) != (
            commit["count"],
            commit["first_id"],
            commit["last_id"],
        ):
            detail = f"it tells of {commit['count']} rows, the journal has other ones ({len(ids)})"
        elif any(row["created_at"] != in_ms for row in with_it):
            detail = "it was decided at another time than its rows"
        else:
            continue
        yield Fault("commit_differs", f"{commit['cluster']}/{commit['xid']}", detail)


def check_rows(
    rows: Sequence[Row], entries: Sequence[Row], assets: Mapping[UUID, str]
) -> Iterator[Fault]:
    """Check that each journal row has the entries of its postings, and that they cancel out."""
    booked: defaultdict[UUID, Legs] = defaultdict(Counter)
    times: defaultdict[UUID, set[datetime]] = defaultdict(set)
    for entry in entries:
        side = (entry["account_id"], entry["posted_minor"], entry["held_minor"])
        booked[entry["journal_id"]][side] += 1
        times[entry["journal_id"]].add(entry["created_at"])
    for row in rows:
        yield from _check_row(row, booked[row["id"]], assets)
        if times[row["id"]] - {row["created_at"]}:
            detail = "its entries were booked at another time"
            yield Fault("entries_differ", f"tx_{row['id'].hex}", detail)


def _check_row(row: Row, booked: Legs, assets: Mapping[UUID, str]) -> Iterator[Fault]:
    id, subject = row["id"], f"tx_{row['id'].hex}"
    try:
        postings = _postings_decoder.decode(row["postings"])
    except msgspec.MsgspecError as error:
        yield Fault("postings_unreadable", subject, f"{id}: {error}")
        return
    wanted: Legs = Counter()
    for posting in postings:
        wanted[posting.source, -posting.amount, 0] += 1
        wanted[posting.destination, posting.amount, 0] += 1
        for account in (posting.source, posting.destination):
            if assets.get(account) != posting.asset:
                holds = assets.get(account, "nothing")
                detail = f"{posting.asset} was booked on {account}, which holds {holds}"
                yield Fault("asset_differs", subject, detail)
    if not booked or wanted != booked:
        detail = f"{wanted.total()} entries follow from the postings, {booked.total()} were found"
        if wanted.total() == booked.total():
            detail = "the entries move other amounts or other accounts than the postings"
        yield Fault("entries_differ", subject, detail)
    sums: Counter[str] = Counter()
    for (account, posted_minor, _), times in booked.items():
        sums[assets.get(account, "?")] += posted_minor * times
    for asset, total in sums.items():
        if total:
            yield Fault("transaction_unbalanced", subject, f"the entries add up to {total} {asset}")


def check_running(entries: Iterable[Row]) -> Iterator[Fault]:
    """Check that each entry follows from the one before it on its account.

    Entries come ordered by account, time and sequence. A `base` is an entry that is only read for
    what follows it; without one, an account begins at number 1.
    """
    for _, lines in groupby(entries, key=lambda entry: entry["account_id"]):
        last: Row | None = None
        for entry in lines:
            if not entry["base"]:
                yield from check_step(last, entry)
            last = entry


def check_step(last: Row | None, entry: Row) -> Iterator[Fault]:
    """Check that an entry follows from the one before it on its account, if any."""
    subject = f"acct_{entry['account_id'].hex}"
    sequence = last["sequence"] if last else 0
    posted_minor = last["posted_after_minor"] if last else 0
    held_minor = last["held_after_minor"] if last else 0
    if entry["sequence"] != sequence + 1:
        detail = f"entry {entry['sequence']} comes after entry {sequence}"
        yield Fault("sequence_broken", subject, detail)
    elif (entry["posted_after_minor"], entry["held_after_minor"]) != (
        posted_minor + entry["posted_minor"],
        held_minor + entry["held_minor"],
    ):
        detail = f"entry {entry['sequence']} does not add up with the balance before it"
        yield Fault("running_balance_wrong", subject, detail)


def check_known(entries: Iterable[Row], known: set[UUID]) -> Iterator[Fault]:
    """Check that entries belong to journal rows, of which `known` are there."""
    for id in sorted({entry["journal_id"] for entry in entries} - known):
        detail = "there are entries of it, but it is not in the journal"
        yield Fault("entry_without_transaction", f"tx_{id.hex}", detail)


def check_account(row: Row) -> Iterator[Fault]:
    """Check a balance against its last entry, its floor and its description."""
    subject = f"acct_{row['account_id'].hex}"
    there = (row["sequence"], row["posted_minor"], row["held_minor"])
    booked = (
        row["last_sequence"] or 0,
        row["posted_after_minor"] or 0,
        row["held_after_minor"] or 0,
    )
    if row["booked_at"] is not None and row["changed_at"] != row["booked_at"]:
        yield Fault(
            "balance_differs", subject, "it was changed at another time than its last entry"
        )
    if there != booked:
        detail = (
            f"the balance is {there[1]} (held {there[2]}) after entry {there[0]}; "
            f"the last entry is {booked[0]} with {booked[1]} (held {booked[2]})"
        )
        yield Fault("balance_differs", subject, detail)
    available_minor, floor_minor = row["posted_minor"] - row["held_minor"], row["floor_minor"]
    if floor_minor is not None and available_minor < floor_minor:
        yield Fault("floor_crossed", subject, f"{available_minor} is below {floor_minor}")
    if row["held_minor"] != 0:
        yield Fault("held_differs", subject, f"{row['held_minor']} are held, without an open hold")
    if not row["described"]:
        yield Fault("account_undescribed", subject, "there is a balance, but no account")
    if row["journal_id"] is not None and not row["known"]:
        detail = "there is an entry of it, but it is not in the journal"
        yield Fault("entry_without_transaction", f"tx_{row['journal_id'].hex}", detail)


def check_sums(sums: Mapping[str, int]) -> Iterator[Fault]:
    """Check that all balances of each asset, the outside world's included, add up to zero."""
    for asset, total in sums.items():
        if total:
            yield Fault("asset_unbalanced", asset, f"all balances of {asset} add up to {total}")
