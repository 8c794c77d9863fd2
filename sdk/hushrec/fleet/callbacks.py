"""What an app gives, checked: arguments when the client is made, and what its functions do whenever they are called.

A function that fails is told by its name and the type of its error: the error's own text may hold a token.
"""

from collections.abc import Callable
from typing import TypeVar

from hushrec_privacy.errors import ConfigError, HushrecError

__all__ = ["CallbackError", "called", "checked_callable", "checked_kind"]

_Found = TypeVar("_Found")


class CallbackError(RuntimeError):
    """A function that the app gave raised an error, its cause, or gave what it must not. Holds nothing of the app's."""


def checked_kind(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """Refuse an argument of another kind.

    Raises:
        ConfigError: It is one; names the argument, and what to pass.

    >>> checked_kind("trust", "fleet.json", dict, "FleetFile.read(Path(...))")
    Traceback (most recent call last):
    ...
    hushrec_privacy.errors.ConfigError: trust is a str; pass FleetFile.read(Path(...))
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is a {type(value).__name__}; pass {wanted}")


def checked_callable(name: str, value: object, wanted: str) -> None:
    """Refuse an argument that cannot be called.

    Raises:
        ConfigError: It cannot; names the argument, and what to pass.
    """
    if not callable(value):
        raise ConfigError(f"{name} is a {type(value).__name__}, which cannot be called; pass {wanted}")


def called(name: str, function: Callable[..., _Found], kind: type[_Found], *arguments: object) -> _Found:
    """Call a function of the app's.

    Raises:
        CallbackError: It raised an error, or gave something of another kind.
        HushrecError: It raised one: that is a refusal, and passes.
    """
    try:
        found = function(*arguments)
    except HushrecError:
        raise
    except Exception as error:
        raise CallbackError(f"{name}, which the app gave, raised {type(error).__name__}") from error
    if not isinstance(found, kind):
        raise CallbackError(f"{name}, which the app gave, must give a {kind.__name__}, not a {type(found).__name__}")
    return found
