"""How often one may ask: a burst, a rate, each for itself, and never more buckets than allowed."""

import pytest
from hushrec_privacy.errors import ConfigError
from hushrec_server.rates import TokenBuckets, address_key


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    clock = Clock()
    buckets = TokenBuckets(per_minute=60, burst=3, clock=clock)
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 1, 1]
    clock.now = 1.0
    assert (buckets.take("a"), buckets.take("a")) == (0, 1)
    clock.now = 1_000.0
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1]


def test_keys_do_not_share() -> None:
    buckets = TokenBuckets(per_minute=1, burst=1, clock=Clock())
    assert (buckets.take("a"), buckets.take("b")) == (0, 0)
    assert (buckets.take("a"), buckets.take("b")) == (60, 60)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    clock = Clock()
    clock.now = 100.0
    buckets = TokenBuckets(per_minute=60, burst=1, clock=clock)
    assert buckets.take("a") == 0
    clock.now = 50.0
    assert buckets.take("a") > 0


def test_there_are_never_more_buckets_than_allowed_and_the_busiest_stay() -> None:
    buckets = TokenBuckets(per_minute=1, burst=1, clock=Clock(), most=100)
    for n in range(10_000):
        buckets.take("busy")
        buckets.take(f"key {n}")
    assert len(buckets) == 100
    assert buckets.take("busy") > 0


@pytest.mark.parametrize("wrong", [{"per_minute": 0}, {"per_minute": float("nan")}, {"burst": 0}, {"most": 0}])
def test_senseless_limits_are_refused(wrong: dict[str, float]) -> None:
    values: dict[str, float] = {"per_minute": 60, "burst": 1, **wrong}
    with pytest.raises(ConfigError):
        TokenBuckets(clock=Clock(), **values)  # type: ignore[arg-type]


def test_an_address_is_one_ipv4_or_one_ipv6_network() -> None:
    assert address_key("198.51.100.7") == "198.51.100.7"
    assert address_key("2001:db8:1:2:ffff::1") == address_key("2001:db8:1:2::9") == "2001:db8:1:2::"
    assert address_key("2001:db8:1:3::1") != address_key("2001:db8:1:2::1")
    assert len(address_key("x" * 10_000)) == 64


def test_ipv4_addresses_on_an_ipv6_socket_do_not_share_a_limit() -> None:
    assert address_key("::ffff:198.51.100.7") == address_key("198.51.100.7")
    assert address_key("::ffff:198.51.100.8") != address_key("::ffff:198.51.100.7")
