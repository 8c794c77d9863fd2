"""Which addresses a device speaks to: https, or http to this machine itself."""

import ipaddress
from urllib.parse import urlsplit

from hushrec_privacy.errors import ConfigError

__all__ = ["checked_url", "is_loopback"]

LONGEST_URL = 2_000


def checked_url(url: str, *, name: str = "the address") -> str:
    """Give an address without the slash at its end, if a device may speak to it.

    Args:
        url: https://HOST[:PORT][/PATH]; http only where the host is this machine.
        name: What it is, for the message.

    Raises:
        ConfigError: It is not of this form, or holds a user, a password, a query or a fragment.

    >>> checked_url("https://learn.shop.example/")
    'https://learn.shop.example'
    >>> checked_url("http://127.0.0.1:8080")
    'http://127.0.0.1:8080'
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # the port is parsed when it is asked for
    except ValueError as error:
        raise ConfigError(f"{name} is no address such as https://learn.shop.example ({error})") from error
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url and len(url) <= LONGEST_URL
    if not (host and plain) or parts.username is not None or parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ConfigError(f"{name} must be like https://learn.shop.example: a host, a port and a path at most")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigError(f"{name} must begin with https://; plain http is for this machine alone")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("shop.example")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
