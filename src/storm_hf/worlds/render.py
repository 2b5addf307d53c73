"""Drawing on a small canvas, and enlarging it so that video compression leaves it whole.

Worlds are drawn on cells of 16 x 16 pixels, which is what one token of a vision tower with patches of 8 and a merge of
2 sees after the processor has scaled the frames back down. H.264 halves the resolution of colour: drawn at this size
frames come back wrong by 7 of 255 on average, enlarged by 4 and scaled back by 1.

Axes: T frames, H height, W width, in pixels.
"""

import numpy as np

from storm_hf.errors import ConfigurationError


CELL_PX = 16
ENLARGEMENT = 4

Colour = tuple[int, int, int]

PALETTE: dict[str, Colour] = {
    "red": (210, 40, 40),
    "blue": (50, 80, 220),
    "green": (40, 170, 60),
    "yellow": (220, 200, 40),
    "purple": (160, 50, 190),
}
BACKGROUND: Colour = (30, 30, 30)
GREY: Colour = (150, 150, 150)
ORANGE: Colour = (255, 140, 0)
LIME: Colour = (60, 255, 60)
WHITE: Colour = (255, 255, 255)
PALE: Colour = (230, 230, 230)

_SHAPE_PX = 10


def canvas(num_rows: int, num_columns: int, colour: Colour = BACKGROUND) -> np.ndarray:
    """Make one empty frame of some cells."""
    return np.full((CELL_PX * num_rows, CELL_PX * num_columns, 3), colour, dtype=np.uint8)  # (H, W, 3)


def fill(frame: np.ndarray, top: int, left: int, height: int, width: int, colour: Colour) -> None:
    """Fill a box of the frame."""
    frame[top : top + height, left : left + width] = colour


def open_box(frame: np.ndarray, top: int, left: int, height: int, width: int, colour: Colour) -> None:
    """Draw the roof and the two sides of a box, one pixel thick, open at the bottom."""
    fill(frame, top, left, 1, width, colour)
    fill(frame, top, left, height, 1, colour)
    fill(frame, top, left + width - 1, height, 1, colour)


def diagonal(frame: np.ndarray, top: int, left: int, *, rising: bool, colour: Colour) -> None:
    """Draw a thick diagonal through a cell: `/` if rising, else a backslash."""
    for offset in range(2, CELL_PX - 2):
        row = CELL_PX - 1 - offset if rising else offset
        fill(frame, top + row, left + offset, 2, 2, colour)


def shape_masks() -> dict[str, np.ndarray]:
    """Make the six shapes as masks of 10 x 10 pixels, True where the shape is."""
    row, column = np.mgrid[0:_SHAPE_PX, 0:_SHAPE_PX]
    centre = (_SHAPE_PX - 1) / 2
    from_middle = np.abs(column - centre)
    radius_squared = (row - centre) ** 2 + (column - centre) ** 2
    return {
        "circle": radius_squared < 22,
        "square": np.ones((_SHAPE_PX, _SHAPE_PX), dtype=bool),
        "triangle": from_middle <= row / 2 + 0.5,
        "cross": (np.abs(row - column) < 2) | (np.abs(_SHAPE_PX - 1 - row - column) < 2),
        "bar": from_middle < 2,
        "ring": (radius_squared < 24) & (radius_squared > 8),
    }


def stamp(frame: np.ndarray, top: int, left: int, mask: np.ndarray, colour: Colour) -> None:
    """Colour the pixels under a mask whose corner lies at (top, left)."""
    height, width = mask.shape
    frame[top : top + height, left : left + width][mask] = colour


def enlarge(frames: np.ndarray, factor: int = ENLARGEMENT) -> np.ndarray:
    """Turn every pixel into a square of `factor` x `factor` pixels."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)  # (T, factor * H, factor * W, 3)


def check_canvas(frame_size: tuple[int, int], canvas: tuple[int, int]) -> None:
    """Refuse a canvas that frames do not fit on; heights and widths before enlargement.

    Raises:
        ConfigurationError: If it is smaller than they are.
    """
    if canvas[0] < frame_size[0] or canvas[1] < frame_size[1]:
        raise ConfigurationError(
            f"Expected a canvas of at least {frame_size[0]} x {frame_size[1]} pixels but got {canvas[0]} x {canvas[1]}."
        )


def on_canvas(frames: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Put enlarged frames into the top left corner of larger ones, so that clips of several worlds have one size.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            Enlarged, as clips are.
        canvas (`tuple[int, int]`):
            Height and width before enlargement, as `check_canvas` takes them.
    """
    below, beside = ENLARGEMENT * canvas[0] - frames.shape[1], ENLARGEMENT * canvas[1] - frames.shape[2]
    padded = np.pad(frames, ((0, 0), (0, below), (0, beside), (0, 0)))
    padded[:, frames.shape[1] :] = padded[:, :, frames.shape[2] :] = BACKGROUND
    return padded  # (T, height, width, 3)


def shrink(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average a frame down to a size that it is a multiple of: the way back from `enlarge`.

    Raises:
        ConfigurationError: If it is no RGB frame, or no multiple of that size.
    """
    if (
        frame.ndim != 3
        or frame.shape[2] != 3
        or frame.shape[0] % height
        or frame.shape[1] * height != frame.shape[0] * width
    ):
        raise ConfigurationError(
            f"Expected an RGB frame whose height and width are {height} x {width} or a multiple of it but got the shape "
            f"{frame.shape}. Resize it."
        )
    factor = frame.shape[0] // height
    return frame.reshape(height, factor, width, factor, 3).mean(axis=(1, 3), dtype=np.float32)  # (H, W, 3)


def distance(frame: np.ndarray, top: int, left: int, height: int, width: int, colour: Colour) -> float:
    """Mean squared distance between a box of the frame and a colour."""
    box = frame[top : top + height, left : left + width].astype(np.float32)
    return float(((box - np.array(colour, dtype=np.float32)) ** 2).mean())
