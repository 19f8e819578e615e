"""Addresses of live sources: `scheme://host:port?option=value`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from mpsl_runtime.errors import UsageError

__all__ = ["STDIN", "Address", "is_live", "parse_address"]

STDIN = "-"
_LONGEST = 1000


@dataclass(frozen=True)
class Address:
    """A parsed address.

    Attributes:
        text: as it was given, for messages.
        scheme: in lower case, such as `udp+spif`.
        host, port: of the network schemes; "" and 0 otherwise.
        place: what stands between :// and ?, as it was given (a camera's serial number).
        options: after the ?, in pairs.
    """

    text: str
    scheme: str
    host: str
    port: int
    place: str
    options: dict[str, str]

    def check_options(self, *known: str) -> None:
        """Raises UsageError for an option that the scheme does not have."""
        for name in self.options:
            if name not in known:
                raise UsageError(
                    "unknown option of an address",
                    got=repr(name),
                    expected=" ".join(known) or "none",
                    where=self.text,
                )


def is_live(source: object) -> bool:
    """True for `-` and for an address such as `udp://localhost:3333`."""
    return isinstance(source, str) and (source == STDIN or "://" in source)


def parse_address(text: str, expected: str = "scheme://host:port") -> Address:
    """Reads an address; which schemes there are, `mpsl_runtime.live.source` knows.

    Args:
        expected: in messages.

    Raises:
        UsageError: it cannot be meant.
    """
    if text == STDIN:
        return Address(text, "stdin", "", 0, "", {})
    try:
        parts = urlsplit(text[:_LONGEST])
        host, port = parts.hostname or "", parts.port or 0
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise UsageError("not a live address", got=repr(text[:80]), expected=expected) from None
    hostless = parts.scheme in ("camera", "stdin")
    bad_host = not host or ".." in host or parts.port is None or parts.path not in ("", "/")
    if not parts.scheme or len(text) > _LONGEST or parts.fragment or (bad_host and not hostless):
        raise UsageError("not a live address", got=repr(text[:80]), expected=expected)
    place = parts.netloc + parts.path
    return Address(text, parts.scheme.lower(), host, port, place, options)
