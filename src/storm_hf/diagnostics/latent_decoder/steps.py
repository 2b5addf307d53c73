"""Thought videos step by step: for each latent slot its target, and the picture that it stands for.

Axes: N rows, K latent steps, D hidden size, H height, W width of a picture, in pixels.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from storm_hf.diagnostics.latent_decoder.decoder import PATCH_PX
from storm_hf.errors import DatasetError
from storm_hf.evaluation.thought_gallery import ThoughtGallery
from storm_hf.hub.dataset_folder import rows_folder
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.target_trajectory.trajectory import FILE_NAME
from storm_hf.video import read_video


_MAX_PIXELS = 64 * 64


@dataclass(frozen=True, eq=False)
class ThoughtSteps:
    """The steps of some thought videos.

    Args:
        targets (`np.ndarray` of shape `(num_rows, num_latents, hidden_size)`):
            Targets of the latents, `float32`.
        frames (`np.ndarray` of shape `(num_rows, num_latents, height, width, 3)`):
            The last frame of each slot, `uint8`.
        states (`list[list[str]]`):
            State after each step; empty strings where the data set knows none.
    """

    targets: np.ndarray
    frames: np.ndarray
    states: list[list[str]]

    def gallery(self, seed: int = 0) -> ThoughtGallery:
        """One random step of each row, to look latents up in."""
        rows = np.arange(len(self.targets))
        steps = np.random.default_rng(seed).integers(self.targets.shape[1], size=len(rows))
        states = [self.states[row][step] for row, step in zip(rows.tolist(), steps.tolist(), strict=True)]
        return ThoughtGallery(self.targets[rows, steps], states, self.frames[rows, steps])


def find_trajectory(*folders: str | Path) -> TargetTrajectory:
    """Read the target trajectory of the first folder that has one: a checkpoint, then the data set.

    Raises:
        DatasetError: If none has.
    """
    for folder in map(rows_folder, folders):
        if (folder / FILE_NAME).is_file():
            return TargetTrajectory.load(folder)
    names = " or ".join(str(folder) for folder in folders)
    raise DatasetError(
        f"Expected {FILE_NAME}, which holds the targets of the latents, in {names} but it is not there. "
        "Name the folder of the data set that the model was trained on."
    )


def fingerprint(trajectory: TargetTrajectory) -> str:
    """Short hash of the space that a trajectory's targets lie in."""
    digest = sha256(f"{trajectory.pooling} {trajectory.layout} {trajectory.normalize}".encode())
    if trajectory.statistics is not None:
        for tensor in (trajectory.statistics.mean, trajectory.statistics.projection):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def read_steps(
    rows: Iterable[Mapping[str, Any]],
    trajectory: TargetTrajectory,
    *,
    max_pixels: int = _MAX_PIXELS,
    on_row: Callable[[], None] | None = None,
) -> ThoughtSteps:
    """Read targets and pictures of rows of a storm-thoughts data set.

    Args:
        rows (`Iterable[Mapping[str, Any]]`):
            Rows with `thought_features` and `thought_video`.
        trajectory ([`TargetTrajectory`]):
            Makes the targets.
        max_pixels (`int`, *optional*, defaults to `4096`):
            Pixels of a picture at most. All pictures get the size of the first one.
        on_row (`Callable[[], None]`, *optional*):
            Called after each row. Progress bars use it.

    Raises:
        DatasetError: If there is no row, or one has no thought video.
        VideoReadError: If a thought video cannot be read.
    """
    targets, frames, states = [], [], []
    size: tuple[int, int] | None = None
    for row in rows:
        if not row.get("thought_video"):
            raise DatasetError(
                "Expected rows with the column thought_video, the films that the pictures come from, but got one without. "
                "Build the data set with its thought videos, or load the configuration that holds them."
            )
        film = read_video(str(row["thought_video"])).frames
        size = size or picture_size(film.shape[1], film.shape[2], max_pixels)
        targets.append(trajectory([np.asarray(row["thought_features"])])[0].numpy())
        frames.append(
            np.stack([resize(film[index], *size) for index in last_frames(len(film), trajectory.num_latents)])
        )
        states.append(_states(row, trajectory.num_latents))
        if on_row is not None:
            on_row()
    if not frames:
        raise DatasetError("Expected at least one row but got none. Name another split.")
    return ThoughtSteps(np.stack(targets), np.stack(frames), states)


def picture_size(height: int, width: int, max_pixels: int) -> tuple[int, int]:
    """Size of a picture with about the aspect of a frame and at most so many pixels, in multiples of 8."""
    scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    return _multiple(scale * height), _multiple(scale * width)


def resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average a frame down, or enlarge it, to a size."""
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))


def _states(row: Mapping[str, Any], num_latents: int) -> list[str]:
    """States of a row in any format of `datasets`, or empty strings."""
    states = row.get("states")
    return [""] * num_latents if states is None or not len(states) else [str(state) for state in states]


def _multiple(pixels: float) -> int:
    return max(PATCH_PX, PATCH_PX * math.floor(pixels / PATCH_PX + 1e-6))


def last_frames(num_frames: int, num_latents: int) -> list[int]:
    """Index the last frame of each slot, where the stretches of `pool_to_trajectory` end."""
    return [math.ceil((slot + 1) * num_frames / num_latents) - 1 for slot in range(num_latents)]
