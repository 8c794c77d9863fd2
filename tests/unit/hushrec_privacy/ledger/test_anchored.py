"""A ledger whose head is kept elsewhere is never older than that without anybody noticing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hushrec_privacy.errors import BudgetError, ConfigError, LedgerError
from hushrec_privacy.ledger import Anchor, AnchoredLedger, Ledger, Limits, Record, SqliteLedgerStore, anchored
from hushrec_privacy.ledger.anchored import anchored_ledger, kept_anchor, read_anchor

from tests.ledger_plans import made_up_plan

PLAN = made_up_plan(limits=Limits(61))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger that has a plan and has spent nothing."""
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "ledger.db"
    with SqliteLedgerStore.create(path) as store:
        Ledger.begin(store).open_plan(PLAN)
    return path


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere.anchor"


def spend(path: Path, anchor: str | None, *blocks: tuple[int, int]) -> Anchor:
    """Open the ledger, spend blocks, and give its head."""
    with SqliteLedgerStore(path) as store:
        ledger = anchored_ledger(store, anchor)
        for first, last in blocks:
            ledger.spend(PLAN.plan, first, last)
        return ledger.anchor()


def test_the_file_stands_for_the_newest_entry_after_every_call(path: Path, kept: Path) -> None:
    with SqliteLedgerStore(path) as store:
        ledger = AnchoredLedger(store, kept)
        assert read_anchor(str(kept)) == ledger.anchor()
        for change in (
            lambda: ledger.spend(PLAN.plan, 1, 10),
            lambda: ledger.open_plan(made_up_plan("other")),
            lambda: ledger.close_plan(PLAN.plan),
        ):
            before = ledger.anchor()
            change()
            assert read_anchor(str(kept)) == ledger.anchor() != before
    assert not list(kept.parent.glob("*.part"))


