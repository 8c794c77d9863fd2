"""Any interleaving of any operations through any number of handles leaves what a plain list of rules would leave."""

import tempfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hushrec_privacy.canonical import add_decimals, decimal, decode, encode, float_text, float_text_up
from hushrec_privacy.errors import BudgetError, HushrecError
from hushrec_privacy.ledger import Ledger, LedgerStore, Limits, MemoryLedgerStore, SqliteLedgerStore, verify
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.ledger_plans import made_up_plan, plan_id

NAMES = ("one", "two", "three")
AMOUNTS = st.sampled_from(["0", "0.1", "0.2", "0.25", "0.7", "1"])
ROUNDS = st.integers(1, 14)


class Model:
    """The rules written again as plainly as possible: every spent round is one element of a list."""

    def __init__(self, lifetime: Fraction | None) -> None:
        self.lifetime = lifetime
        self.limits: dict[str, Limits] = {}
        self.closed: set[str] = set()
        self.rounds: dict[str, list[int]] = {}
        self.rho: dict[str, Fraction] = {}
        self.entries = 1

    def open(self, name: str, limits: Limits) -> bool:
        if name in self.limits:
            return self.limits[name] == limits
        self.limits[name], self.rounds[name], self.rho[name] = limits, [], Fraction(0)
        self.entries += 1
        return True

    def close(self, name: str) -> bool:
        if name not in self.limits or name in self.closed:
            return False
        self.closed.add(name)
        self.entries += 1
        return True

    def spend(self, name: str, first: int, last: int, rho: str | None) -> bool:
        if name not in self.limits or name in self.closed:
            return False
        limits = self.limits[name]
        rounds = [*self.rounds[name], *range(first, last + 1)]
        total = self.rho[name] + Fraction(rho or "0")
        everything = sum(self.rho.values()) + Fraction(rho or "0")
        allowed = (
            all(after - before >= limits.separation for before, after in pairwise(rounds))
            and max(rounds) <= limits.max_rounds
            and len(rounds) <= (limits.cap or len(rounds))
            and (limits.max_rho is None or (rho is not None and total <= Fraction(limits.max_rho)))
            and (self.lifetime is None or (rho is not None and everything <= self.lifetime))
        )
        if allowed:
            self.rounds[name], self.rho[name] = rounds, total
            self.entries += 1
        return allowed


