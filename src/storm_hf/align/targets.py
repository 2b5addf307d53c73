"""Choice of the targets of Stage I: given, saved with the data set, or fitted to its rows."""

import logging
import os
from typing import Any

from storm_hf.align.config import StormAlignConfig
from storm_hf.errors import DatasetError
from storm_hf.pipeline.paths import origin_of
from storm_hf.target_trajectory.published import find_targets
from storm_hf.target_trajectory.schema import FEATURES_COLUMN
from storm_hf.target_trajectory.trajectory import FILE_NAME, TargetTrajectory


DEFAULT_RANK = 16  # enough for `shuffle`; `choose_rank` finds it for other data

logger = logging.getLogger(__name__)


def choose_targets(
    given: TargetTrajectory | str | os.PathLike[str] | None, rows: Any, num_latents: int, args: StormAlignConfig
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
        TrajectoryShapeError: If the saved statistics know another number of slots.
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
        TrajectoryShapeError: If the saved statistics know another number of slots.
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
    return saved.with_num_latents(num_latents)


def fit_trajectory(dataset: Any, num_latents: int, args: StormAlignConfig) -> TargetTrajectory:
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
