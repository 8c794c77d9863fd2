"""A recommendation as plain values: what `hushrec recommend` prints and what the demo's device process hands back.

Imports only the device runtime.
"""

from typing import Any

from hushrec import Reason, Recommendation, Recommender

__all__ = ["item_row", "recommendation_row"]


def recommendation_row(shop: Recommender, found: Recommendation) -> dict[str, Any]:
    """One recommendation with everything a person wants to see.

    Args:
        shop: The recommender that it came from.
        found: One entry of its list.

    Returns:
        What `item_row` gives, "score", "reason" in words, "reason_code" and "reason_items".
    """
    return {
        **item_row(shop, found.item),
        "score": round(found.score, 4),
        "reason": _reason_text(shop, found.reason),
        "reason_code": found.reason.code.value,
        "reason_items": list(found.reason.items),
    }


def item_row(shop: Recommender, item: str) -> dict[str, Any]:
    """One item as plain values.

    Args:
        shop: Whose catalogue to look into.
        item: The shop's id.

    Returns:
        "item", "title" and "price" (None if the shop gave none), and "name", what to call it: its title, or else its
        category and id.
    """
    known = shop.catalog.get(item)
    if known is None:
        return {"item": item, "title": None, "price": None, "name": item}
    name = known.title or (f"{known.category} {item}" if known.category else item)
    return {"item": item, "title": known.title, "price": known.price, "name": name}


def _reason_text(shop: Recommender, reason: Reason) -> str:
    from hushrec.reasons import TEMPLATES

    return TEMPLATES[reason.code].format(items=", ".join(item_row(shop, item)["name"] for item in reason.items))
