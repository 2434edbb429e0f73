"""The ports in the address of a database, for network policies. Pure; nothing else of it is looked at.

Called where Secrets are read. What an address looks like is the API's affair: a URL, `key=value` words, or
the JSON of RDS. What is not understood has no ports, and a policy then names none.
"""

import json
import re
from urllib.parse import urlsplit

_DEFAULT = 5432
_WORD = re.compile(r"(?:^|\s)port\s*=\s*'?([0-9,]+)'?")
_URL = re.compile(r"postgres(ql)?(\+\w+)?://")


def ports(address: str) -> tuple[int, ...]:
    """Return the ports in an address, or nothing when it is none."""
    address = address.strip()
    if _URL.match(address):
        try:
            hosts = urlsplit(address).netloc.rpartition("@")[2].split(",")
        except ValueError:  # half of a bracket
            return ()
        found = [re.search(r":([0-9]+)$", host) for host in hosts]
        return _valid([one[1] if one else str(_DEFAULT) for one in found])
    if address.startswith("{"):
        try:
            said = json.loads(address)
        except ValueError:
            return ()
        return _valid([str(said.get("port", _DEFAULT))]) if "host" in said else ()
    if "=" in address and re.search(r"(?:^|\s)(host|hostaddr)\s*=", address):
        word = _WORD.search(address)
        return _valid(word[1].split(",") if word else [str(_DEFAULT)])
    return ()


def _valid(found: list[str]) -> tuple[int, ...]:
    known = {int(one) for one in found if one.isdigit() and 0 < int(one) <= 65_535}
    return tuple(sorted(known)) if len(known) == len(set(found)) else ()
