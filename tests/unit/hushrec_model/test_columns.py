"""Columns are found by obvious names, by being told, and never by luck."""

import pytest
from hushrec_model.columns import check_roles, find_roles
from hushrec_privacy.errors import ConfigError, DataError


def found(kind: str, names: list[str], **told: str) -> dict[str, str]:
    columns = {role.replace("__", "."): column for role, column in told.items()}
    return find_roles(kind, "log.csv", names, columns, required=("item",))


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["user_pseudo_id", "item_id", "event_timestamp", "event_name", "ga_session_id"],
         {"user": "user_pseudo_id", "item": "item_id", "time": "event_timestamp", "behavior": "event_name",
          "session": "ga_session_id"}),
        (["invoice", "stock_code", "description", "quantity", "invoice_time", "unit_price", "customer_id"],
         {"user": "customer_id", "item": "stock_code", "time": "invoice_time", "price": "unit_price",
          "quantity": "quantity"}),
        (["timestamp", "visitorid", "event", "itemid", "transactionid"],
         {"user": "visitorid", "item": "itemid", "time": "timestamp", "behavior": "event"}),
        (["Customer ID", "SKU"], {"user": "Customer ID", "item": "SKU"}),
    ],
)  # fmt: skip
def test_logs_of_known_shops_need_no_telling(names: list[str], roles: dict[str, str]) -> None:
    assert found("events", names) == roles


def test_the_plain_name_wins_over_a_longer_one() -> None:
    assert found("events", ["user_id", "user", "item", "date", "time"]) == {
        "user": "user",
        "item": "item",
        "time": "time",
    }


def test_what_is_told_wins_over_the_plain_name() -> None:
    assert found("events", ["user", "who", "item"], user="who")["user"] == "who"


def test_a_role_of_both_files_holds_where_the_column_is() -> None:
    assert found("items", ["id", "name"], item="sku") == {"item": "id", "title": "name"}
    assert found("events", ["user", "sku"], item="sku")["item"] == "sku"


def test_a_role_can_be_told_for_one_file() -> None:
    told = {"items__price": "rrp", "events__price": "paid"}
    assert found("items", ["item", "price", "rrp"], **told)["price"] == "rrp"
    assert found("events", ["user", "item", "price", "paid"], **told)["price"] == "paid"


def test_a_role_told_for_one_file_must_be_there() -> None:
    with pytest.raises(DataError, match=r"log.csv has no column 'rrb' for the price \(did you mean 'rrp'\?\)"):
        found("items", ["item", "rrp"], items__price="rrb")


def test_roles_are_checked_before_files_are_opened() -> None:
    with pytest.raises(ConfigError, match=r"'prize' is no role of a column; .*did you mean 'price'"):
        check_roles({"prize": "rrp"})
