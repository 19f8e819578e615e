"""Who may come in: which Host and Origin headers are ours, and the token.

A page of a stranger, opened in a browser of this machine, can send requests here, and by a name of
its own that leads to this address (DNS rebinding) it could read the answers. Hence: the Host must
be an address or a name of this machine, and the Origin of a socket the page that we have served.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Sequence

__all__ = ["Doors"]


class Doors:
    """See the module.

    Attributes:
        token: that a page must show, "" where none is asked for.

    Args:
        host: where the server listens: a name or an address. token: one to take, else it is made.
        more_hosts: names by which the server may be called, as behind a proxy.
    """

    def __init__(self, host: str, token: str | None = None, more_hosts: Sequence[str] = ()) -> None:
        self._is_local = is_loopback(host)
        self.token = "" if self._is_local and token is None else token or secrets.token_urlsafe(24)
        own = {"localhost", host, *more_hosts}
        if not self._is_local:
            own |= {socket.gethostname(), socket.getfqdn()}
        self._names = {name.strip("[]").lower() for name in own if name}

    def is_our_host(self, header: str) -> bool:
        """Whether a Host header names this machine."""
        name = _name_of(header)
        if name is None:
            return False
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address cannot be rebound, as a name can; but from elsewhere none leads to a loopback.
        return address.is_loopback if self._is_local else True

    def is_our_origin(self, origin: str | None, host: str) -> bool:
        """Whether a socket was opened by our page; a program that is no browser names none."""
        if origin is None:
            return True
        scheme, mark, place = origin.partition("://")
        return bool(mark) and scheme in ("http", "https") and place.lower() == host.lower()

    def is_our_token(self, token: object) -> bool:
        """Compared in a time that does not tell how much of it was right."""
        if not self.token:
            return True
        given = token if isinstance(token, str) else ""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _name_of(header: str) -> str | None:
    """The name or address of a Host header, without its port; None where it is none."""
    if len(header) > 300 or not header.isascii():
        return None
    if header.startswith("["):
        name, closed, port = header[1:].partition("]")
        if not closed or (port and not (port[0] == ":" and port[1:].isdigit())):
            return None
        return name.lower()
    name, mark, port = header.partition(":")
    if mark and not port.isdigit():
        return None
    return name.lower() or None
