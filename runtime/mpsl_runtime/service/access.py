"""Who may ask a server of ours: anyone on this machine, elsewhere whoever has the token.

A browser on this machine is not anyone: pages of strangers can send it here under another name
(DNS rebinding), so that on the loopback the name that is asked for must be one of the loopback.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mpsl_runtime.errors import DataError, UsageError

__all__ = ["VARIABLE", "Access", "is_loopback", "parse_place", "read_token"]

VARIABLE = "MPSL_TOKEN"
_SHORTEST_TOKEN, _LARGEST_FILE = 16, 4096
_TOKEN = re.compile(rf"[!-~]{{{_SHORTEST_TOKEN},}}")
_PLACE = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>\d{1,5})")


def parse_place(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT` or `:PORT`, which is this machine's; port 0 lets the system choose.

    Raises:
        UsageError: it is none.
    """
    match = _PLACE.fullmatch(text)
    if match is None or int(match["port"]) > 65_535:
        raise UsageError(
            "not a place to listen", got=repr(text[:60]), expected="HOST:PORT", where="--serve"
        )
    return match["v6"] or match["host"] or "127.0.0.1", int(match["port"])


def is_loopback(host: str) -> bool:
    """Whether a name or number of a host is this machine's own, seen from nowhere else."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path | None) -> str | None:
    """The token in a file, else in the variable `MPSL_TOKEN`; None where there is none.

    Raises:
        DataError: the file cannot be read. UsageError: it is too short to be one.
    """
    where: object = VARIABLE if path is None else path
    if path is None:
        text = os.environ.get(VARIABLE, "")
        if not text:
            return None
    else:
        try:
            with path.open("rb") as file:
                text = file.read(_LARGEST_FILE).decode("ascii", "replace")
        except OSError as error:
            raise DataError("token cannot be read", got=error.strerror, where=path) from None
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            "not a token",
            got=f"{len(token)} characters",
            expected=f"at least {_SHORTEST_TOKEN}, printable, without blanks",
            where=where,
        )
    return token


class Access:
    """Decides about requests.

    Args:
        host: where the server listens. token: what a request must bring, if anything.

    Raises:
        UsageError: the server is seen from elsewhere, and there is no token.
    """

    def __init__(self, host: str, token: str | None) -> None:
        self._is_loopback = is_loopback(host)
        if token is None and not self._is_loopback:
            raise UsageError(
                "whoever can reach this place may read it",
                got=host,
                expected=f"a token (--token-file FILE, or {VARIABLE}), or 127.0.0.1",
                where="--serve",
            )
        self._token = None if token is None else token.encode()

    @property
    def asks_token(self) -> bool:
        """Whether a request must bring a token."""
        return self._token is not None

    def is_token(self, given: str) -> bool:
        """Whether it is the token. Compared in a time that does not tell how much is right."""
        own = self._token
        return own is None or hmac.compare_digest(given.strip().encode("utf-8", "replace"), own)

    def refuses_place(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Status and reason where a request comes by a strange name, or from a strange page."""
        host = headers.get("host", "")
        if self._is_loopback and host and not is_loopback(_name(host)):
            return 421, "not a name of this machine"
        origin = headers.get("origin")
        if origin is not None and _place(origin) != host.lower():
            return 403, "a page of another origin"
        return None

    def refuses(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Status and reason where a request is refused.

        Args:
            headers: by names in lower case.
        """
        refused = self.refuses_place(headers)
        if refused is None and self.asks_token:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not self.is_token(given):
                return 401, "a token is needed"
        return refused


def _place(origin: str) -> str | None:
    """Host and port of an `Origin:` header; None where it names none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _name(host: str) -> str:
    """The host of a `Host:` header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
