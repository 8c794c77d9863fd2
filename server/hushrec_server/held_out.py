"""Whether a new model is good enough to go out, judged on histories that the shop held out.

NDCG@10 of the last event of each history after those before it, over the whole catalogue, through the chain that
devices use. A round of noise moves it a little either way, so a small loss passes; several small ones are not added up.
Knows nothing of rounds.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.engine import Engine
from hushrec.federated_counts import evaluation
from hushrec.held_out import last_of_its_own
from hushrec.own_events import Events
from hushrec.ranking import bundle_ranking
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError

__all__ = ["HeldOut"]

MOST_HISTORIES = 10_000
_NONE = "no held-out history has two events on items of the catalogue; give others"


class HeldOut:
    """A guard over held-out histories.

    Args:
        histories: Item ids of one shopper each, oldest first; items that the catalogue does not have are left out.
        most_loss: Share of the NDCG that a new model may lose.

    Raises:
        ConfigError: There are no histories or too many, or `most_loss` is no share.
    """

    def __init__(self, histories: Iterable[list[str]], *, most_loss: float = 0.02) -> None:
        checks.share(most_loss=most_loss)
        self._histories, self._most_loss = list(histories), most_loss
        if not 1 <= len(self._histories) <= MOST_HISTORIES:
            raise ConfigError(f"{len(self._histories)} histories are held out; give 1 to {MOST_HISTORIES}")

    @classmethod
    def read(cls, path: Path, *, most_loss: float = 0.02) -> "HeldOut":
        """Read them from a file: a JSON array of item ids on each line.

        Raises:
            ConfigError: It cannot be read, is empty, or a line is something else.
        """
        histories = []
        what = "the held-out histories, a JSON array of item ids on each line"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as error:
            raise ConfigError(f"{path}: does not exist; it should hold {what}") from error
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); it should hold {what}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: is no text; it should hold {what}") from error
        for number, line in enumerate(filter(str.strip, lines), start=1):
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
                raise ConfigError(f"{path}, line {number}: is no JSON array of item ids")
            histories.append(found)
        if not histories:
            raise ConfigError(f"{path}: is empty; it should hold {what}")
        return cls(histories, most_loss=most_loss)

    def check(self, bundle: Bundle) -> None:
        """Whether a bundle can be judged at all; ranks nothing.

        Raises:
            BundleError: It cannot be used.
            ConfigError: No history has two events on items of its catalogue.
        """
        hidden = bundle.manifest.model.filter_seen
        if all(last_of_its_own(events, filter_seen=hidden) is None for events in self._events(bundle)):
            raise ConfigError(_NONE)

    def ndcg(self, bundle: Bundle) -> float:
        """NDCG@10 of a bundle.

        Raises:
            BundleError: It cannot be used.
            ConfigError: No history has two events on items of its catalogue.
        """
        ranking = bundle_ranking(bundle, Engine(bundle))
        total = np.zeros(3)
        for events in self._events(bundle):
            total += evaluation(events, ranking, filter_seen=bundle.manifest.model.filter_seen)
        if not total[2]:
            raise ConfigError(_NONE)
        return float(total[1] / total[2])

    def __call__(self, old: Bundle, new: Bundle) -> str:
        """Why the new model must not go out; empty: it may.

        Raises:
            BundleError: One of them cannot be used.
            ConfigError: See `ndcg`.
        """
        before, after = self.ndcg(old), self.ndcg(new)
        if after >= before * (1 - self._most_loss):
            return ""
        return f"NDCG@10 on held-out histories would fall from {before:.4f} to {after:.4f}"

    def _events(self, bundle: Bundle) -> Iterator[Events]:
        """Each history, as far as the bundle's catalogue knows it."""
        with Catalog(bundle.path("catalog.sqlite")) as catalog:
            for history in self._histories:
                known = catalog.indexes(history)
                items = np.array([known[item] for item in history if item in known], np.int64)
                yield Events(items, np.zeros_like(items), *(np.arange(len(items)) for _ in range(2)))
