"""Targets of Stage I: their choice (given, saved with the data set, or fitted to its rows) and those of a whole batch.

One batch of four and four accumulated batches of one see the same targets, so that gauges and contrastive losses are equal.
Where the whole batch is one row, it is compared with the targets of earlier batches, without its own of an earlier epoch or
evaluation.

Axes: N rows, K latent steps, D hidden size.
"""

import logging
import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from storm_hf.align.config import StormAlignConfig
from storm_hf.errors import DatasetError
from storm_hf.pipeline.paths import origin_of
from storm_hf.target_trajectory.schema import FEATURES_COLUMN
from storm_hf.target_trajectory.shards import find_targets
from storm_hf.target_trajectory.trajectory import FILE_NAME, TargetTrajectory
from storm_hf.training.arguments import Rows


DEFAULT_RANK = 16  # enough for `shuffle`; `choose_rank` finds it for other data

logger = logging.getLogger(__name__)


def choose_targets(
    given: TargetTrajectory | str | os.PathLike[str] | None, rows: Rows, num_latents: int, args: StormAlignConfig
) -> TargetTrajectory:
    """Find the targets that a data set's builder saved, or fit others where there are none or `args` ask for others.

    Args:
        given ([`TargetTrajectory`], `str` or `os.PathLike`, *optional*):
            The targets themselves, or the data set that they were saved with. By default the one that `rows` were loaded from.
        rows ([`~datasets.Dataset`]):
            The training split, which others are fitted to.
        num_latents (`int`):
            Number K of latent steps.
        args ([`StormAlignConfig`]):
            Settings of the targets; see [`saved_trajectory`].

    Raises:
        DatasetError: If no targets were saved with the data set that is given, or there is nothing to fit to.
        LatentError: If the saved statistics know another number of slots.
    """
    if isinstance(given, TargetTrajectory):
        return given
    place = origin_of(rows) if given is None else os.fspath(given)
    saved = None if place is None else saved_trajectory(place, num_latents, args)
    if saved is not None:
        logger.info("Targets of %s: %s", place, _described(saved))
        return saved
    if given is not None and find_targets(given) is None:
        raise DatasetError(
            f"Expected {FILE_NAME} with the data set {place}, but it is not there. Build the data set to its end, or leave "
            "`target_trajectory` out to fit targets to the rows."
        )
    fitted = fit_trajectory(rows, num_latents, args)
    is_asked_for = args.whitening_rank is not None or args.target_normalize != "whiten"
    logger.log(
        logging.INFO if is_asked_for else logging.WARNING,
        "Targets were fitted to the training rows: %s. For those that the data set's builder chose, load the rows with "
        "`load_rows(folder)`, or give `target_trajectory=folder`.",
        _described(fitted),
    )
    return fitted


def _described(targets: TargetTrajectory) -> str:
    rank = "" if targets.statistics is None else f" of rank {targets.statistics.rank}"
    return f"{targets.normalize}{rank}, {targets.pooling} pooling, layout {targets.layout}, K = {targets.num_latents}"


def saved_trajectory(
    dataset_folder: str | os.PathLike[str], num_latents: int, args: StormAlignConfig
) -> TargetTrajectory | None:
    """Look for the targets that a data set's builder chose and saved, unless `args` ask for others.

    Args:
        dataset_folder (`str` or `os.PathLike`):
            A folder, or the name of a data set on the Hub.
        num_latents (`int`):
            Number K of latent steps.
        args ([`StormAlignConfig`]):
            Ask for others with `whitening_rank`, with `target_normalize` other than `"whiten"`, or with a pooling, layout or
            `whitening_statistics` that is neither the default nor the saved one, which is logged.

    Raises:
        LatentError: If the saved statistics know another number of slots.
    """
    if args.whitening_rank is not None or args.target_normalize != "whiten":
        return None
    saved = find_targets(dataset_folder)
    if saved is None:
        return None
    is_pooled = saved.statistics is None or saved.statistics.num_latents is None
    asked = {
        "pooling": (args.target_pooling, "temporal", saved.pooling),
        "layout": (args.target_layout, "average", saved.layout),
        "statistics": (args.whitening_statistics, "pooled", "pooled" if is_pooled else "per_slot"),
    }
    for name, (wanted, default, known) in asked.items():
        if wanted not in (default, known):
            logger.warning(
                "The targets saved with %s have the %s %r, but %r is asked for: others are fitted to its training split, of rank `whitening_rank`.",
                dataset_folder,
                name,
                known,
                wanted,
            )
            return None
    if saved.num_latents != num_latents:
        logger.warning(
            "The targets saved with %s have %d steps, but the model has %d latents: thought videos are pooled anew. Set "
            "`num_latents=%d` unless that is meant.",
            *(dataset_folder, saved.num_latents, num_latents, saved.num_latents),
        )
    return saved.with_num_latents(num_latents)


