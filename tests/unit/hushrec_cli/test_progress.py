"""A bar on a terminal, lines elsewhere."""

import io

from hushrec_cli.progress import ProgressLine


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_gets_one_line_a_stage_drawn_over() -> None:
    shown, clock = Terminal(), Clock()
    with ProgressLine(shown, clock) as progress:
        progress("train", 0, 4)
        clock.now = 2.0
        progress("train", 2, 4, "epoch 2")
        clock.now = 3.0
    first, second, last = shown.getvalue().split("\r")[1:]
    assert first == f"train [{'.' * 24}]   0% 0 s"
    assert second.rstrip() == f"train [{'#' * 12}{'.' * 12}]  50% 2 s  epoch 2"
    assert last.split() == ["train", "done", "in", "3", "s", "epoch", "2"]
    assert last.endswith("\n")
    assert len(last.rstrip("\n")) >= len(second.rstrip()), "the longer line before it is not wiped out"


def test_a_terminal_is_not_redrawn_more_often_than_an_eye_sees() -> None:
    shown, clock = Terminal(), Clock()
    progress = ProgressLine(shown, clock)
    for step in range(1000):
        clock.now += 0.001
        progress("train", step, 10_000)
    assert shown.getvalue().count("\r") < 15


def test_a_pipe_gets_a_line_every_ten_seconds_and_no_carriage_return() -> None:
    shown, clock = io.StringIO(), Clock()
    with ProgressLine(shown, clock) as progress:
        for second in range(25):
            clock.now = float(second)
            progress("train", second, 25)
    assert shown.getvalue().splitlines() == ["train ...", "train  40 %", "train  80 %", "train done in 24 s"]


def test_a_stage_that_fails_is_not_called_done() -> None:
    shown = io.StringIO()
    try:
        with ProgressLine(shown, Clock()) as progress:
            progress("train", 0, 1)
            raise ValueError
    except ValueError:
        pass
    assert shown.getvalue().splitlines() == ["train ...", "train stopped after 0 s"]


def test_decisions_are_lines_of_their_own_between_stages() -> None:
    shown = io.StringIO()
    with ProgressLine(shown, Clock()) as progress:
        progress("read", 1, 1, "480 events")
        progress("decide", 0, 1, "history 50: few events")
        progress("decide", 0, 1, "1 layer: few targets")
        progress("train", 0, 1)
    assert shown.getvalue().splitlines() == [
        "read ...",
        "read done in 0 s  480 events",
        "  history 50: few events",
        "  1 layer: few targets",
        "train ...",
        "train done in 0 s",
    ]


def test_an_unknown_total_and_too_much_done_are_no_errors() -> None:
    shown = Terminal()
    with ProgressLine(shown, Clock()) as progress:
        progress("read", 5, 0)
        progress("train", 7, 5)
    assert "  0%" in shown.getvalue()
    assert "100%" in shown.getvalue()
