"""Two processes race for one budget: it is spent once."""

import subprocess
import sys
from pathlib import Path

from hushrec_privacy.ledger import Ledger, Limits, ParticipationRecord, SqliteLedgerStore, verify

from tests.ledger_plans import made_up_plan

RACER = """
import sys
from hushrec_privacy.errors import BudgetError
from hushrec_privacy.ledger import Ledger, SqliteLedgerStore

path, plan = sys.argv[1:]
ledger = Ledger(SqliteLedgerStore(path))
print("ready", flush=True)
sys.stdin.readline()
for round_ in range(1, 61):
    try:
        ledger.spend(plan, round_, rho="0.1")
        print(round_, flush=True)
    except BudgetError:
        pass
"""
BEGINNER = """
import sys
from hushrec_privacy.ledger import ParticipationRecord
print("ready", flush=True)
sys.stdin.readline()
record = ParticipationRecord.at(sys.argv[1], lifetime_rho=sys.argv[2])
print(record.totals().genesis.lifetime_rho, flush=True)
"""


def raced(code: str, *arguments: tuple[object, ...]) -> list[list[str]]:
    """Run the code in one process for each list of arguments, all let go at the same moment; what each printed."""
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen([*command, *map(str, each)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in arguments
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return printed


def test_two_racing_processes_never_overspend(tmp_path: Path) -> None:
    path, plan = tmp_path / "ledger.sqlite", made_up_plan(limits=Limits(60, max_rho="2"))
    with SqliteLedgerStore.create(path) as store:
        Ledger.begin(store).open_plan(plan)
        one, two = raced(RACER, (path, plan.plan), (path, plan.plan))
        spent = verify(store).plans[plan.plan]
    rounds = [int(round_) for round_ in one + two]
    assert len(set(rounds)) == len(rounds) == spent.rounds == 20
    assert spent.rho == "2"


def test_two_processes_that_begin_one_record_begin_it_once(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    (one,), (two,) = raced(BEGINNER, (path, "1"), (path, "2"))
    assert one == two
    record = ParticipationRecord.at(path, lifetime_rho="3")
    assert record.totals().genesis.lifetime_rho == one
    record.close()
