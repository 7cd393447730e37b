"""Which certificates are accepted, the same for the load and for the control plane.

There is no way to skip verification: a measurement of a stranger is worth nothing, and the API key would go to him.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from kvbench.errors import EndpointError

if TYPE_CHECKING:
    from pathlib import Path


def context_for(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies the chain, the dates and the host name, and speaks TLS 1.2 and 1.3.

    The authorities are those of `ca_file`, or else the system's, where OpenSSL honours SSL_CERT_FILE.

    Raises:
        EndpointError: the file is missing or holds no certificate.

    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError:
        raise EndpointError(
            f"{ca_file} is not a file of certificates",
            "Name a file of certificates in PEM form in server.external.ca_file.",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # a server that asks for it is told no, in mid-answer too
    return context


def explain(error: ssl.SSLError) -> str:
    """Say why TLS could not begin or go on, without OpenSSL's names of files and functions."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"its certificate is not accepted: {why[:1].lower()}{why[1:]}"
    return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"


def remedy_for(error: ssl.SSLError) -> str:
    """Say what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "Name its authority's certificate in server.external.ca_file, and the host as the certificate does."
    return "Check the port and whether the server speaks TLS 1.2 or 1.3 there."
