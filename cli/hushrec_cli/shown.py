"""A recommendation as plain values: what `hushrec recommend` prints and what the demo's device process hands back.

Imports only the device runtime.
"""

from typing import Any

from hushrec import Reason, Recommendation, Recommender

__all__ = ["recommendation_row"]


def recommendation_row(shop: Recommender, found: Recommendation) -> dict[str, Any]:
    """One recommendation with everything a person wants to see.

    Args:
        shop: The recommender that it came from.
        found: One entry of its list.

    Returns:
        "item", "title", "price" (None if the shop gave none), "score", "reason" in words, "reason_code" and
        "reason_items".
    """
    item = shop.catalog.get(found.item)
    return {
        "item": found.item,
        "title": item.title if item is not None else None,
        "price": item.price if item is not None else None,
        "score": round(found.score, 4),
        "reason": _reason_text(shop, found.reason),
        "reason_code": found.reason.code.value,
        "reason_items": list(found.reason.items),
    }


def _reason_text(shop: Recommender, reason: Reason) -> str:
    from hushrec.reasons import TEMPLATES

    return TEMPLATES[reason.code].format(items=", ".join(_title(shop, item) for item in reason.items))


def _title(shop: Recommender, item: str) -> str:
    known = shop.catalog.get(item)
    return known.title if known is not None and known.title else item