def test_the_file_is_written_after_the_entry_and_before_the_caller_goes_on(
    path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    write, append = anchored._write, SqliteLedgerStore.append

    def noted_write(path: Path, anchor: Anchor) -> None:
        order.append("file")
        write(path, anchor)

    def noted_append(store: SqliteLedgerStore, record: Record) -> bool:
        order.append("entry")
        return append(store, record)

    monkeypatch.setattr(anchored, "_write", noted_write)
    monkeypatch.setattr(SqliteLedgerStore, "append", noted_append)
    spend(path, str(kept), (1, 1))
    assert order == ["file", "entry", "file"]


def test_a_restored_older_ledger_is_refused_although_it_went_on_since_the_file_was_made(path: Path, kept: Path) -> None:
    spend(path, str(kept), (1, 10))
    older = path.read_bytes()
    spend(path, str(kept), (11, 20), (21, 30))
    path.write_bytes(older)
    with pytest.raises(LedgerError, match=r"older copy.*its whole budget is spent"):
        spend(path, str(kept), (11, 20))
    assert path.read_bytes() == older, "nothing was spent"
    spend(path, None, (11, 20))  # what nobody can see without the file


def test_a_head_shows_a_ledger_that_is_older_than_it_and_no_other(path: Path) -> None:
    spend(path, None, (1, 10))
    older = path.read_bytes()
    head = str(spend(path, None, (11, 20)))
    middle = path.read_bytes()
    spend(path, head, (21, 30))
    path.write_bytes(middle)
    spend(path, head)
    path.write_bytes(older)
    with pytest.raises(LedgerError, match="older copy"):
        spend(path, head)


def test_of_two_copies_one_goes_on(path: Path, kept: Path) -> None:
    spend(path, str(kept), (1, 10))
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    with SqliteLedgerStore(path) as store, SqliteLedgerStore(copy) as other:
        ledger, second = AnchoredLedger(store, kept), AnchoredLedger(other, kept)
        second.spend(PLAN.plan, 11, 20)
        with pytest.raises(LedgerError, match="another copy of it is in use"):
            ledger.spend(PLAN.plan, 11, 20)
        assert ledger.plan(PLAN.plan).rounds == 10
        second.spend(PLAN.plan, 21, 30)


def test_a_copy_that_is_overtaken_while_it_spends_stops_before_it_draws(
    path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    with SqliteLedgerStore(path) as store, SqliteLedgerStore(copy) as other:
        ledger, second = AnchoredLedger(store, kept), AnchoredLedger(other, kept)
        append = SqliteLedgerStore.append

        def overtaken(*given: object) -> bool:
            monkeypatch.undo()
            second.spend(PLAN.plan, 1, 5)
            return append(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(SqliteLedgerStore, "append", overtaken)
        with pytest.raises(LedgerError, match="another copy"):
            ledger.spend(PLAN.plan, 1, 10)


def test_a_kill_between_entry_and_file_is_survived(path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spend(path, str(kept), (1, 10))
    at_ten = read_anchor(str(kept))
    with SqliteLedgerStore(path) as store:
        ledger = AnchoredLedger(store, kept)
        monkeypatch.setattr(anchored, "_write", lambda *_: None)
        ledger.spend(PLAN.plan, 11, 20)
    monkeypatch.undo()
    assert read_anchor(str(kept)) == at_ten
    head = spend(path, str(kept))
    assert read_anchor(str(kept)) == head != at_ten


def test_a_missing_file_is_made_only_for_a_ledger_that_has_spent_nothing(path: Path, kept: Path) -> None:
    spend(path, str(kept), (1, 10))
    kept.unlink()
    with pytest.raises(LedgerError, match="is not there, but the ledger has spent"):
        spend(path, str(kept))
    assert not kept.exists()
    kept.write_text(f"{spend(path, None)}\n", encoding="utf-8")  # what `ledger verify LEDGER > FILE` leaves
    spend(path, str(kept), (11, 20))


def test_a_file_that_disappears_ends_the_run(path: Path, kept: Path) -> None:
    with SqliteLedgerStore(path) as store:
        ledger = AnchoredLedger(store, kept)
        kept.unlink()
        with pytest.raises(LedgerError, match="no longer holds the head"):
            ledger.spend(PLAN.plan, 1)
        assert ledger.plan(PLAN.plan).rounds == 0


def test_the_file_of_another_ledger_is_refused(path: Path, kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with SqliteLedgerStore.create(other) as store:
        Ledger.begin(store).open_plan(made_up_plan("other"))
    spend(path, str(kept), (1, 10))
    for anchor in (str(kept), kept.read_text(encoding="utf-8")):
        with pytest.raises(LedgerError, match=r"anchor"):
            spend(other, anchor)


def test_a_refused_spend_and_a_dry_run_leave_the_file(path: Path, kept: Path) -> None:
    with SqliteLedgerStore(path) as store:
        ledger = AnchoredLedger(store, kept)
        before = kept.read_bytes()
        ledger.spend(PLAN.plan, 1, dry_run=True)
        with pytest.raises(BudgetError):
            ledger.spend(PLAN.plan, 62)
        assert kept.read_bytes() == before
        ledger.spend(PLAN.plan, 1)


def a_text(path: Path) -> None:
    path.write_text("no head")


def a_long_file(path: Path) -> None:
    path.write_bytes(b"7:" + b"0a" * 300)


@pytest.mark.parametrize("make", [a_text, a_long_file, Path.mkdir, Path.touch])
def test_what_is_no_anchor_file_is_refused_and_left(path: Path, kept: Path, make: Callable[[Path], None]) -> None:
    make(kept)
    content = None if kept.is_dir() else kept.read_bytes()
    with pytest.raises(LedgerError, match="anchor"):
        spend(path, str(kept))
    assert content is None or kept.read_bytes() == content


def test_what_looks_like_a_head_is_never_taken_for_a_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("41:5f0c", "1:", " 3:" + "0A" * 32):
        for function in (kept_anchor, read_anchor, lambda text: spend(path, text)):
            with pytest.raises(ConfigError, match="the anchor is wrong"):
                function(text)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_a_file_to_be_read_must_be_there(kept: Path) -> None:
    assert kept_anchor(str(kept)) is None
    with pytest.raises(LedgerError, match="no such anchor file"):
        read_anchor(str(kept))


def test_a_place_where_nothing_can_be_written_is_an_error(path: Path, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be written"):
        spend(path, str(tmp_path / "none" / "shop.anchor"), (1, 1))
    with SqliteLedgerStore(path, read_only=True) as store:
        assert Ledger(store).plan(PLAN.plan).rounds == 0


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error(path: Path, kept: Path) -> None:
    spend(path, str(kept), (1, 10))
    kept.chmod(0)
    with pytest.raises(LedgerError, match="cannot be read"):
        spend(path, str(kept))
