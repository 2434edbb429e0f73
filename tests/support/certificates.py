"""Authorities of a test's own, and certificates that they give to servers. Made with `openssl`, for two days.

Used by the tests of TLS.
"""

import subprocess
from pathlib import Path
from typing import NamedTuple

_AUTHORITY = """
[req]
distinguished_name = name
x509_extensions = authority
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""

_TIMEOUT_S = 60


class Pair(NamedTuple):
    """A certificate and its key, as files in PEM."""

    certificate: Path
    key: Path


def authority(folder: Path, name: str) -> Pair:
    """Make an authority in a folder."""
    made = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    config = folder / f"{name}.cnf"
    config.write_text(_AUTHORITY.format(name=name), encoding="ascii")
    _openssl(
        *("req", "-x509", "-config", config, "-days", "2"),
        *("-newkey", "rsa:2048", "-nodes", "-keyout", made.key, "-out", made.certificate),
    )
    return made


def signed(by: Pair, folder: Path, host: str) -> Pair:
    """Make a certificate for the name of a host, signed by an authority."""
    made = Pair(folder / f"{host}.crt", folder / f"{host}.key")
    config, request = folder / f"{host}.cnf", folder / f"{host}.csr"
    config.write_text(_AUTHORITY.format(name=host), encoding="ascii")
    _openssl(
        *("req", "-new", "-config", config),
        *("-newkey", "rsa:2048", "-nodes", "-keyout", made.key, "-out", request),
    )
    extensions = folder / f"{host}.ext"
    extensions.write_text(f"subjectAltName = DNS:{host}\n", encoding="ascii")
    _openssl(
        *("x509", "-req", "-in", request, "-days", "2", "-extfile", extensions),
        *("-CA", by.certificate, "-CAkey", by.key, "-set_serial", "1", "-out", made.certificate),
    )
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=_TIMEOUT_S)
