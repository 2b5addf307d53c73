"""The questions of a diagnosis: rows of a storm-thoughts data set, with the true thoughts and the simulator if there are any.

Axes: N questions, K latent steps, D hidden size.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storm_hf.diagnostics.verdict import FEWEST_CLIPS
from storm_hf.errors import ConfigurationError, DatasetError, StormError, first_line
from storm_hf.hub.dataset_folder import is_of_builder, rows_folder
from storm_hf.inputs.conversation import read_choices, read_options
from storm_hf.inputs.prompts import Row
from storm_hf.interventions.token_replacement import usual_wording
from storm_hf.optional import require
from storm_hf.target_trajectory.schema import FEATURES_COLUMN
from storm_hf.target_trajectory.shards import load_thoughts
from storm_hf.target_trajectory.trajectory import FILE_NAME, TargetTrajectory
from storm_hf.worlds import make_world
from storm_hf.worlds.registry import WORLD_NAMES
from storm_hf.worlds.world import World


_GENERATOR = "storm_hf.worlds."  # as the simulator signs its thought videos


@dataclass(frozen=True, eq=False)
class Questions:
    """Questions to a model, with what is known about them.

    Args:
        rows (`list`):
            Rows of a storm-thoughts data set.
        targets (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`, *optional*):
            The true thoughts, in the space of the latents.
        states (`np.ndarray` of shape `(num_questions, num_latents)`, *optional*):
            State of the world after each step, in a word.
        world ([`~storm_hf.worlds.World`], *optional*):
            The simulator that made them.
        absent (`dict[str, str]`):
            Missing facts, with the reason.
    """

    rows: list[Row]
    targets: np.ndarray | None
    states: np.ndarray | None
    world: World[Any] | None
    absent: dict[str, str]

    @property
    def clips(self) -> list[str]:
        """The clip of each question: questions about the same one are not independent."""
        return [str(row["video"]["path"] if isinstance(row["video"], dict) else row["video"]) for row in self.rows]

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing among the options; None if a question is open."""
        counts = [len(read_options(row) or read_choices(row)) for row in self.rows]
        return float(np.mean([1 / count for count in counts])) if all(counts) else None


def read_questions(
    dataset: str,
    *,
    num_latents: int,
    hidden_size: int,
    split: str = "test",
    limit: int | None = None,
    depths: Collection[int] = (),
    world: str | None = None,
    checkpoint: str | None = None,
    seed: int = 0,
) -> Questions:
    """Read the questions of a data set, and whatever it says about the true thoughts.

    Args:
        dataset (`str`):
            Folder of a storm-thoughts data set, of a run of `storm demo` or of rows of one's own, or a name on the Hub.
        num_latents (`int`):
            Number K of latent steps of the model.
        hidden_size (`int`):
            Size of its latents.
        split (`str`, *optional*, defaults to `"test"`):
            Split of the data set.
        limit (`int`, *optional*):
            Most questions, drawn at random.
        depths (`Collection[int]`, *optional*):
            Only questions that need so many steps; all, if none is given.
        world (`str`, *optional*):
            Name of the simulator, where the data does not say.
        checkpoint (`str`, *optional*):
            Folder of the model, which may hold the statistics of its targets.
        seed (`int`, *optional*, defaults to `0`):
            Draws the questions.

    Raises:
        DatasetError: If there is no such data set or split, or no question is left.
    """
    table = _open(dataset, split).with_format("numpy")
    rows: list[Row] = [table[index] for index in _chosen(table, depths, limit, seed)]
    if not rows:
        raise DatasetError(
            f"The split {split} of {dataset} has no question of depth {sorted(depths)}. Leave --depth out."
        )
    absent: dict[str, str] = {}
    states = _states(rows, num_latents, absent)
    return Questions(
        rows=rows,
        targets=_targets(rows, find_statistics(dataset, checkpoint), num_latents, hidden_size, absent),
        states=states,
        world=_simulator(rows, states, world, absent),
        absent=absent,
    )


def check_questions(dataset: str, *, split: str = "test", depths: Collection[int] = ()) -> None:
    """Make sure that there are questions enough, which takes less time than to load a model.

    Args:
        dataset (`str`):
            As in [`read_questions`].
        split (`str`, *optional*, defaults to `"test"`):
            As there.
        depths (`Collection[int]`, *optional*):
            As there.

    Raises:
        DatasetError: If there is no such data set or split, or it has fewer than two questions.
    """
    found = len(_chosen(_open(dataset, split), depths, limit=None, seed=0))
    if found < 2:
        raise DatasetError(
            f"Expected two questions or more in the split {split} of {dataset}, and {FEWEST_CLIPS} clips for a verdict, but "
            f"got {found}{' of these depths' if depths else ''}. Build more, or name another split with --split."
        )


def _open(dataset: str, split: str) -> Any:
    folder = Path(dataset)
    if is_of_builder(folder):
        splits = load_thoughts(rows_folder(folder))
    elif folder.is_dir():
        from storm_hf.training.loading import load_rows  # with TRL and PEFT, which built data sets need not wait for

        splits = load_rows(dataset)
    else:
        try:
            splits = require("datasets").load_dataset(dataset)
        except (OSError, ValueError, ConnectionError) as error:
            raise DatasetError(
                f"There is no folder {dataset}, and no data set of that name could be had: {first_line(error)}."
            ) from error
    if split not in splits:
        raise DatasetError(f"{dataset} has no split {split!r}; it has {', '.join(splits)}. Name one with --split.")
    return splits[split]


def _chosen(table: Any, depths: Collection[int], limit: int | None, seed: int) -> list[int]:
    indices = np.arange(len(table))
    if depths:
        if "depth" not in table.column_names:
            raise DatasetError("These questions do not say how many steps they need. Leave --depth out.")
        indices = indices[np.isin(np.asarray(table["depth"]), list(depths))]
    if limit is not None and limit < len(indices):
        indices = np.sort(np.random.default_rng(seed).permutation(indices)[:limit])
    return indices.tolist()


def _states(rows: Sequence[Row], num_latents: int, absent: dict[str, str]) -> np.ndarray | None:
    lengths = {0 if row.get("states") is None else len(row["states"]) for row in rows}
    if lengths == {num_latents}:
        return np.array([[str(state) for state in row["states"]] for row in rows])
    absent["states"] = (
        "The data does not say what is true after each step."
        if lengths == {0}
        else f"The data has {max(lengths)} steps, and the model thinks in {num_latents}."
    )
    return None


def find_statistics(dataset: str, checkpoint: str | None) -> Path | None:
    """The folder with the statistics of the targets that the model was trained on, as far as one can know."""
    run = Path(dataset)
    folders = [Path(checkpoint)] if checkpoint else []
    folders += [run / "arms" / "align", run / "data", run]  # a demo's run, whose Stage I knows best; a data set
    return next((folder for folder in folders if (folder / FILE_NAME).is_file()), None)


def _targets(
    rows: Sequence[Row], folder: Path | None, num_latents: int, hidden_size: int, absent: dict[str, str]
) -> np.ndarray | None:
    if any(row.get(FEATURES_COLUMN) is None for row in rows):
        absent["targets"] = f"The data has no thought videos (no column `{FEATURES_COLUMN}`)."
    elif folder is None:
        absent["targets"] = f"Neither the model nor the data has the statistics of the targets ({FILE_NAME})."
    else:
        try:
            trajectory = TargetTrajectory.load(folder).with_num_latents(num_latents)
            targets = trajectory([np.asarray(row[FEATURES_COLUMN]) for row in rows]).numpy()
        except StormError as error:
            absent["targets"] = f"The thoughts of the data do not fit the model: {error}"
            return None
        if targets.shape[2] == hidden_size:
            return targets
        absent["targets"] = (
            f"The thoughts of the data have size {targets.shape[2]}, the model's latents {hidden_size}."
        )
    return None


def _simulator(
    rows: Sequence[Row], states: np.ndarray | None, name: str | None, absent: dict[str, str]
) -> World[Any] | None:
    """World that generates every one of these rows as it is."""
    signed = {str(row.get("generator", "")) for row in rows}
    if name is None and len(signed) == 1:
        name = signed.pop().removeprefix(_GENERATOR)
    if states is None:
        absent["simulator"] = absent["states"]
        return None
    if name not in WORLD_NAMES:
        absent["simulator"] = "The clips come from no simulator, which alone knows what would have followed."
        return None
    try:
        world = _of_length(name, states.shape[1])
    except ConfigurationError as error:
        absent["simulator"] = f"The world {name} cannot be described in {states.shape[1]} steps: {error}"
        return None
    for row, told in zip(rows, states.tolist(), strict=True):
        text = world.describe(int(row["seed"]), depth=int(row["depth"]))
        if (text.question, text.answer, list(text.states)) != (*usual_wording(row), told):
            absent["simulator"] = f"The world {name} does not tell these questions as the data does."
            return None
    return world


def _of_length(name: str, num_steps: int) -> World[Any]:
    """The world with so many steps; the depths that it would draw by itself do not matter, since each row says its own."""
    knobs: dict[str, int] = vars(make_world(name))
    bounds = {knob: min(value, num_steps) for knob, value in knobs.items() if knob.startswith(("min_", "max_"))}
    return make_world(name, **bounds, num_steps=num_steps)
