"""Which folders are a server's, so that no authority's keys come to lie in one.

Whoever has both the authority's keys and the server can make up devices, and no sum is one of many then.
"""

from pathlib import Path

from hushrec_privacy.errors import ConfigError

from hushrec_server.data_folder import ADMIN_TOKEN, SEAL_KEY

__all__ = ["check_data_folder", "refuse_data_folder"]


def check_data_folder(folder: Path) -> None:
    """Refuse a folder that no server has prepared.

    Raises:
        ConfigError: It is none; says how one is made.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder; name the server's data folder")
    if not _is_data_folder(folder):
        raise ConfigError(
            f"{folder}: is no server's data folder, since it has no {ADMIN_TOKEN}; hushrec serve makes one at its "
            "first start, with the first envelope key in it"
        )


def refuse_data_folder(folder: Path) -> None:
    """Refuse a server's data folder, and every folder in one, as a place for an authority.

    Raises:
        ConfigError: It is one; names it.
    """
    place = folder.resolve()
    for each in (place, *place.parents):
        if _is_data_folder(each):
            raise ConfigError(
                f"{folder}: no authority is made in {each}, a server's data folder: whoever has both can make up "
                "devices. Make it on another machine, best of all another company's"
            )


def _is_data_folder(folder: Path) -> bool:
    return any((folder / name).exists() for name in (ADMIN_TOKEN, SEAL_KEY))
