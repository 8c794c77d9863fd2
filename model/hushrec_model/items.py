"""What is known of the items of a log, beside who touched them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Items"]


@dataclass(frozen=True, eq=False)
class Items:
    """Descriptions of the V items of a `Log`, in its order: entry i belongs to `Log.items[i]`.

    Attributes:
        title: Title, None where there is none, length V.
        price: In the shop's currency, NaN where unknown, shape (V,).
        attributes: Values by column (category, brand and what else was named), a tuple an item, empty if it has none.
        vectors: Vectors that the shop brought, zeros where there is none, shape (V, M); None without such a column.
        price_from_events: Whether a price was taken from the events: then prices say something about the log.
    """

    title: list[str | None]
    price: NDArray[np.float64]
    attributes: dict[str, list[tuple[str, ...]]]
    vectors: NDArray[np.float32] | None
    price_from_events: bool = False

    def __len__(self) -> int:
        """The number of items."""
        return len(self.title)
