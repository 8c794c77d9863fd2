"""Names of behaviours that mean the same become one."""

import pytest
from hushrec.behaviors import canonical_behavior


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("view", "view"),
        ("view_item", "view"),
        ("add_to_cart", "cart"),
        ("addtocart", "cart"),
        ("purchase", "purchase"),
        ("transaction", "purchase"),
        ("add_to_wishlist", "wishlist"),
        (" Add_To_Cart ", "cart"),
        ("gift-wrap", "gift-wrap"),
        ("", ""),
    ],
)
def test_aliases_become_one_name_and_others_stay(given: str, ours: str) -> None:
    assert canonical_behavior(given) == ours
    assert canonical_behavior(ours) == ours
