"""What `picopay up` says when it is ready: where it is, the key, and a first payment to try.

Every line that can be copied is one that works; the tests run them. One line each, so that nothing
breaks when it is copied from a narrow terminal.
"""

import json
import shlex
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from picopay_api.cli.bootstrap import SAMPLE_ACCOUNTS, SAMPLE_ASSET, SAMPLE_FUNDS_MINOR
from picopay_api.cli.console import console

_FIRST_AMOUNT_MINOR = 1_250


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to tell about a running PicoPay."""

    url: str
    api_key: str
    database_url: str
    directory: Path

    def facts(self, pid: int) -> dict[str, Any]:
        """Return what programs need."""
        return {
            "url": self.url,
            "api_key": self.api_key,
            "pid": pid,
            "database_url": self.database_url,
        }

    def show(self) -> None:
        """Tell people."""
        payer, payee = SAMPLE_ACCOUNTS
        funds = f"{SAMPLE_FUNDS_MINOR / 100:,.2f} {SAMPLE_ASSET}"
        amount = f"{_FIRST_AMOUNT_MINOR / 100:,.2f} {SAMPLE_ASSET}"
        text = Text.assemble(
            ("\nPicoPay is ready.\n\n", "bold green"),
            ("  URL      ", "bold"),
            f"{self.url}\n",
            ("  Docs     ", "bold"),
            f"{self.url}/docs\n",
            ("  API key  ", "bold"),
            f"{self.api_key}\n",
            ("  Data     ", "bold"),
            f"{self.directory}\n\n",
            (f"The accounts @{payer} and @{payee} hold {funds} each. ", ""),
            (f"A first payment, {amount} from one to the other:\n\n", ""),
            (f"{self.first_payment()}\n\n", "cyan"),
            (f"And the statement of @{payee}:\n\n", ""),
            (f"{self.statement()}\n\n", "cyan"),
            ("Ctrl-C stops PicoPay; the data stays.\n", ""),
        )
        console().print(text, soft_wrap=True)

    def first_payment(self) -> str:
        """Return a command line that pays."""
        payer, payee = SAMPLE_ACCOUNTS
        body = {
            "source": f"@{payer}",
            "destination": f"@{payee}",
            "amount": _FIRST_AMOUNT_MINOR,
            "asset": SAMPLE_ASSET,
        }
        headers = ("Idempotency-Key: first-payment", "Content-Type: application/json")
        return self._curl("/v1/payments", *headers) + f" -d {shlex.quote(json.dumps(body))}"

    def statement(self) -> str:
        """Return a command line that shows what came in."""
        return self._curl(f"/v1/accounts/@{SAMPLE_ACCOUNTS[1]}/entries")

    def _curl(self, path: str, *headers: str) -> str:
        every = (f"Authorization: Bearer {self.api_key}", *headers)
        shown = " ".join(f"-H {shlex.quote(header)}" for header in every)
        return f"curl -sS {self.url}{path} {shown}"
