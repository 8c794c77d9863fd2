"""What Prometheus reads: counters of this process and gauges of the fleet, in the text format 0.0.4.

Labels come from closed sets (names of routes, of refusals, of plans): no device, address or item is ever one. Counters
are of one process; Prometheus sums them over processes. Needs no client library.
"""

import math
import threading
from typing import Literal, NamedTuple

from hushrec_privacy.errors import ConfigError

__all__ = ["CONTENT_TYPE", "METRICS", "Metric", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MOST_SERIES = 2_000  # of one metric: a mistake in a label must not grow without bound


class Metric(NamedTuple):
    """One metric: its kind, its help line, and the names of its labels."""

    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


METRICS = {
    "hushrec_requests_total": Metric("counter", "Requests answered.", ("route", "status")),
    "hushrec_request_seconds_total": Metric("counter", "Time spent answering, seconds.", ("route",)),
    "hushrec_refusals_total": Metric("counter", "Requests refused, by reason.", ("reason",)),
    "hushrec_uploads_total": Metric("counter", "Uploads acknowledged, by phase.", ("phase",)),
    "hushrec_check_ins_total": Metric("counter", "Devices given a place in a round."),
    "hushrec_ticks_total": Metric("counter", "Times the rounds were advanced.", ("result",)),
    "hushrec_tick_seconds_total": Metric("counter", "Time spent advancing rounds, seconds."),
    "hushrec_rounds": Metric("gauge", "Rounds by state.", ("plan", "state")),
    "hushrec_rounds_without_result": Metric("gauge", "Rounds over since the last published one, per plan.", ("plan",)),
    "hushrec_epsilon_spent": Metric("gauge", "Epsilon spent by a device at most, per plan.", ("plan",)),
    "hushrec_expires_at": Metric("gauge", "When what is signed runs out, seconds since 1970-01-01 UTC.", ("what",)),
    "hushrec_release": Metric("gauge", "Model version of the newest release."),
    "hushrec_candidate": Metric("gauge", "Model version of what waits until devices have compared it; 0: nothing."),
}


class Metrics:
    """Counters and gauges, safe to change from several threads.

    >>> metrics = Metrics()
    >>> metrics.count("hushrec_uploads_total", phase="mask")
    >>> print(metrics.text().splitlines()[-1])
    hushrec_uploads_total{phase="mask"} 1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[tuple[str, ...], float]] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter.

        Raises:
            ConfigError: There is no such counter, or its labels are others.
        """
        series = self._series(name, "counter", labels)
        with self._lock:
            values = self._values.setdefault(name, {})
            if series in values or len(values) < _MOST_SERIES:
                values[series] = values.get(series, 0) + amount

    def replace(self, name: str, values: dict[tuple[str, ...], float]) -> None:
        """Set all series of a gauge at once: what is not named any more disappears.

        Args:
            name: Of the gauge.
            values: By the values of its labels, in the order of `METRICS`.

        Raises:
            ConfigError: There is no such gauge, or a series has another number of labels.
        """
        metric = METRICS.get(name)
        if metric is None or metric.kind != "gauge" or any(len(key) != len(metric.labels) for key in values):
            raise ConfigError(f"{name} is no gauge with these labels")
        with self._lock:
            self._values[name] = dict(list(values.items())[:_MOST_SERIES])

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        lines = []
        with self._lock:
            for name, values in sorted(self._values.items()):
                metric = METRICS[name]
                lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
                lines += [_line(name, metric.labels, key, value) for key, value in sorted(values.items())]
        return "\n".join(lines) + "\n"

    def _series(self, name: str, kind: str, labels: dict[str, str]) -> tuple[str, ...]:
        metric = METRICS.get(name)
        if metric is None or metric.kind != kind or set(labels) != set(metric.labels):
            raise ConfigError(f"{name} is no {kind} with these labels")
        return tuple(labels[label] for label in metric.labels)


def _line(name: str, labels: tuple[str, ...], values: tuple[str, ...], number: float) -> str:
    inner = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True))
    shown = f"{number:.10g}" if math.isfinite(number) else {math.inf: "+Inf", -math.inf: "-Inf"}.get(number, "NaN")
    return f"{name}{{{inner}}} {shown}" if inner else f"{name} {shown}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
