"""Text as a picture: black on white, wrapped, in the font that Pillow brings (Aileron) on every machine.

Axes: H height, W width, in pixels.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont


_IN_ASCII = str.maketrans(
    {
        **dict.fromkeys("‘’‚′", "'"),
        **dict.fromkeys("“”„″", '"'),
        **dict.fromkeys("‐‑‒–—−", "-"),
        **{"→": "->", "⇒": "=>", "←": "<-", "×": "x", "•": "-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~"},
        **{"÷": "/", "∕": "/", "±": "+/-", "·": "*", "⋅": "*", "∗": "*", "√": "sqrt ", "°": " degrees "},
    }
)
_MIXED_NUMBER = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")  # 2½ is not 21/2
_RAISED = re.compile("[⁺⁻]?[⁰¹²³⁴-⁹]+")


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def in_ascii(text: str) -> tuple[str, float]:
    """Write a text in the characters of the font.

    Quotes, dashes and arrows become plain ones, and letters lose their accents. Numbers keep their value: a half is 1/2, and a
    power has a ^.

    Returns:
        `tuple[str, float]`: The text without the characters that remain, and their share of it, 0 to 1.
    """
    text = _RAISED.sub(r"^\g<0>", _MIXED_NUMBER.sub(" ", text.translate(_IN_ASCII)))
    decomposed = unicodedata.normalize("NFKD", text).replace("⁄", "/").replace("−", "-")  # of fractions and powers
    letters = [letter for letter in decomposed if not unicodedata.combining(letter)]
    plain = [letter for letter in letters if " " <= letter <= "~" or letter.isspace()]
    return " ".join("".join(plain).split()), 1 - len(plain) / max(len(letters), 1)


def fitting_font(texts: Sequence[str], frame_size: tuple[int, int], smallest_px: int, largest_px: int) -> int | None:
    """Find the largest font in which each text fits into a picture.

    Args:
        texts (`Sequence[str]`):
            One for each picture.
        frame_size (`tuple[int, int]`):
            Height and width of the pictures, in pixels.
        smallest_px (`int`):
            Smallest size of the font that may be taken.
        largest_px (`int`):
            Largest size.

    Returns:
        `int`, *optional*: Size of the font in pixels; None where a text fits in none.
    """
    for size_px in range(largest_px, smallest_px - 1, -1):
        if all(_height(text, frame_size, size_px) <= frame_size[0] - 2 * _margin(size_px) for text in texts):
            return size_px
    return None


def draw_text(text: str, frame_size: tuple[int, int], size_px: int) -> np.ndarray:
    """Draw a text from the upper left corner on.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: RGB, `uint8`.
    """
    height, width = frame_size
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(_wrapped(text, width - 2 * _margin(size_px), size_px)):
        place = (_margin(size_px), _margin(size_px) + number * _line_height(size_px))
        draw.text(place, line, "black", _font(size_px))
    return np.asarray(picture)


def _margin(size_px: int) -> int:
    return size_px // 2


def _line_height(size_px: int) -> int:
    return round(1.25 * size_px)


def _height(text: str, frame_size: tuple[int, int], size_px: int) -> int:
    return len(_wrapped(text, frame_size[1] - 2 * _margin(size_px), size_px)) * _line_height(size_px)


def _wrapped(text: str, width: int, size_px: int) -> list[str]:
    """Break a text into lines between words, and a word that is wider than a line between letters."""
    lines: list[str] = []
    for word in text.split():
        if lines and _font(size_px).getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        lines += _broken(word, width, size_px)
    return lines


def _broken(word: str, width: int, size_px: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and _font(size_px).getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
