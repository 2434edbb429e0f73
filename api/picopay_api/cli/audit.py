"""`picopay audit`: everything of every ledger added up again, and proofs that a payment is in it.

The audit reads the database itself, whatever the servers and the continuous auditor say. A proof is
made from the database and verified without it, by whoever kept the hash of a block.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from picopay_api.cli.console import print_json, print_table
from picopay_api.cli.direct import find_ledger, settings_of_environment, with_engine
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.options import AsJson, LedgerName, examples
from picopay_api.cli.report import ReportFile, reported

if TYPE_CHECKING:
    from picopay_api.engine.audit import Finding
    from picopay_api.engine.chain import Proof
    from picopay_api.engine.engine import Engine
    from picopay_api.worker.audit_quick import QuickAudit

app = typer.Typer(add_completion=False, invoke_without_command=True)

_PROOF_BYTES_MAX = 10 * 1024 * 1024


@app.callback(
    epilog=examples(
        "picopay audit",
        "picopay audit --json",
        "picopay audit --quick --report report.json",
        "picopay audit prove pay_0198c1f2a3b47c5d8e9f0a1b2c3d4e5f > proof.json",
        "picopay audit verify proof.json --hash HASH",
    )
)
def audit(
    context: typer.Context,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Check all balances and the latest changes; not all history."),
    ] = False,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Check every balance, entry, posting and block of the database (DATABASE_URL); write nothing.

    Reads one snapshot, while payments go on. Exits with 1 when something does not add up.

    With --quick it takes seconds: balances add up to zero by ledger and asset and keep within their bounds,
    the last 2,000 or so transactions agree with them, and the continuous auditor has found nothing.
    """
    if context.invoked_subcommand is not None:
        return
    if report and not quick:
        raise CommandFailed("--report goes with --quick", ExitCode.USAGE)
    if not quick:
        findings = [_facts(finding) for finding in with_engine("auditing", _audit)]
        _tell({"findings": findings}, as_json)
        return
    with reported(report, {"findings": [], "checked": {}}) as draft:
        draft.hide(settings_of_environment())
        found = with_engine("auditing", _audit_quickly)
        facts = {"findings": [_facts(one) for one in found.findings], "checked": found.checked}
        draft.facts.update(facts)
        _tell(facts, as_json)


def _tell(facts: dict[str, Any], as_json: bool) -> None:
    findings = facts["findings"]
    if as_json:
        print_json(facts)
    elif findings:
        print_table(
            ("ledger", "kind", "subject", "detail"),
            [(f["ledger"], f["kind"], f["subject"], f["detail"]) for f in findings],
            empty="",
        )
    else:
        typer.echo("everything adds up")
    if findings:
        raise CommandFailed(f"{len(findings)} finding(s)", ExitCode.FAILED, code="audit_findings")


@app.command(
    epilog=examples(
        "picopay audit prove pay_0198c1f2a3b47c5d8e9f0a1b2c3d4e5f > proof.json",
        "picopay audit prove tx_0198c1f2a3b47c5d8e9f0a1b2c3d4e5f --ledger main",
    )
)
def prove(
    id: Annotated[str, typer.Argument(metavar="ID", help="The payment or transaction.")],
    ledger: LedgerName = "main",
) -> None:
    """Write a proof, as JSON, that a payment or transaction is in the sealed journal.

    It holds against `block_hash`, the hash of the block that the proof names; keep that hash where
    nobody who can write to the database can change it.
    """
    from picopay_api.engine import chain
    from picopay_api.engine.ids import PAYMENT, TRANSACTION, parse_id

    object_id = parse_id(PAYMENT, id) or parse_id(TRANSACTION, id)
    if object_id is None:
        raise CommandFailed(f"{id!r} is neither pay_… nor tx_…", ExitCode.USAGE)

    async def work(engine: "Engine", _: Callable[[str], None]) -> "Proof":
        return await engine.audit.proof((await find_ledger(engine, ledger)).id, object_id)

    proof = with_engine("making the proof", work)
    print_json({"block_hash": chain.block_hash(proof.block).hex(), "proof": proof})


@app.command(epilog=examples("picopay audit verify proof.json --hash HASH"))
def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `prove` wrote.", dir_okay=False)
    ],
    trusted: Annotated[
        str, typer.Option("--hash", metavar="HASH", help="The block's hash, as you have kept it.")
    ],
    as_json: AsJson = False,
) -> None:
    """Verify a proof against a hash that you trust, without a database.

    Exits with 1 when it does not hold.
    """
    from picopay_api.engine import chain

    proof = _read_proof(file)
    try:
        trusted_hash = bytes.fromhex(trusted)
    except ValueError:
        raise CommandFailed(
            f"--hash takes hexadecimal digits, not {trusted!r}", ExitCode.USAGE
        ) from None
    if not chain.verify(proof, trusted_hash):
        raise CommandFailed(
            "the proof does not hold against this hash", ExitCode.FAILED, code="proof_invalid"
        )
    document = msgspec.json.decode(proof.document)
    if as_json:
        print_json({"valid": True, "position": proof.position, "document": document})
    else:
        typer.echo(f"the proof holds: position {proof.position}, {proof.document}")


def _read_proof(file: Path) -> "Proof":
    from picopay_api.engine.chain import Proof

    try:
        with file.open("rb") as opened:
            text = opened.read(_PROOF_BYTES_MAX)
        return msgspec.convert(msgspec.json.decode(text)["proof"], Proof)
    except OSError as error:
        raise CommandFailed(
            f"{file} cannot be read: {error.strerror}", ExitCode.CONFIGURATION
        ) from error
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise CommandFailed(
            f"{file} is not what `picopay audit prove` wrote", ExitCode.CONFIGURATION
        ) from error


async def _audit(engine: "Engine", tell: Callable[[str], None]) -> "list[Finding]":
    from picopay_api.worker.audit_all import audit_everything

    return await audit_everything(engine.database, tell)


async def _audit_quickly(engine: "Engine", _: Callable[[str], None]) -> "QuickAudit":
    from picopay_api.worker.audit_quick import audit_quickly

    return await audit_quickly(engine.database)


def _facts(finding: "Finding") -> dict[str, str]:
    return {
        "ledger": f"ldg_{finding.ledger.hex}",
        "kind": finding.kind,
        "subject": finding.subject,
        "detail": finding.detail,
        "found_at": finding.found_at.isoformat(),
    }
