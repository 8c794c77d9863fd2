"""Plots as inline SVG: horizontal bars and lines, coloured by the page's CSS, so that dark, light and print all work.

Written by hand instead of by a plotting library: two shapes are all the pages need, and the command needs no extra.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bars", "Lines", "svg"]

_WIDTH = 640.0
_BAR_STEP, _BAR_HEIGHT, _LABEL_WIDTH, _VALUE_WIDTH = 26.0, 16.0, 260.0, 70.0
_PLOT_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 240.0, 64.0, 150.0, 12.0, 40.0
_COLOURS = 6
_LETTER_WIDTH = 6.6  # of the page's font at the plots' size, on the wide side


@dataclass(frozen=True)
class Bars:
    """One bar a row, longest value full width.

    Attributes:
        title: What is shown, read aloud by screen readers and printed above.
        labels: Name of each bar.
        values: Length of each bar, at least 0; one a label. NaN: no bar, a dash.
        shown: The value as text beside each bar.
    """

    title: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Lines:
    """Curves over a common horizontal axis.

    Attributes:
        title: What is shown.
        x_name: Name and unit of the horizontal axis.
        series: Name and points (x, y) of each curve; points that are not finite are left out.
    """

    title: str
    x_name: str
    series: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]


def svg(plot: Bars | Lines) -> str:
    """Draw a plot as one `<svg>` element without scripts, fonts or external references.

    >>> print(svg(Bars("Size", ("float", "int8"), (4.0, 1.0), ("4 MB", "1 MB")))[:45])
    <svg viewBox="0 0 640 60" role="img" aria-lab
    """
    return _bars(plot) if isinstance(plot, Bars) else _lines(plot)


def _open(title: str, height: float) -> str:
    name = escape(title, quote=True)
    return f'<svg viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{name}"><title>{name}</title>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _fitted(text: str, width: float) -> str:
    """Shorten a text to what fits into a width, at about 6.6 units a letter.

    >>> _fitted("float32", 170.0), _fitted("pruned to heads 2+2, channels 80+112", 170.0)
    ('float32', 'pruned to heads 2+2, cha…')
    """
    most = int(width / _LETTER_WIDTH)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _bars(plot: Bars) -> str:
    longest = max((value for value in plot.values if math.isfinite(value)), default=0.0)
    room = _WIDTH - _LABEL_WIDTH - _VALUE_WIDTH
    parts = [_open(plot.title, len(plot.labels) * _BAR_STEP + 8)]
    for row, (label, value, shown) in enumerate(zip(plot.labels, plot.values, plot.shown, strict=True)):
        top = row * _BAR_STEP + 4
        length = room * value / longest if longest > 0 and math.isfinite(value) else 0.0
        parts.append(_text(_LABEL_WIDTH - 8, top + 13, _fitted(label, _LABEL_WIDTH - 8), "end"))
        size = f'width="{length:.1f}" height="{_BAR_HEIGHT:g}"'
        parts.append(f'<rect class="c0" x="{_LABEL_WIDTH:g}" y="{top:.1f}" {size} rx="2"/>')
        parts.append(_text(_LABEL_WIDTH + length + 6, top + 13, shown))
    return "".join([*parts, "</svg>"])


def _lines(plot: Lines) -> str:
    curves = [(name, [p for p in points if all(map(math.isfinite, p))]) for name, points in plot.series]
    points = [point for _, curve in curves for point in curve] or [(0.0, 0.0)]
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points])

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _TOP + (1 - up) * (_PLOT_HEIGHT - _TOP - _BOTTOM)

    parts = [_open(plot.title, _PLOT_HEIGHT)]
    for tick in _ticks(y_low, y_high):
        _, y = at(x_low, tick)
        parts.append(f'<line class="grid" x1="{_LEFT:g}" x2="{_WIDTH - _RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{tick:g}", "end"))
    parts += [
        _text(at(tick, y_low)[0], _PLOT_HEIGHT - _BOTTOM + 16, f"{tick:g}", "middle") for tick in _ticks(x_low, x_high)
    ]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _PLOT_HEIGHT - 6, plot.x_name, "middle"))
    for number, (name, curve) in enumerate(curves):
        if curve:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve))
            parts.append(f'<polyline class="l{number % _COLOURS}" points="{path}"/>')
            x, y = at(*curve[-1])
            parts.append(_text(x + 6, y + 4, _fitted(name, _RIGHT - 6)))
    return "".join([*parts, "</svg>"])


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers inside a range.

    >>> _ticks(0.0, 10.0), _ticks(0.051, 0.062)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.0525, 0.055, 0.0575, 0.06])
    """
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
