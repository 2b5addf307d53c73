"""Charts as SVG that flow with the page: percentages across, pixels down, so that text keeps its size on every screen.

Colours are the CSS variables of `page.css`, with fallbacks, so that a chart follows the reader's light or dark mode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from storm_hf.errors import DatasetError
from storm_hf.reporting.page import percent


Tone = Literal["accent", "neutral", "quiet"]

_COLOUR = {
    "accent": "var(--accent, #5a3fd4)",
    "neutral": "var(--neutral, #6c6c78)",
    "bar": "var(--bar, #9292a1)",
    "quiet": "var(--quiet, #c3c3ce)",
    "grid": "var(--line, #e3e3e9)",
    "paper": "var(--paper, #fff)",
    "track": "var(--wash, #f3f3f7)",
    "ink": "var(--ink, #1b1b22)",
    "soft": "var(--soft, #5d5d69)",
}

_BAR_PITCH_PX, _BAR_TOP_PX, _BAR_PX = 54, 24, 12
_LEFT, _RIGHT, _LABELS = 9.0, 70.0, 73.0  # per cent of the width: first point, last point, where the labels begin
_TOP_PX, _BOTTOM_PX = 44, 276
_LABEL_PX = 38  # two lines of text
_NUM_GRID_LINES = 5
_MARGINS_PX, _LETTER_WIDTH = 56, 0.56  # beside a chart in a narrow page; of a letter on average, in units of its size


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        label (`str`):
            Measured quantity.
        value (`float`):
            Its length, from 0 to the chart's maximum.
        text (`str`):
            The value as it is written beside it.
        tone (`str`, *optional*, defaults to `"neutral"`):
            `accent` for what the chart is about.
        interval (`tuple[float, float]`, *optional*):
            Ends of a confidence interval, in units of the value, drawn as a thin line below.
    """

    label: str
    value: float
    text: str
    tone: Tone = "neutral"
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """One line of shares over something that is counted.

    Args:
        label (`str`):
            Measured quantity, in a word or two.
        points (`Sequence[tuple[float, float]]`):
            Pairs (x, share from 0 to 1), x ascending.
        tone (`str`, *optional*, defaults to `"neutral"`):
            `accent` for what the chart is about, `quiet` for a wide pale line that another one may cover.
    """

    label: str
    points: Sequence[tuple[float, float]]
    tone: Tone = "neutral"


@dataclass(frozen=True)
class Mark:
    """A value that everything else is compared with, such as chance."""

    value: float
    label: str


def bar_chart(
    bars: Sequence[Bar], *, title: str, description: str | None = None, maximum: float = 1.0, mark: Mark | None = None
) -> str:
    """Draw horizontal bars, each under its label.

    Args:
        bars (`Sequence[Bar]`):
            From top to bottom.
        title (`str`):
            Title of the chart, for screen readers.
        description (`str`, *optional*):
            Description of the chart, for screen readers. By default the bars, read out.
        maximum (`float`, *optional*, defaults to `1.0`):
            Value of a bar over the whole width.
        mark (`Mark`, *optional*):
            Drawn as a tick across each bar.

    Returns:
        `str`: An `<svg>` element.

    Raises:
        DatasetError: If there is no bar, or one does not fit between 0 and the maximum.
    """
    if not bars:
        raise DatasetError("Expected at least one bar but got none.")
    for bar in bars:
        _check_share(bar.label, bar.value / maximum)
    parts = [_bar(bar, _BAR_PITCH_PX * index, maximum) for index, bar in enumerate(bars)]
    height = _BAR_PITCH_PX * len(bars)
    if mark is not None:
        at = 100 * mark.value / maximum
        tops = [_BAR_PITCH_PX * index + _BAR_TOP_PX for index in range(len(bars))]
        parts += [_segment(at, top - 3, at, top + _BAR_PX + 3, "ink", 1.5) for top in tops]
        anchor = "start" if at < 12 else "end" if at > 88 else "middle"
        parts.append(_text(at, height + 8, mark.label, "soft", anchor=anchor, size=12))
        height += 16
    return _svg(height, title, description or _read_bars(bars), parts)


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    description: str | None = None,
    x_label: str,
    y_label: str,
    mark: Mark | None = None,
) -> str:
    """Draw shares as lines, each labelled where it ends.

    Args:
        lines (`Sequence[Line]`):
            Later ones lie over earlier ones.
        title (`str`):
            Title of the chart, for screen readers.
        description (`str`, *optional*):
            Description of the chart, for screen readers. By default the end of each line.
        x_label (`str`):
            Label of the horizontal axis.
        y_label (`str`):
            Quantity of the share, written at the top.
        mark (`Mark`, *optional*):
            Drawn as a dashed line across.

    Returns:
        `str`: An `<svg>` element.

    Raises:
        DatasetError: If there is no line, a line has no point, or a share does not lie between 0 and 1.
    """
    if not lines or not all(line.points for line in lines):
        raise DatasetError("Expected at least one line, each with at least one point.")
    for line in lines:
        for _, share in line.points:
            _check_share(line.label, share)
    xs = sorted({x for line in lines for x, _ in line.points})
    parts = [_text(0, 10, y_label, "soft", size=12), *_grid(mark), *_ticks(xs, x_label)]
    if mark is not None:
        y = _down(mark.value)
        parts += [_segment(0, y, _RIGHT, y, "ink", 1.2, dash="2 4"), _text(0, y - 6, mark.label, "ink", size=12)]
    for line in lines:
        parts += _line(line, xs)
    parts += _end_labels(lines)
    return _svg(_BOTTOM_PX + 48, title, description or _read_ends(lines), parts)