def fit_trajectory(dataset: Rows, num_latents: int, args: StormAlignConfig) -> TargetTrajectory:
    """Learn from a training split how its thought features become targets.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows with `thought_features`.
        num_latents (`int`):
            Number K of latent steps.
        args ([`StormAlignConfig`]):
            Says how to pool and normalise.

    Raises:
        DatasetError: If there are no thought features to fit to.
    """
    if args.target_normalize != "whiten":
        return TargetTrajectory(num_latents, args.target_pooling, args.target_layout, normalize=args.target_normalize)
    columns = getattr(dataset, "column_names", None) or (FEATURES_COLUMN,)  # a stream may not know them
    if FEATURES_COLUMN not in columns:
        raise DatasetError(
            f"Stage I needs the column `{FEATURES_COLUMN}`, got {sorted(columns)}. Build the data set with "
            "`storm build RECIPE`, or train answers only with StormAnswerTrainer."
        )
    thoughts = dataset.select_columns([FEATURES_COLUMN]).with_format("numpy")
    return TargetTrajectory.fit(
        (batch[FEATURES_COLUMN] for batch in thoughts.iter(256)),
        num_latents=num_latents,
        rank=DEFAULT_RANK if args.whitening_rank is None else args.whitening_rank,
        pooling=args.target_pooling,
        layout=args.target_layout,
        statistics=args.whitening_statistics,
        seed=args.seed,
    )


MOST_EARLIER = 64  # rows; K x D numbers each
_ROUNDING = 1e-4


class KnownTargets:
    """Targets of the current accumulated batch, and of earlier ones.

    Args:
        accelerator ([`~accelerate.Accelerator`]):
            Gathers over processes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._known = self._earlier = torch.empty(0)
        self._next = self._end = 0

    def begin(self, micro_batches: Sequence[torch.Tensor]) -> None:
        """Gather the targets of an accumulated batch, of which each micro-batch is `(num_rows, num_latents, hidden_size)`."""
        mine = torch.cat(list(micro_batches)).detach().float()
        batch, self._next = self._gather(mine)
        self._end = self._next + len(mine)
        earlier = self._earlier.to(batch) if self._earlier.shape[1:] == batch.shape[1:] else batch[:0]
        self._known = batch
        if len(batch) == 1:
            others = earlier[~_is_same(earlier, batch)]
            self._known = torch.cat(
                [batch, others if len(others) else earlier]
            )  # where all are one vector, that is what is logged
            earlier = others
        self._earlier = torch.cat([earlier, batch])[-MOST_EARLIER:]

    def take(self, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Take the turn of the next micro-batch, which is a batch of its own where none was begun, as in an evaluation.

        Args:
            targets (`torch.Tensor` of shape `(num_rows, num_latents, hidden_size)`):
                Targets of the micro-batch.

        Returns:
            `tuple`: All known targets (N, K, D), and the row in which those of the micro-batch begin.
        """
        if self._next + len(targets) > self._end:
            self.begin([targets])
        first = self._next
        self._next += len(targets)
        return self._known, first

    def _gather(self, mine: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Concatenate the rows of all processes, whose numbers may differ, and count those before the own."""
        if self._accelerator.num_processes == 1:
            return mine, 0
        counts = self._accelerator.gather(torch.tensor([len(mine)], device=mine.device)).tolist()
        padded = F.pad(mine, (0, 0, 0, 0, 0, max(counts) - len(mine)))
        of_rank = self._accelerator.gather(padded).split(max(counts))
        rows = [rows[:count] for rows, count in zip(of_rank, counts, strict=True)]
        return torch.cat(rows), sum(counts[: self._accelerator.process_index])


def _is_same(targets: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """Mark the targets (N, K, D) that equal one (1, K, D) up to rounding: those of the same row, met again."""
    return (targets - one).abs().amax(dim=(1, 2)) <= _ROUNDING * one.abs().max()
