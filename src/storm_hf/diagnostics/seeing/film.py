"""A film of three pictures side by side: the clip, the true thought, and what the model imagined.

Axes: T frames, K latent steps, H height, W width, in pixels.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from storm_hf.diagnostics.seeing.steps import resize
from storm_hf.reporting import side_by_side
from storm_hf.writing import written_whole


HEIGHT_PX = 128
_GIF_SECONDS_PER_UNIT = 1000


def thought_film(clip: np.ndarray, thought: np.ndarray, imagined: np.ndarray, height: int = HEIGHT_PX) -> np.ndarray:
    """Lay clip, true thought and imagined thought side by side, in step.

    The thought video sets the pace: each imagined picture stands as long as its slot of it. Where the clip is longer or
    shorter, both end together, and the shorter one holds its first frame.

    Args:
        clip (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            What the model saw, `uint8`.
        thought (`np.ndarray` of shape `(num_thought_frames, height, width, 3)`):
            What it should imagine.
        imagined (`np.ndarray` of shape `(num_latents, height, width, 3)`):
            What it imagined.
        height (`int`, *optional*, defaults to `128`):
            Of the film, in pixels.
    """
    slots = np.arange(len(thought)) * len(imagined) // len(thought)  # (T,)
    seen, true, drawn = (_to_height(film, height) for film in (clip, thought, imagined))
    return side_by_side(side_by_side(seen, true, align="end"), drawn[_at_the_end(slots, len(seen))], align="end")


def write_gif(path: Path, frames: np.ndarray, *, fps: float) -> Path:
    """Write frames (T, H, W, 3) as a GIF that plays for ever, complete or not at all."""
    pictures = [Image.fromarray(frame) for frame in frames]
    with written_whole(path) as unfinished:
        pictures[0].save(
            unfinished,
            format="gif",
            save_all=True,
            append_images=pictures[1:],
            duration=round(_GIF_SECONDS_PER_UNIT / fps),
            loop=0,
        )
    return path


def _at_the_end(slots: np.ndarray, num_frames: int) -> np.ndarray:
    """Hold the first slot while a longer clip begins."""
    return np.pad(slots, (max(0, num_frames - len(slots)), 0), mode="edge")


def _to_height(film: np.ndarray, height: int) -> np.ndarray:
    width = 2 * max(1, round(film.shape[2] * height / film.shape[1] / 2))  # even, as 4:2:0 video needs
    return np.stack([resize(frame, height, width) for frame in film])
