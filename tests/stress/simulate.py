"""Starts the bank simulation for a chosen time: `make simulate`, or this file with `--help`.

Exits with 0 when everything added up and agreed with what the clients were told, and with 1 otherwise.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    """Read the options, run the simulation, print what happened."""
    from support.bank import Plan, bank

    parser = argparse.ArgumentParser(prog="make simulate ARGS=…", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, help="what happens follows from it (default: any)")
    parser.add_argument("--servers", type=int, default=3, help="server processes (default: 3)")
    parser.add_argument("--clients", type=int, default=12, help="clients (default: 12)")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    plan = Plan(
        seed=seed,
        seconds=options.minutes * 60,
        servers=options.servers,
        clients=options.clients,
        rest_max_s=3,
    )
    began_s = time.monotonic()

    def report(sentence: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f} s  {sentence}", flush=True)

    async def simulate(directory: Path) -> list[str]:
        async with bank(plan, directory) as town:
            outcome = await town.live(report)
        report(f"deaths: {dict(sorted(outcome.deaths.items()))}")
        report(
            f"{outcome.operations} operations, {outcome.replays} replays, {outcome.readings}"
            f" readings; {outcome.asked_again} times asked again; {outcome.checks} checks"
        )
        report(f"told: {dict(outcome.told.most_common())}")
        return outcome.wrong

    print(f"seed {seed}")
    directory = Path(tempfile.mkdtemp(prefix="picopay-bank-"))
    wrong = asyncio.run(simulate(directory))
    for sentence in wrong[:100]:
        print(f"WRONG: {sentence}")
    if wrong:
        print(f"{len(wrong)} faults; logs and data are in {directory}")
        return 1
    shutil.rmtree(directory)
    print("everything adds up, and agrees with what the clients were told")
    return 0


if __name__ == "__main__":
    # Found as `support.…` below tests/ and as `picopay_api` below api/, like everything in the tests.
    root = Path(__file__).resolve().parents[2]
    sys.path[:1] = [str(root / "tests"), str(root / "api")]
    sys.exit(main())