def _bar(bar: Bar, top: float, maximum: float) -> str:
    length = 100 * bar.value / maximum
    y = top + _BAR_TOP_PX
    size = _size_in_one_line(f"{bar.label}  {bar.text}")
    parts = [
        _text(0, top + 15, bar.label, "ink", weight=600 if bar.tone == "accent" else 400, size=size),
        _text(100, top + 15, bar.text, "ink", anchor="end", weight=600, size=size),
        _rectangle(100, y, "track"),
        _rectangle(max(length, 0.4), y, "bar" if bar.tone == "neutral" else bar.tone),
    ]
    if bar.interval is not None:
        low, high = (100 * end / maximum for end in bar.interval)
        below = y + _BAR_PX + 6
        parts.append(_segment(low, below, high, below, "soft", 2))
    return "".join(parts)


def _grid(mark: Mark | None) -> list[str]:
    """Draw the horizontal lines, without the label that a mark would cover."""
    parts = []
    for index in range(_NUM_GRID_LINES):
        share = index / (_NUM_GRID_LINES - 1)
        parts.append(_segment(0, _down(share), _RIGHT, _down(share), "grid", 1))
        if mark is None or abs(_down(share) - _down(mark.value)) > 16:
            parts.append(_text(0, _down(share) - 6, percent(share), "soft", size=12))
    return parts


def _ticks(xs: Sequence[float], x_label: str) -> list[str]:
    numbers = [_text(_across(x, xs), _BOTTOM_PX + 20, f"{x:g}", "soft", anchor="middle", size=12) for x in xs]
    return [*numbers, _text((_LEFT + _RIGHT) / 2, _BOTTOM_PX + 42, x_label, "soft", anchor="middle", size=12)]


def _line(line: Line, xs: Sequence[float]) -> list[str]:
    places = [(_across(x, xs), _down(share)) for x, share in line.points]
    width = {"accent": 3.0, "neutral": 2.0, "quiet": 9.0}[line.tone]
    parts = [_segment(*start, *end, line.tone, width) for start, end in zip(places, places[1:], strict=False)]
    filling = "paper" if line.tone == "neutral" else line.tone
    for (left, top), (x, share) in zip(places, line.points, strict=True):
        tooltip = f"<title>{escape(line.label)}, {x:g}: {percent(share)}</title>"
        style = f"fill:{_COLOUR[filling]};stroke:{_COLOUR[line.tone]};stroke-width:2"
        parts.append(f'<circle cx="{left:.2f}%" cy="{top:.1f}" r="4.5" style="{style}">{tooltip}</circle>')
    return parts


def _end_labels(lines: Sequence[Line]) -> list[str]:
    """Write each line's name and last value at its end, pushed down where two would lie over each other."""
    parts: list[str] = []
    lowest = float("-inf")
    for line in sorted(lines, key=lambda line: (-line.points[-1][1], line.tone != "accent")):
        share = line.points[-1][1]
        lowest = top = max(_down(share), lowest + _LABEL_PX)
        colour = "soft" if line.tone == "quiet" else line.tone
        parts.append(_text(_LABELS, top + 1, line.label, colour, weight=650, size=14))
        parts.append(_text(_LABELS, top + 17, percent(share), "soft", size=12))
    return parts


def _read_bars(bars: Sequence[Bar]) -> str:
    return "; ".join(f"{bar.label}: {bar.text}" for bar in bars) + "."


def _read_ends(lines: Sequence[Line]) -> str:
    return "; ".join(f"{line.label} ends at {percent(line.points[-1][1])}" for line in lines)


def _across(x: float, xs: Sequence[float]) -> float:
    """Place a value of x in per cent of the width."""
    extent = xs[-1] - xs[0]
    return _LEFT + (_RIGHT - _LEFT - 1) * ((x - xs[0]) / extent if extent else 0.5)


def _down(share: float) -> float:
    """Place a share in pixels from the top."""
    return _BOTTOM_PX - share * (_BOTTOM_PX - _TOP_PX)


def _check_share(label: str, share: float) -> None:
    if not 0 <= share <= 1:  # false for NaN too
        raise DatasetError(f"Expected `{label}` to lie between 0 and the maximum but got {share:g} of it.")


def _rectangle(width: float, y: float, colour: str) -> str:
    style = f"fill:{_COLOUR[colour]}"
    return f'<rect x="0" y="{y:g}" width="{width:.2f}%" height="{_BAR_PX}" rx="3" style="{style}"/>'


def _segment(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dash: str = "none") -> str:
    style = f"stroke:{_COLOUR[colour]};stroke-width:{width:g};stroke-dasharray:{dash};stroke-linecap:round"
    return f'<line x1="{x1:.2f}%" y1="{y1:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}" style="{style}"/>'


def _size_in_one_line(words: str) -> str:
    """Size of the letters at which words fit beside each other, whatever the width of the page or of the picture."""
    return f"clamp(9px,(100vw - {_MARGINS_PX}px)/{_LETTER_WIDTH * len(words):.1f},15px)"


def _text(
    x: float, y: float, words: str, colour: str, *, anchor: str = "start", size: int | str = 15, weight: int = 400
) -> str:
    height = size if isinstance(size, str) else f"{size}px"
    style = f"fill:{_COLOUR[colour]};font-size:{height};font-weight:{weight};text-anchor:{anchor}"
    return f'<text x="{x:.2f}%" y="{y:.1f}" style="{style}">{escape(words)}</text>'


def _svg(height: float, title: str, description: str, parts: Sequence[str]) -> str:
    spoken = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    label = escape(f"{title}. {description}")
    return (
        f'<svg class="chart" role="img" aria-label="{label}" width="100%" height="{height:g}" '
        f'xmlns="http://www.w3.org/2000/svg">{spoken}{"".join(parts)}</svg>'
    )
