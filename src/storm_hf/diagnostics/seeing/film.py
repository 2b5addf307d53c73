"""A film of three pictures side by side, one for each latent step: the clip, the true thought, and what the model imagined.

Axes: T frames, K latent steps, H height, W width, in pixels.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from storm_hf.diagnostics.seeing.steps import last_frames, resize
from storm_hf.reporting import side_by_side
from storm_hf.writing import written_whole


HEIGHT_PX = 128
_GIF_SECONDS_PER_UNIT = 1000
_NOTHING_YET = 48  # shade of a panel while the clip shows what precedes the first step


def thought_film(clip: np.ndarray, thought: np.ndarray, imagined: np.ndarray, height: int = HEIGHT_PX) -> np.ndarray:
    """Lay clip, true thought and imagined thought side by side, one frame for each step.

    All three show the end of the step, since a latent stands for the last frame of its slot. Clip and thought video end
    together; a shorter clip holds its first frame. What a longer clip shows before the first step closes the film, with
    empty panels beside it: the film is a loop, and its first picture is a step.

    Args:
        clip (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            Input clip, `uint8`.
        thought (`np.ndarray` of shape `(num_thought_frames, height, width, 3)`):
            True thought video.
        imagined (`np.ndarray` of shape `(num_latents, height, width, 3)`):
            Rendered latents.
        height (`int`, *optional*, defaults to `128`):
            Of the film, in pixels.

    Returns:
        `np.ndarray` of shape `(num_frames, height, width, 3)`: Frames for `len(imagined)` steps, then the beginning of the clip.
    """
    ends = np.array(last_frames(len(thought), len(imagined)))  # (K,)
    num_before = len(clip) - len(thought)
    begin = clip[: max(0, num_before) : math.ceil(len(thought) / len(imagined))]
    films = (np.concatenate([clip[np.maximum(0, ends + num_before)], begin]), thought[ends], imagined)
    seen, true, drawn = (_to_height(film, height) for film in films)
    return side_by_side(side_by_side(seen, _then_nothing(true, len(begin))), _then_nothing(drawn, len(begin)))


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


def _then_nothing(film: np.ndarray, num_frames: int) -> np.ndarray:
    empty = np.full((num_frames, *film.shape[1:]), _NOTHING_YET, dtype=np.uint8)
    return np.concatenate([film, empty])


def _to_height(film: np.ndarray, height: int) -> np.ndarray:
    width = 2 * max(1, round(film.shape[2] * height / film.shape[1] / 2))  # even, as 4:2:0 video needs
    return np.stack([resize(frame, height, width) for frame in film])
