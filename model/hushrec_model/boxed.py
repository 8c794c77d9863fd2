"""Where the data sets in the box are. `python benchmarks/box_data.py` makes them; each has an ATTRIBUTION.md."""

from importlib.resources import as_file, files
from pathlib import Path

from hushrec_privacy import checks

__all__ = ["BOXED", "boxed_events", "boxed_items"]

BOXED = ("online_retail", "eshop_clothing_2008")


def boxed_events(name: str) -> Path:
    """The events file of a boxed data set.

    Raises:
        ConfigError: No set of that name is in the box.

    >>> boxed_events("online_retail").name
    'events.parquet'
    """
    return _file(name, "events.parquet")


def boxed_items(name: str) -> Path:
    """The items file of a boxed data set.

    Raises:
        ConfigError: No set of that name is in the box.

    >>> boxed_items("eshop_clothing_2008").name
    'items.parquet'
    """
    return _file(name, "items.parquet")


def _file(name: str, file: str) -> Path:
    checks.one_of(BOXED, name=name)
    with as_file(files("hushrec_model") / "data" / name / file) as path:  # installed packages are folders, not archives
        return path
