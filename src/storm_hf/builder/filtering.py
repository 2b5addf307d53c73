"""Decisions over all thought videos: duplicates, the common frame size, and the remaining shards."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from storm_hf.atomic import read_json, write_json
from storm_hf.builder.progress import (
    EARLIER,
    SELECTION_FILE,
    SELECTION_STEP,
    THOUGHTS,
    Plan,
    Selection,
    record_path,
    split_of,
)
from storm_hf.builder.row_steps import DUPLICATE, Row, read_records
from storm_hf.errors import DatasetError
from storm_hf.pipeline.workspace import Workspace
from storm_hf.target_trajectory.schema import DATA
from storm_hf.thought_video import find_duplicates


if TYPE_CHECKING:  # a look at a build needs no torch
    from storm_hf.builder.recipe import ThoughtsRecipe


def kept_rows(workspace: Workspace, shard: str) -> Iterator[Row]:
    """The rows of a shard that have a thought video."""
    for record in read_records(record_path(workspace, THOUGHTS, shard), workspace.root):
        if isinstance(record, Row):
            yield record


def rows_of(selection: Selection, shard: str, workspace: Workspace) -> list[Row]:
    """Read the rows of a shard of data."""
    kept = kept_rows(workspace, selection.shards[shard])
    return [row for row in kept if row.annotation.id not in selection.refused]


def select(recipe: "ThoughtsRecipe", plan: Plan, workspace: Workspace) -> None:
    """Decide, unless it was decided before. The result depends on the set of all thought videos alone.

    Raises:
        DatasetError: If nothing of the training split is left.
    """
    with workspace.claimed(SELECTION_STEP, SELECTION_FILE) as path:
        if path is not None:
            selection = _select(recipe, plan, workspace)
            _remove_outdated_data(selection, workspace)
            write_json(path, asdict(selection))
            workspace.shard(SELECTION_STEP, EARLIER).unlink(missing_ok=True)


def _remove_outdated_data(selection: Selection, workspace: Workspace) -> None:
    """Remove the shards of data that an earlier selection made of other rows; see `retry`."""
    path = workspace.shard(SELECTION_STEP, EARLIER)
    if not path.exists():
        return
    earlier = Selection(**read_json(path))
    for name in earlier.shards:
        if not _is_same_data(name, earlier, selection, workspace):
            workspace.shard(DATA, name).unlink(missing_ok=True)


def _is_same_data(name: str, earlier: Selection, selection: Selection, workspace: Workspace) -> bool:
    if selection.shards.get(name) != earlier.shards[name] or list(earlier.frame_size) != list(selection.frame_size):
        return False
    ids = {row.annotation.id for row in kept_rows(workspace, earlier.shards[name])}
    return ids & earlier.refused.keys() == ids & selection.refused.keys()


def _select(recipe: "ThoughtsRecipe", plan: Plan, workspace: Workspace) -> Selection:
    order = [shard for split in ("train", *recipe.splits) for shard in plan.shards_of(split)]
    first = next((row for shard in order for row in kept_rows(workspace, shard)), None)
    if first is None or first.frame_size is None or split_of(order[0]) != "train":
        raise _nothing_left(workspace)
    refused = _other_sizes(plan, workspace, first.frame_size)
    refused |= _duplicates(recipe, plan, workspace, refused)
    shards, num_rows = {}, {}
    for split in recipe.splits:
        counts = {
            shard: sum(row.annotation.id not in refused for row in kept_rows(workspace, shard))
            for shard in plan.shards_of(split)
        }
        left = [shard for shard, count in counts.items() if count]
        for number, shard in enumerate(left):
            name = f"{split}-{number:05d}-of-{len(left):05d}.parquet"
            shards[name], num_rows[name] = shard, counts[shard]
    if not any(split_of(shard) == "train" for shard in shards.values()):
        raise _nothing_left(workspace)
    return Selection(first.frame_size, refused, shards, num_rows)


def _other_sizes(plan: Plan, workspace: Workspace, size: tuple[int, int]) -> dict[str, str]:
    """Rows whose thought video has another size than the first one: their features would have another shape."""
    return {
        row.annotation.id: (
            f"other size: its thought video has {row.frame_size} pixels, height and width, the first one {size}; "
            "frame_size in the recipe brings all to one"
        )
        for shard in plan.num_rows
        for row in kept_rows(workspace, shard)
        if row.frame_size != size
    }


def _duplicates(
    recipe: "ThoughtsRecipe", plan: Plan, workspace: Workspace, refused: Mapping[str, str]
) -> dict[str, str]:
    """Rows whose thought video repeats that of a row which is kept."""
    if DUPLICATE not in recipe.gates:
        return {}
    rows = (row for shard in plan.num_rows for row in kept_rows(workspace, shard))
    hashes = {row.annotation.id: row.hash for row in rows if row.annotation.id not in refused}
    found = find_duplicates(hashes, **(recipe.gates[DUPLICATE] or {}))
    return {
        name: f"duplicate: it shows the same as the thought video of {original!r}" for name, original in found.items()
    }


def _nothing_left(workspace: Workspace) -> DatasetError:
    return DatasetError(
        f"Expected rows of the split train but all of them were rejected. `storm build status {workspace.root}` counts the "
        f"reasons, and `storm build retry {workspace.root} --reason KIND` has the same command try those of a kind again."
    )