class LedgerAgainstModel(RuleBasedStateMachine):
    """Two handles on one store, and a third that is opened anew now and then."""

    store: LedgerStore
    model: Model
    handles: list[Ledger]

    def new_store(self) -> LedgerStore:
        return MemoryLedgerStore()

    @initialize(lifetime=st.sampled_from([None, "1", "2.05"]))
    def begin(self, lifetime: str | None) -> None:
        self.store = self.new_store()
        self.handles = [Ledger.begin(self.store, lifetime_rho=lifetime), Ledger(self.store)]
        self.model = Model(None if lifetime is None else Fraction(lifetime))

    @rule(handle=st.sampled_from([0, 1]))
    def open_again(self, handle: int) -> None:
        self.handles[handle] = Ledger(self.store, anchor=self.handles[1 - handle].anchor())

    @rule(
        handle=st.sampled_from([0, 1]),
        name=st.sampled_from(NAMES),
        limits=st.builds(
            Limits,
            max_rounds=st.integers(1, 14),
            cap=st.none() | st.integers(1, 6),
            separation=st.integers(1, 3),
            max_rho=st.none() | AMOUNTS,
        ),
    )
    def open_plan(self, handle: int, name: str, limits: Limits) -> None:
        plan = made_up_plan(name, limits=limits)
        self.expect(self.model.open(name, limits), lambda: self.handles[handle].open_plan(plan))

    @rule(handle=st.sampled_from([0, 1]), name=st.sampled_from(NAMES))
    def close_plan(self, handle: int, name: str) -> None:
        self.expect(self.model.close(name), lambda: self.handles[handle].close_plan(plan_id(name)))

    @rule(
        handle=st.sampled_from([0, 1]),
        name=st.sampled_from(NAMES),
        first=ROUNDS,
        more=st.sampled_from([0, 0, 0, 1, 3]),
        rho=st.none() | AMOUNTS,
    )
    def spend(self, handle: int, name: str, first: int, more: int, rho: str | None) -> None:
        def spend() -> None:
            self.handles[handle].spend(plan_id(name), first, first + more, rho=rho)

        self.expect(self.model.spend(name, first, first + more, rho), spend)

    @precondition(lambda self: bool(self.model.limits))
    @rule(handle=st.sampled_from([0, 1]), first=ROUNDS, rho=st.none() | AMOUNTS)
    def try_dry(self, handle: int, first: int, rho: str | None) -> None:
        name = next(iter(self.model.limits))
        before = list(self.store.scan())
        try:
            self.handles[handle].spend(plan_id(name), first, rho=rho, dry_run=True)
            allowed = True
        except BudgetError:
            allowed = False
        assert list(self.store.scan()) == before
        assert self.model.spend(name, first, first, rho) == allowed
        if allowed:  # the model has counted it, so the ledger must too
            self.handles[handle].spend(plan_id(name), first, rho=rho)

    def expect(self, allowed: bool, use: object) -> None:
        before = list(self.store.scan())
        if allowed:
            use()  # type: ignore[operator]
            return
        with pytest.raises(BudgetError):
            use()  # type: ignore[operator]
        assert list(self.store.scan()) == before

    @invariant()
    def the_ledger_counts_what_the_model_counts(self) -> None:
        for totals in (self.handles[0].totals(), self.handles[1].totals(), verify(self.store)):
            assert totals.entries == self.model.entries
            assert Fraction(totals.rho) == sum(self.model.rho.values())
            assert set(totals.plans) == {plan_id(name) for name in self.model.limits}
            for name, rounds in self.model.rounds.items():
                plan = totals.plans[plan_id(name)]
                assert (plan.rounds, plan.last) == (len(rounds), max(rounds, default=0))
                assert Fraction(plan.rho) == self.model.rho[name]
                assert plan.closed == (name in self.model.closed)


class SqliteAgainstModel(LedgerAgainstModel):
    """The same with the file."""

    def new_store(self) -> LedgerStore:
        self.folder = tempfile.TemporaryDirectory()
        return SqliteLedgerStore.create(Path(self.folder.name) / "ledger.sqlite")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


TestLedgerAgainstModel = LedgerAgainstModel.TestCase
TestSqliteAgainstModel = SqliteAgainstModel.TestCase
TestSqliteAgainstModel.settings = settings(max_examples=10, stateful_step_count=20)

VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcXYZ_ -./{}", min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_canonical_json_reads_back_and_has_one_writing(value: object) -> None:
    data = encode(value)
    assert decode(data) == value
    assert encode(decode(data)) == data


@given(VALUES, st.data())
def test_a_changed_byte_is_another_value_or_refused(value: object, chosen: st.DataObject) -> None:
    data = encode(value)
    place = chosen.draw(st.integers(0, len(data) - 1))
    changed = data[:place] + bytes([chosen.draw(st.integers(0, 255))]) + data[place + 1 :]
    try:
        again = decode(changed)
    except HushrecError:
        return
    assert encode(again) == changed


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_are_the_one_writing(data: bytes) -> None:
    try:
        value = decode(data)
    except HushrecError:
        return
    assert encode(value) == data


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_float_as_a_decimal_is_the_float_and_rounded_up_is_not_below(value: float) -> None:
    assert float(float_text(value)) == value
    assert Fraction(value) <= Fraction(decimal(float_text_up(value))) <= Fraction(value) * (1 + Fraction(1, 10**16))


@given(st.lists(st.floats(min_value=0, allow_nan=False, allow_infinity=False), max_size=5))
def test_sums_of_decimals_are_exact(values: list[float]) -> None:
    texts = [float_text(value) for value in values]
    assert Fraction(add_decimals(*texts)) == sum(map(Fraction, texts))
