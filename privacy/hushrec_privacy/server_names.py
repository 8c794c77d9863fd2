"""The name of an aggregation server: one form, wherever somebody writes one down."""

import re

from hushrec_privacy.errors import ConfigError

__all__ = ["SERVER_NAME", "checked_server_name"]

SERVER_NAME = r"^[a-z0-9][a-z0-9.-]{0,62}$"
_NAME = re.compile(SERVER_NAME.removesuffix("$") + r"\Z", re.ASCII)


def checked_server_name(name: str, *, what: str = "the server's name") -> str:
    """Give back a name if a server may have it.

    Args:
        name: 1 to 63 of a-z, 0-9, "." and "-"; a letter or digit first.
        what: What it is, for the message.

    Raises:
        ConfigError: It is not of this form.

    >>> checked_server_name("shop.example")
    'shop.example'
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise ConfigError(
            f"{what} is {name!r:.80}; it must be 1 to 63 of a-z, 0-9, '.' and '-', a letter or digit first, as in the "
            "server's own configuration"
        )
    return name
