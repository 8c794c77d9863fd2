"""Which reverse proxies are believed when they say whom they speak for."""

import ipaddress
from collections.abc import Iterable

from hushrec_privacy.errors import ConfigError

__all__ = ["checked_proxies"]


def checked_proxies(given: Iterable[str]) -> tuple[str, ...]:
    """Addresses and networks of proxies, as they are.

    Anything else would be believed of nobody, and every device would count as the proxy's one address; "*" would let
    each request choose its own.

    Raises:
        ConfigError: One is neither; names it.

    >>> checked_proxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])
    ('127.0.0.1', '10.0.0.0/8', '2001:db8::/32')
    """
    proxies = tuple(given)
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise ConfigError(
                f"the proxy {proxy!r} is no address or network; write one such as 127.0.0.1 or 10.0.0.0/8"
                f"{_meant(proxy)}"
            ) from error
    return proxies


def _meant(proxy: str) -> str:
    """What a network with too many bits was meant to be, if it is one."""
    try:
        return f", here perhaps {ipaddress.ip_network(proxy, strict=False)}"
    except ValueError:
        return ""
