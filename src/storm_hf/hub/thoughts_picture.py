"""A picture of clips beside their thoughts, for the card of a data set.

Only rows whose clip and whose thought video are both published are in it. The same rows give the same bytes.

Axes: T frames, H height, W width, in pixels.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from storm_hf.errors import VideoReadError
from storm_hf.hub.published_shards import ShardPlan
from storm_hf.video import read_video


PICTURE = "assets/thoughts.png"
_NUM_ROWS = 4
_NUM_FRAMES = 6
_CELL = (152, 152)  # largest width and height of a frame; its shape is kept
_GAP, _MARGIN, _LABELS = 6, 18, 76
_FONT = 15
_PAPER, _INK, _SOFT = "#ffffff", "#1c1c1c", "#6b6b6b"  # one background, on light and dark pages alike
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class PicturedRow:
    """A question with frames of its clip and of its thought video.

    Args:
        clip (`Path`):
            The clip, which stands in one row only.
        caption (`str`):
            Question and answer.
        films (`dict[str, np.ndarray]`):
            By what stands beside them: frames `(num_frames, height, width, 3)`, RGB, `uint8`.
    """

    clip: Path
    caption: str
    films: dict[str, np.ndarray]


def pictured_rows(plan: ShardPlan, known: Sequence[PicturedRow]) -> list[PicturedRow]:
    """The rows of the picture so far, and those that a shard adds: the first with another clip, whose videos can be read.

    Args:
        plan ([`ShardPlan`]):
            Published parts of the shard.
        known (`Sequence[PicturedRow]`):
            Rows of the shards before.
    """
    rows = list(known)
    for clip, thought, caption in _candidates(plan):
        if len(rows) == _NUM_ROWS:
            break
        if clip not in {row.clip for row in rows} and (films := _films(clip, thought)) is not None:
            rows.append(PicturedRow(clip, caption, films))
    return rows


def draw_picture(rows: Sequence[PicturedRow]) -> bytes:
    """Draw the rows below one another: the question, frames of its clip, and frames of its thought video.

    Returns:
        `bytes`: A PNG file.
    """
    width = _LABELS + _NUM_FRAMES * (_CELL[0] + _GAP) + _MARGIN
    height = _MARGIN + sum(_height(row) for row in rows)
    picture = Image.new("RGB", (width, height), _PAPER)
    top = _MARGIN
    for row in rows:
        _draw_row(picture, row, top)
        top += _height(row)
    file = io.BytesIO()
    picture.save(file, format="png", optimize=True)
    return file.getvalue()


def _candidates(plan: ShardPlan) -> Iterator[tuple[Path, Path, str]]:
    words: Iterable[tuple[str, str]] = zip(
        *(plan.table[name].to_pylist() for name in ("question", "answer")), strict=True
    )
    for clip, thought, (question, answer) in zip(plan.clips, plan.thoughts, words, strict=True):
        if clip is not None and thought is not None:
            yield clip, thought, " ".join(f"{question} ({answer})".split())


def _films(clip: Path, thought: Path) -> dict[str, np.ndarray] | None:
    """Frames of both, or None where one cannot be read: the picture is not worth a failed upload."""
    try:
        return {
            name: read_video(path, num_frames=_NUM_FRAMES, strict=False, timeout_seconds=_TIMEOUT_SECONDS).frames
            for name, path in (("clip", clip), ("thought", thought))
        }
    except VideoReadError:
        return None


def _cell_size(film: np.ndarray) -> tuple[int, int]:
    """Width and height that its frames are drawn in."""
    return ImageOps.contain(Image.fromarray(film[0]), _CELL).size


def _height(row: PicturedRow) -> int:
    return 2 * _FONT + sum(_cell_size(film)[1] + _GAP for film in row.films.values()) + _MARGIN


def _draw_row(picture: Image.Image, row: PicturedRow, top: int) -> None:
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT)
    draw.text((_MARGIN, top), _shortened(row.caption, font, picture.width - 2 * _MARGIN), _INK, font)
    top += 2 * _FONT - 4
    for name, film in row.films.items():
        width, height = _cell_size(film)
        draw.text((_MARGIN, top + height // 2 - _FONT // 2), name, _SOFT, font)
        for number, frame in enumerate(film):
            cell = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
            picture.paste(cell, (_LABELS + number * (_CELL[0] + _GAP), top))
        top += height + _GAP


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of a text as fits into one line. The font has Latin letters and no arrows or dots beside them."""
    if font.getlength(text) <= width:
        return text
    while font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
