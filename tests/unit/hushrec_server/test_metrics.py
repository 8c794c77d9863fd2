"""Counters as Prometheus reads them, and only those that exist."""

import re
import threading

import pytest
from hushrec_privacy.errors import ConfigError
from hushrec_server.metrics import METRICS, Metrics


def test_the_text_is_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.count("hushrec_check_ins_total", 2)
    metrics.count("hushrec_uploads_total", phase="mask")
    metrics.replace("hushrec_epsilon_spent", {("ab",): 1.25, ("cd",): float("inf")})
    assert metrics.text() == (
        "# HELP hushrec_check_ins_total Devices given a place in a round.\n"
        "# TYPE hushrec_check_ins_total counter\n"
        "hushrec_check_ins_total 2\n"
        "# HELP hushrec_epsilon_spent Epsilon spent by a device at most, per plan.\n"
        "# TYPE hushrec_epsilon_spent gauge\n"
        'hushrec_epsilon_spent{plan="ab"} 1.25\n'
        'hushrec_epsilon_spent{plan="cd"} +Inf\n'
        "# HELP hushrec_uploads_total Uploads acknowledged, by phase.\n"
        "# TYPE hushrec_uploads_total counter\n"
        'hushrec_uploads_total{phase="mask"} 1\n'
    )


def test_values_of_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.count("hushrec_refusals_total", reason='a"b\\c\nd')
    assert metrics.text().splitlines()[-1] == 'hushrec_refusals_total{reason="a\\"b\\\\c\\nd"} 1'


def test_a_gauge_forgets_what_is_not_named_any_more() -> None:
    metrics = Metrics()
    metrics.replace("hushrec_rounds", {("ab", "mask"): 1})
    metrics.replace("hushrec_rounds", {("ab", "published"): 1})
    assert 'state="mask"' not in metrics.text()


def test_unknown_names_and_labels_are_refused() -> None:
    metrics = Metrics()
    with pytest.raises(ConfigError):
        metrics.count("hushrec_devices", device="ab")
    with pytest.raises(ConfigError):
        metrics.count("hushrec_uploads_total", phase="mask", device="ab")
    with pytest.raises(ConfigError):
        metrics.count("hushrec_rounds", plan="ab", state="mask")
    with pytest.raises(ConfigError):
        metrics.replace("hushrec_rounds", {("ab",): 1})
    with pytest.raises(ConfigError):
        metrics.replace("hushrec_uploads_total", {})


def test_a_label_that_runs_wild_does_not_grow_without_bound() -> None:
    metrics = Metrics()
    for n in range(5_000):
        metrics.count("hushrec_refusals_total", reason=str(n))
    metrics.replace("hushrec_epsilon_spent", {(str(n),): 1.0 for n in range(5_000)})
    assert len(metrics.text().splitlines()) == 2 * (2 + 2_000)


def test_threads_lose_no_count() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(2_000):
            metrics.count("hushrec_check_ins_total")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.text().splitlines()[-1] == "hushrec_check_ins_total 8000"


def test_no_metric_has_a_label_that_could_name_a_device() -> None:
    labels = {label for metric in METRICS.values() for label in metric.labels}
    assert labels == {"route", "status", "reason", "phase", "result", "plan", "state", "what"}
    assert all(re.fullmatch(r"hushrec_[a-z_]+", name) for name in METRICS)
    assert all(name.endswith("_total") == (metric.kind == "counter") for name, metric in METRICS.items())
