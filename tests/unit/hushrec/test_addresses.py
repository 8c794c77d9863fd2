"""A device speaks https, or http to itself."""

import pytest
from hushrec.addresses import checked_url
from hushrec_privacy.errors import ConfigError


@pytest.mark.parametrize(
    "url", ["https://shop.example", "https://shop.example:8443/learn", "http://localhost:80", "http://[::1]:8080"]
)
def test_good_addresses_are_taken(url: str) -> None:
    assert checked_url(url) == checked_url(url + "/") == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example",
        "http://shop.example",
        "http://127.0.0.1.shop.example",
        "http://localhost.shop.example",
        "http://10.0.0.1",
        "http://0.0.0.0/",
        "//127.0.0.1",
        "file:///etc/passwd",
        "https://",
        "https://:443",
        "https://shop.example:99999",
        "https://user@shop.example",
        "https://user:pass@shop.example",
        "https://shop.example/?q",
        "https://shop.example?",
        "https://shop.example/#part",
        "https://shop.example\\@evil.example",
        "https://shop.example\n",
        "https://shöp.example",
        "https://[::1",
        "https://shop.example/" + "a" * 2_000,
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        checked_url(url)


@pytest.mark.parametrize("url", ["http://localhost:80", "http://127.9.9.9/x", "http://[::1]:8/x"])
def test_this_machine_is_spoken_to_without_tls_under_each_of_its_names(url: str) -> None:
    assert checked_url(url) == url
