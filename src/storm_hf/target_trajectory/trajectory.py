"""`TargetTrajectory`: features of thought videos in, what the latents are aligned to out. It travels with the data set.

Axes: B batch, T temporal patches, C cells of a temporal patch, D hidden size, K latent steps, F features of a pooled slot.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from storm_hf.atomic import written_atomically
from storm_hf.errors import DatasetError, LatentError
from storm_hf.target_trajectory.pool import Features, Layout, Pooling, as_clips, check_pooling, pool_clips
from storm_hf.target_trajectory.whiten import SlotStatistics, WhiteningStatistics


Normalization = Literal["whiten", "layernorm", "none"]

FILE_NAME = "whitening.safetensors"
_METADATA_KEY = "target_trajectory"


@dataclass(frozen=True, eq=False)
class TargetTrajectory:
    """Pools and normalises the features of thought videos.

    Args:
        num_latents (`int`):
            Number K of latent steps.
        pooling (`str`, *optional*, defaults to `"temporal"`):
            See [`pool_to_trajectory`]. `sequence` is the paper's.
        layout (`str`, *optional*, defaults to `"average"`):
            See [`pool_to_trajectory`].
        statistics ([`WhiteningStatistics`], *optional*):
            Of the training split; needed by `whiten`, unknown to the others.
        normalize (`str`, *optional*, defaults to `"whiten"`):
            `whiten` removes what all thought videos share. `layernorm` only gives each slot unit size: alignment to it looks
            perfect and carries nothing, which the naive arm of the demo shows. `none` leaves features as pooled, as in the
            paper.

    Raises:
        LatentError: If pooling, layout and normalisation do not go together.
    """

    num_latents: int
    pooling: Pooling = "temporal"
    layout: Layout = "average"
    statistics: WhiteningStatistics | None = None
    normalize: Normalization = "whiten"

    def __post_init__(self) -> None:
        check_pooling(self.num_latents, self.pooling, self.layout)
        if self.normalize not in ("whiten", "layernorm", "none"):
            raise LatentError(f"Expected normalize whiten, layernorm or none but got {self.normalize!r}.")
        if (self.statistics is None) == (self.normalize == "whiten"):
            raise LatentError(
                f"Whitening, and nothing else, needs statistics, but normalize={self.normalize!r} came "
                f"{'without' if self.statistics is None else 'with'} them. Make one with `TargetTrajectory.fit`."
            )
        if self.normalize != "whiten" and self.layout == "concat":
            raise LatentError(
                "Cells side by side are larger than a latent, and only whitening brings them to its size. Use "
                "normalize='whiten' or layout='average'."
            )
        if self.statistics is not None and self.statistics.num_latents not in (None, self.num_latents):
            raise LatentError(
                f"These statistics know the mean of each of {self.statistics.num_latents} slots, but num_latents is "
                f"{self.num_latents}. Fit them with statistics='pooled', which serves every number of slots."
            )

    @classmethod
    def fit(
        cls,
        features: Iterable[Features],
        *,
        num_latents: int,
        rank: int,
        pooling: Pooling = "temporal",
        layout: Layout = "average",
        statistics: SlotStatistics = "pooled",
        seed: int = 0,
    ) -> "TargetTrajectory":
        """Learn whitening from the thought videos of the training split, in one pass.

        Args:
            features (iterable of `torch.Tensor`, `np.ndarray` or lists of them):
                Batches of features as `__call__` takes them, or the features of single clips
                (temporal patches, cells, hidden size).
            num_latents (`int`):
                Number K of latent steps.
            rank (`int`):
                Number of principal components to keep; `choose_rank` finds a good one.
            pooling (`str`, *optional*, defaults to `"temporal"`):
                See [`pool_to_trajectory`].
            layout (`str`, *optional*, defaults to `"average"`):
                See [`pool_to_trajectory`].
            statistics (`str`, *optional*, defaults to `"pooled"`):
                See [`WhiteningStatistics.fit`].
            seed (`int`, *optional*, defaults to `0`):
                See [`WhiteningStatistics.fit`].

        Raises:
            DatasetError: If features are not finite.
            LatentError: If the features have other shapes than these, or too few of them are given.
        """
        check_pooling(num_latents, pooling, layout)
        first, batches = _peek(features)
        hidden_size = first[0].shape[-1] if first else None
        pooled = (pool_clips(batch, num_latents, pooling=pooling, layout=layout) for batch in batches)
        fitted = WhiteningStatistics.fit(
            _finite(pooled), rank, statistics=statistics, hidden_size=hidden_size, seed=seed
        )
        return cls(num_latents, pooling, layout, fitted)

    def __call__(self, features: Features) -> torch.Tensor:
        """Make the target trajectories of some thought videos.

        Args:
            features (`torch.Tensor` of shape `(batch_size, num_temporal_patches, num_cells, hidden_size)` or a sequence):
                Features of a batch; a sequence holds one array without the batch axis per clip, and their numbers of
                patches may differ.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`: In float32. Whitened and layer-normalised
            targets have elements of unit root mean square.

        Raises:
            DatasetError: If features are not finite.
            LatentError: If the features do not have the axes or sizes above.
        """
        (trajectory,) = _finite([self.pool(features)])
        if self.statistics is not None:
            return self.statistics.transform(trajectory)
        return F.layer_norm(trajectory, trajectory.shape[-1:]) if self.normalize == "layernorm" else trajectory

    def pool(self, features: Features) -> torch.Tensor:
        """Pool without normalising: (batch_size, num_latents, slot_size). Arguments as in `__call__`."""
        return pool_clips(as_clips(features), self.num_latents, pooling=self.pooling, layout=self.layout)

    def with_num_latents(self, num_latents: int) -> "TargetTrajectory":
        """The same for another number of steps, for example longer than trained.

        Raises:
            LatentError: If the statistics are per slot and so know one number only.
        """
        return replace(self, num_latents=num_latents)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `whitening.safetensors` into a folder, complete or not at all."""
        path = Path(folder) / FILE_NAME
        settings = {name: getattr(self, name) for name in ("num_latents", "pooling", "layout", "normalize")}
        tensors = {}
        if self.statistics is not None:
            settings["rank"] = self.statistics.rank
            tensors = {
                name: getattr(self.statistics, name).contiguous() for name in ("mean", "projection", "variances")
            }
        with written_atomically(path) as unfinished:
            save_file(tensors, unfinished, metadata={_METADATA_KEY: json.dumps(settings, sort_keys=True)})
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "TargetTrajectory":
        """Read what `save` wrote.

        Args:
            folder (`str` or `os.PathLike`):
                A data set or a checkpoint.

        Raises:
            DatasetError: If there is no such file in the folder, or it is another's.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            raise DatasetError(f"Expected {FILE_NAME} in {folder} but it is not there. Build the data set to its end.")
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(_METADATA_KEY)
            if metadata is None:
                raise DatasetError(f"{path} holds no target trajectory. Build the data set again.")
            settings = json.loads(metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        statistics = WhiteningStatistics(**tensors, rank=settings.pop("rank")) if tensors else None
        return cls(statistics=statistics, **settings)


def _finite(batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Pass pooled features on, and refuse those that are not finite by their number over all batches."""
    num_before = 0
    for batch in batches:
        if broken := [row for row, clip in enumerate(batch) if not clip.isfinite().all()]:
            raise DatasetError(
                f"Expected thought features that are finite, got others in row {num_before + broken[0]}. Encode those thought videos again."
            )
        num_before += len(batch)
        yield batch


def _peek(features: Iterable[Features]) -> tuple[list[torch.Tensor], Iterator[list[torch.Tensor]]]:
    """Look at the first batch of an iterable without losing it."""
    batches = (as_clips(batch) for batch in features)
    first = next(batches, [])
    return first, (batch for part in ([first] if first else [], batches) for batch in part)
