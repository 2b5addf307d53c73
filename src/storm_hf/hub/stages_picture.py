"""The two stages in one picture, for the card of a model: what pulls the latents, and what runs through them.

Drawn twice as large as it is shown, so that it is sharp. The same K gives the same bytes.
"""

import io
from functools import cache

from PIL import Image, ImageDraw, ImageFont


PICTURE = "assets/stages.png"
_SCALE = 2
_WIDTH, _HEIGHT = 860, 372
_PAPER, _INK, _SOFT, _LINE = (
    "#ffffff",
    "#1c1c1c",
    "#5f6672",
    "#aab2bf",
)  # one background, on light and dark pages alike
_CLIP, _TEXT, _LATENT, _TARGET = "#e7edf7", "#f1f1ee", "#cfe8dc", "#fbe3c8"
_GREEN, _ORANGE = "#1f7a55", "#b4641a"
_MOST_LATENTS = 4  # that are drawn; dots stand for the others
_LEFT, _CELL, _GAP, _ROW = 30, 46, 8, 44


@cache
def draw_stages(num_latents: int) -> bytes:
    """Draw both stages of a model with K latents, one above the other.

    Args:
        num_latents (`int`):
            Length K of the rollout.

    Returns:
        `bytes`: A PNG file.
    """
    image = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), _PAPER)
    pen = _Pen(ImageDraw.Draw(image))
    pen.text((_LEFT, 16), "Stage I: align", 19, _INK)
    pen.text((_LEFT + 136, 21), "the latents learn what a video of the reasoning would show", 14, _SOFT)
    first, last = _draw_sequence(pen, 118, num_latents)
    _draw_targets(pen, 52, first, last)
    pen.text((_LEFT, 206), "Stage II: answer", 19, _INK)
    pen.text(
        (_LEFT + 154, 211), "no thought video: the model thinks by itself, and only answers are supervised", 14, _SOFT
    )
    first, last = _draw_sequence(pen, 252, num_latents)
    _draw_gradient(pen, 252 + _ROW + 14, first, last)
    file = io.BytesIO()
    image.save(file, format="png", optimize=True)
    return file.getvalue()


class _Pen:
    """Draws in the units of the picture as it is shown.

    Args:
        draw ([`~PIL.ImageDraw.ImageDraw`]):
            The large picture.
    """

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self.draw = draw

    def text(self, place: tuple[float, float], words: str, size: int, colour: str, anchor: str = "la") -> None:
        font = ImageFont.load_default(size * _SCALE)
        self.draw.text((place[0] * _SCALE, place[1] * _SCALE), words, colour, font, anchor=anchor)

    def box(self, left: float, top: float, width: float, colour: str, words: str, size: int = 14) -> None:
        corners = [edge * _SCALE for edge in (left, top, left + width, top + _ROW)]
        self.draw.rounded_rectangle(corners, radius=7 * _SCALE, fill=colour)
        self.text((left + width / 2, top + _ROW / 2), words, size, _INK, anchor="mm")

    def arrow(self, *points: tuple[float, float], colour: str = _LINE) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self.draw.line(scaled, fill=colour, width=2 * _SCALE, joint="curve")
        (x0, y0), (x1, y1) = points[-2:]
        length = max(abs(x1 - x0), abs(y1 - y0))
        along, across = ((x1 - x0) / length, (y1 - y0) / length), ((y0 - y1) / length, (x1 - x0) / length)
        tip = [(x1, y1)] + [
            (x1 - 7 * along[0] + side * across[0], y1 - 7 * along[1] + side * across[1]) for side in (-4, 4)
        ]
        self.draw.polygon([(x * _SCALE, y * _SCALE) for x, y in tip], fill=colour)


def _latent_names(num_latents: int) -> list[str]:
    names = [f"z{number}" for number in range(1, max(num_latents, 1) + 1)]
    return names if num_latents <= _MOST_LATENTS else [*names[: _MOST_LATENTS - 1], "...", names[-1]]


def _draw_sequence(pen: _Pen, top: float, num_latents: int) -> tuple[float, float]:
    """Draw clip, question, latents and answer in a row, with the start and the end of the latents."""
    pen.box(_LEFT, top, 120, _CLIP, "clip")
    pen.box(_LEFT + 120 + _GAP, top, 120, _TEXT, "question")
    first = left = _LEFT + 240 + 3 * _GAP
    for name in _latent_names(num_latents):
        pen.box(left, top, _CELL, _LATENT, name)
        left += _CELL + _GAP
    last = left - _GAP
    pen.arrow((last + 6, top + _ROW / 2), (last + 34, top + _ROW / 2))
    pen.box(last + 40, top, 120, _TEXT, "answer")
    return first, last


def _draw_targets(pen: _Pen, top: float, first: float, last: float) -> None:
    """Draw the source of the targets: a thought video through the frozen vision tower."""
    middle = (first + last) / 2
    pen.box(_LEFT, top, 120, _TARGET, "thought video")
    pen.arrow((_LEFT + 126, top + _ROW / 2), (_LEFT + 152, top + _ROW / 2), colour=_ORANGE)
    pen.text((_LEFT + 158, top + _ROW / 2), "frozen vision", 13, _SOFT, anchor="lm")
    pen.arrow((_LEFT + 244, top + _ROW / 2), (first - 6, top + _ROW / 2), colour=_ORANGE)
    pen.box(first, top, last - first, _TARGET, "target trajectory" if last - first > 130 else "targets")
    pen.arrow((middle, top + _ROW + 2), (middle, top + _ROW + 20), colour=_ORANGE)
    pen.text((last + 40, top + _ROW / 2), "cross entropy on the answer,", 13, _SOFT, anchor="lm")
    pen.text((last + 40, top + _ROW / 2 + 17), "and each latent towards its target", 13, _SOFT, anchor="lm")


def _draw_gradient(pen: _Pen, top: float, first: float, last: float) -> None:
    """Draw the gradient of the answer, which flows back through the rollout."""
    answer = last + 100
    pen.arrow((answer, top - 8), (answer, top + 8), (first + 4, top + 8), (first + 4, top - 6), colour=_GREEN)
    pen.text((first + 14, top + 16), "the gradient of the answer goes back through the whole rollout", 13, _GREEN)
    pen.text(
        (_LEFT, top + 40),
        "At inference it is this row, without the gradient: K steps in the answer's own cache, no video drawn.",
        13,
        _SOFT,
    )
