"""Names of kinds of event: one spelling for what shops and analytics call differently.

The GA4 names are those of Google's list of recommended e-commerce events. Training and device read names through the
same table.
"""

__all__ = ["DEFAULT_BEHAVIOR", "canonical_behavior"]

DEFAULT_BEHAVIOR = "view"

_ALIASES = {
    "view_item": "view",
    "select_item": "view",
    "click": "view",
    "add_to_cart": "cart",
    "addtocart": "cart",
    "add_to_basket": "cart",
    "add_to_wishlist": "wishlist",
    "transaction": "purchase",
    "buy": "purchase",
}


def canonical_behavior(name: str) -> str:
    """Map a GA4 or other common name of a behaviour to ours; any other name stays as it is, in lower case.

    >>> canonical_behavior("add_to_cart")
    'cart'
    >>> canonical_behavior("Gift-Wrap")
    'gift-wrap'
    """
    folded = name.strip().lower()
    return _ALIASES.get(folded, folded)
