"""A budget cannot be overspent: each rule refuses, without a trace."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hushrec_privacy.errors import BudgetError, ConfigError, LedgerError
from hushrec_privacy.ledger import (
    Anchor,
    Close,
    Genesis,
    Ledger,
    Limits,
    MemoryLedgerStore,
    Open,
    Record,
    Spend,
    append_entry,
    history,
    verify,
)
from hushrec_privacy.ledger.chain import next_record
from hushrec_privacy.ledger.entries import entry_bytes

from tests.ledger_plans import made_up_plan, plan_id


def begun(*plans: Open, lifetime_rho: str | None = None) -> tuple[MemoryLedgerStore, Ledger]:
    store = MemoryLedgerStore()
    ledger = Ledger.begin(store, lifetime_rho=lifetime_rho)
    for plan in plans:
        ledger.open_plan(plan)
    return store, ledger


def test_a_ledger_counts_rounds_and_adds_rho_exactly() -> None:
    one, two = made_up_plan("one"), made_up_plan("two", demo=True)
    _, ledger = begun(one, two, lifetime_rho="1")
    ledger.spend(one.plan, 1, rho="0.1")
    ledger.spend(two.plan, 5, 9, rho="0.2")
    ledger.spend(one.plan, 3, rho="0.4")
    totals = ledger.totals()
    assert (totals.rho, totals.rho_left, totals.entries, totals.demo) == ("0.7", "0.3", 6, True)
    assert (totals.unit, totals.adjacency) == ("device", "zero-out")
    assert [(plan.rounds, plan.last, plan.rho) for plan in totals.plans.values()] == [(2, 3, "0.5"), (5, 9, "0.2")]
    assert totals == ledger.verify()


def test_an_empty_ledger_has_totals_of_nothing() -> None:
    _, ledger = begun()
    totals = ledger.totals()
    assert (totals.rho, totals.rho_left, totals.entries, totals.demo) == ("0", None, 1, False)
    assert (totals.unit, totals.adjacency, totals.plans) == (None, None, {})


@pytest.mark.parametrize(
    ("limits", "spent", "asked", "message"),
    [
        (Limits(10), [(1, 1)], (1, 1), "round 1 asked for, and round 1 is spent already"),
        (Limits(10), [(3, 5)], (4, 4), "round 5 is spent already"),
        (Limits(10), [(3, 5)], (5, 9), "rounds 5 to 9 asked for"),
        (Limits(10), [(3, 5)], (1, 2), "rounds only increase"),
        (Limits(10), [], (11, 11), "ends with round 10"),
        (Limits(10), [], (10, 11), "ends with round 10"),
        (Limits(10, cap=2), [(1, 2)], (3, 3), "2 of at most 2 rounds are spent; 1 more"),
        (Limits(10, cap=2), [(1, 1)], (2, 3), "1 of at most 2 rounds are spent; 2 more"),
        (Limits(10, separation=3), [(2, 2)], (4, 4), "too soon after round 2; they must be 3 apart"),
        (Limits(10, separation=2), [], (1, 2), "at once; spent rounds must be 2 apart"),
    ],
)
def test_a_round_that_the_plan_forbids_is_refused(
    limits: Limits, spent: list[tuple[int, int]], asked: tuple[int, int], message: str
) -> None:
    plan = made_up_plan(limits=limits)
    store, ledger = begun(plan)
    for first, last in spent:
        ledger.spend(plan.plan, first, last)
    before = list(store.records)
    for dry_run in (True, False):
        with pytest.raises(BudgetError, match=message):
            ledger.spend(plan.plan, *asked, dry_run=dry_run)
    assert store.records == before


@pytest.mark.parametrize(
    ("limits", "spent", "asked"),
    [
        (Limits(10), [(3, 5)], (6, 10)),
        (Limits(10), [], (10, 10)),
        (Limits(10, cap=2), [(1, 1)], (10, 10)),
        (Limits(10, separation=3), [(2, 2)], (5, 5)),
    ],
)
def test_the_last_round_that_the_plan_allows_is_spent(
    limits: Limits, spent: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    plan = made_up_plan(limits=limits)
    _, ledger = begun(plan)
    for first, last in [*spent, asked]:
        ledger.spend(plan.plan, first, last)
    assert ledger.plan(plan.plan).last == asked[1]


@pytest.mark.parametrize(("limit", "lifetime"), [("0.3", None), (None, "0.3"), ("0.3", "9"), ("9", "0.3")])
def test_rho_reaches_its_limit_and_never_passes_it(limit: str | None, lifetime: str | None) -> None:
    plan = made_up_plan(limits=Limits(100, max_rho=limit))
    _, ledger = begun(plan, lifetime_rho=lifetime)
    for round_ in (1, 2, 3):
        ledger.spend(plan.plan, round_, rho="0.1")  # in floats the third would pass 0.3
    ledger.spend(plan.plan, 4, rho="0")
    with pytest.raises(BudgetError, match=r"ρ 0\.3 of 0\.3 is spent"):
        ledger.spend(plan.plan, 5, rho="0.00000000000000000001")
    with pytest.raises(BudgetError, match="every spend must tell its own"):
        ledger.spend(plan.plan, 5)


def test_the_lifetime_rho_is_that_of_all_plans_together() -> None:
    one, two = made_up_plan("one"), made_up_plan("two")
    _, ledger = begun(one, two, lifetime_rho="1")
    ledger.spend(one.plan, 1, rho="0.6")
    with pytest.raises(BudgetError, match="all plans together"):
        ledger.spend(two.plan, 1, rho="0.5")
    ledger.spend(two.plan, 1, rho="0.4")
    assert ledger.totals().rho_left == "0"


def test_epsilon_reaches_its_limit_never_passes_it_and_never_falls() -> None:
    plan = made_up_plan(limits=Limits(100, max_epsilon="2"))
    _, ledger = begun(plan)
    ledger.spend(plan.plan, 1, epsilon="1.5")
    for epsilon, message in (("2.1", "the limit is 2"), ("1.4", "never lowers"), (None, "must tell the ε")):
        with pytest.raises(BudgetError, match=message):
            ledger.spend(plan.plan, 2, epsilon=epsilon)
    ledger.spend(plan.plan, 2, epsilon="2")
    assert ledger.plan(plan.plan).epsilon == "2"


def test_a_plan_that_told_an_epsilon_once_tells_it_always() -> None:
    plan = made_up_plan()
    _, ledger = begun(plan)
    ledger.spend(plan.plan, 1, epsilon="1")
    with pytest.raises(BudgetError, match="must tell the ε"):
        ledger.spend(plan.plan, 2)


def test_an_unknown_and_a_closed_plan_spend_nothing() -> None:
    plan = made_up_plan()
    _, ledger = begun(plan)
    with pytest.raises(BudgetError, match="is not in this ledger"):
        ledger.spend(plan_id("other"), 1)
    with pytest.raises(BudgetError, match="is not in this ledger"):
        ledger.plan(plan_id("other"))
    ledger.close_plan(plan.plan)
    assert ledger.plan(plan.plan).rounds_left == 0
    with pytest.raises(BudgetError, match="is closed"):
        ledger.spend(plan.plan, 1)
    with pytest.raises(BudgetError, match="is closed"):
        ledger.close_plan(plan.plan)


@pytest.mark.parametrize("changed", [{"adjacency": "add-or-remove"}, {"unit": "session"}])
def test_budgets_that_cannot_be_added_are_not_put_into_one_ledger(changed: dict[str, Any]) -> None:
    _, ledger = begun(made_up_plan("one"))
    with pytest.raises(BudgetError, match="cannot be added"):
        ledger.open_plan(made_up_plan("two", **changed))
    assert ledger.totals().entries == 2


def test_a_plan_opened_twice_is_the_same_plan_or_refused() -> None:
    plan = made_up_plan(limits=Limits(2))
    _, ledger = begun(plan)
    ledger.spend(plan.plan, 1)
    ledger.open_plan(replace(plan, at_s=77))
    assert ledger.plan(plan.plan).rounds == 1
    assert ledger.totals().entries == 3
    with pytest.raises(BudgetError, match="opened once"):
        ledger.open_plan(replace(plan, limits=Limits(1_000)))


def test_a_ledger_begins_once() -> None:
    store, _ = begun(lifetime_rho="1")
    with pytest.raises(LedgerError, match="there is a ledger already"):
        Ledger.begin(store, lifetime_rho="9")
    with pytest.raises(BudgetError, match="no second one"):
        append_entry(store, Genesis("9"))
    assert verify(store).genesis == Genesis("1")


def test_a_store_without_a_first_entry_is_no_ledger() -> None:
    for use in (verify, Ledger):
        with pytest.raises(LedgerError, match="no first entry"):
            use(MemoryLedgerStore())


@pytest.mark.parametrize(
    ("limits", "spent", "left"),
    [
        (Limits(10), [], 10),
        (Limits(10), [4], 6),
        (Limits(10, cap=3), [4], 2),
        (Limits(10, cap=3), [9], 1),
        (Limits(10, separation=4), [], 3),
        (Limits(10, separation=4), [2], 2),
        (Limits(10, separation=4), [7], 0),
        (Limits(10, separation=400), [], 1),
    ],
)
def test_what_is_left_can_be_spent_and_not_one_round_more(limits: Limits, spent: list[int], left: int) -> None:
    plan = made_up_plan(limits=limits)
    _, ledger = begun(plan)
    for round_ in spent:
        ledger.spend(plan.plan, round_)
    assert ledger.plan(plan.plan).rounds_left == left
    done = 0
    for round_ in range(1, 20):
        try:
            ledger.spend(plan.plan, round_)
            done += 1
        except BudgetError:
            continue
    assert done == left


def test_a_dry_run_answers_and_leaves_no_trace() -> None:
    plan = made_up_plan(limits=Limits(1))
    store, ledger = begun()
    ledger.open_plan(plan, dry_run=True)
    assert len(store.records) == 1
    ledger.open_plan(plan)
    head = ledger.anchor()
    assert ledger.spend(plan.plan, 1, dry_run=True) == head
    assert ledger.anchor() == head
    ledger.spend(plan.plan, 1)


def test_the_clock_is_asked_for_every_entry_and_no_clock_tells_no_time() -> None:
    plan, ticks = made_up_plan(), iter(range(100, 200))
    store = MemoryLedgerStore()
    ledger = Ledger.begin(store, clock=lambda: next(ticks))
    ledger.open_plan(plan)
    ledger.spend(plan.plan, 1)
    ledger.close_plan(plan.plan)
    assert [entry.at_s for _, entry in history(store)] == [100, 101, 102, 103]
    silent, _ = begun(plan)
    assert [entry.at_s for _, entry in history(silent)] == [None, None]


def test_history_gives_each_entry_with_its_place() -> None:
    plan = made_up_plan()
    store, ledger = begun(plan)
    ledger.spend(plan.plan, 2, 3)
    ledger.close_plan(plan.plan)
    places, entries = zip(*history(store), strict=True)
    assert [place.index for place in places] == [0, 1, 2, 3]
    assert places[-1] == ledger.anchor()
    assert entries == (Genesis(), plan, Spend(plan.plan, 2, 3), Close(plan.plan))


def test_two_ledgers_over_one_store_see_what_the_other_spent() -> None:
    plan = made_up_plan()
    store, one = begun(plan)
    two = Ledger(store)
    one.spend(plan.plan, 1)
    with pytest.raises(BudgetError, match="round 1 is spent already"):
        two.spend(plan.plan, 1)
    two.spend(plan.plan, 2)
    assert one.plan(plan.plan).rounds == 2


class OvertakenStore(MemoryLedgerStore):
    """Another process spends `rounds` between the check and the write."""

    def __init__(self, records: list[Record], rounds: Iterator[int], plan: str) -> None:
        super().__init__()
        self.records, self._rounds, self._plan = records, rounds, plan

    def append(self, record: Record) -> bool:
        for round_ in self._rounds:
            spend = entry_bytes(Spend(self._plan, round_, round_))
            assert super().append(next_record(spend, self.records[-1].anchor))
            break
        return super().append(record)


def test_whoever_loses_the_race_is_checked_again() -> None:
    plan = made_up_plan()
    store, _ = begun(plan)
    overtaken = Ledger(OvertakenStore(store.records, iter([1, 2]), plan.plan))
    with pytest.raises(BudgetError, match="round 2 is spent already"):
        overtaken.spend(plan.plan, 2)
    overtaken.spend(plan.plan, 3)
    assert verify(store).plans[plan.plan].rounds == 3


def test_a_race_that_is_lost_for_ever_ends() -> None:
    plan = made_up_plan(limits=Limits(9_999))
    store, _ = begun(plan)
    overtaken = Ledger(OvertakenStore(store.records, iter(range(1, 5_000)), plan.plan))
    with pytest.raises(LedgerError, match="were faster 1000 times; nothing was written"):
        overtaken.spend(plan.plan, 9_000)
    assert overtaken.plan(plan.plan).last == 1_000


def test_an_anchor_is_one_line_of_text() -> None:
    _, ledger = begun()
    anchor = ledger.anchor()
    assert Anchor.parse(f" {anchor}\n") == anchor
    for wrong in ("", "1", "1:", f"01:{anchor.hash.hex()}", f"-1:{anchor.hash.hex()}", f"0:{anchor.hash.hex()[:-1]}"):
        with pytest.raises(ConfigError, match="anchor"):
            Anchor.parse(wrong)


def spent_ledger() -> tuple[MemoryLedgerStore, Ledger, Open]:
    plan = made_up_plan()
    store, ledger = begun(plan, lifetime_rho="9")
    for round_ in range(1, 6):
        ledger.spend(plan.plan, round_, rho="0.5")
    return store, ledger, plan


def forged(store: MemoryLedgerStore, index: int, entry: bytes) -> Record:
    """An entry with a right hash, as someone who knows the format would write it."""
    return next_record(entry, store.records[index - 1].anchor)


@pytest.mark.parametrize("index", range(7))
def test_an_entry_with_one_bit_edited_is_found(index: int) -> None:
    store, _, _ = spent_ledger()
    record = store.records[index]
    store.records[index] = replace(record, entry=record.entry[:-3] + bytes([record.entry[-3] ^ 1]) + record.entry[-2:])
    with pytest.raises(LedgerError, match=f"entry {index} of the ledger does not fit its hash"):
        verify(store)


def test_a_deleted_swapped_or_doubled_entry_is_found() -> None:
    for order in ((1, 2, 3, 4, 5, 6), (0, 1, 2, 4, 5, 6), (0, 1, 2, 3, 3, 4), (0, 1, 4, 2, 3), (6, 5, 4, 3, 2, 1, 0)):
        store, _, _ = spent_ledger()
        store.records = [store.records[index] for index in order]
        with pytest.raises(LedgerError, match="missing or not in its place"):
            verify(store)


def test_an_entry_rewritten_with_its_hash_breaks_the_next_one() -> None:
    store, _, plan = spent_ledger()
    store.records[3] = forged(store, 3, entry_bytes(Spend(plan.plan, 2, 2, "0")))
    with pytest.raises(LedgerError, match="entry 4 of the ledger does not fit its hash"):
        verify(store)


def test_swapped_contents_are_found() -> None:
    store, _, _ = spent_ledger()
    store.records[3], store.records[4] = (
        replace(store.records[3], entry=store.records[4].entry),
        replace(store.records[4], entry=store.records[3].entry),
    )
    with pytest.raises(LedgerError, match="entry 3 of the ledger does not fit its hash"):
        verify(store)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (entry_bytes(Spend(plan_id("plan"), 3, 3, "0")), "was forged"),
        (entry_bytes(Spend(plan_id("plan"), 9, 9, "7")), "was forged"),
        (entry_bytes(Spend(plan_id("other"), 1, 1, "0")), "was forged"),
        (entry_bytes(Genesis("100")), "was forged"),
        (entry_bytes(made_up_plan("two", unit="session")), "was forged"),
        (b'{"kind":"refund","rho":"2"}', "update hushrec"),
        (b"\xff", "not canonical"),
    ],
)
def test_a_forged_entry_that_breaks_a_rule_is_found_though_its_hash_is_right(entry: bytes, message: str) -> None:
    store, _, _ = spent_ledger()
    store.records.append(forged(store, 7, entry))
    with pytest.raises(LedgerError, match=message):
        verify(store)


def test_a_forged_entry_within_the_rules_can_only_raise_what_is_spent() -> None:
    store, ledger, plan = spent_ledger()
    store.records.append(forged(store, 7, entry_bytes(Spend(plan.plan, 6, 6, "0.5"))))
    assert verify(store).rho == "3"
    assert ledger.totals().rho == "3"


def test_an_older_copy_passes_without_an_anchor_and_is_found_with_one() -> None:
    store, ledger, _ = spent_ledger()
    anchor = ledger.anchor()
    older = MemoryLedgerStore()
    older.records = store.records[:4]
    assert verify(older).rho == "1"  # under-counted: nothing inside the copy can tell
    with pytest.raises(LedgerError, match="ends with entry 3 and the anchor stands for entry 6: this is an older copy"):
        verify(older, anchor=anchor)
    with pytest.raises(LedgerError, match="older copy"):
        Ledger(older, anchor=anchor)


def test_a_rewritten_history_is_found_by_any_anchor_behind_the_change() -> None:
    store, ledger, plan = spent_ledger()
    anchors = [record.anchor for record in store.records]
    other = MemoryLedgerStore()
    other.records = store.records[:4]
    rewritten = Ledger(other)
    for round_ in range(3, 9):
        rewritten.spend(plan.plan, round_, rho="0.1")
    verify(other)
    for anchor in anchors[:4]:
        verify(other, anchor=anchor)
    for anchor in anchors[4:]:
        with pytest.raises(LedgerError, match=f"entry {anchor.index} of the ledger is not the one of the anchor"):
            verify(other, anchor=anchor)
    assert ledger.verify(anchor=anchors[3]).head == anchors[-1]


@pytest.mark.parametrize("kept", [3, 6])
def test_a_ledger_put_back_while_it_is_open_is_found(kept: int) -> None:
    store, ledger, plan = spent_ledger()
    del store.records[kept:]
    for use in (ledger.totals, ledger.anchor, lambda: ledger.spend(plan.plan, 9, rho="0")):
        with pytest.raises(LedgerError, match="put back or rewritten while it was open"):
            use()


def test_another_history_put_in_its_place_while_it_is_open_is_found() -> None:
    store, ledger, plan = spent_ledger()
    store.records[6] = forged(store, 6, entry_bytes(Spend(plan.plan, 5, 5, "0")))
    verify(store)
    with pytest.raises(LedgerError, match="put back or rewritten while it was open"):
        ledger.spend(plan.plan, 6, rho="0")
