"""The last step: targets learned on the training split, the table of rejected rows, and the manifest at the very end."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from storm_hf.atomic import read_json, write_json, written_atomically
from storm_hf.builder.filtering import kept_rows, rows_of
from storm_hf.builder.progress import (
    ANNOTATIONS,
    PROMPTS,
    REJECTED,
    SELECTION_STEP,
    THOUGHTS,
    Plan,
    Refused,
    Selection,
    read_refused,
    record_path,
    split_of,
)
from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.builder.row_steps import Row, refuse
from storm_hf.errors import DatasetError
from storm_hf.pipeline.workspace import Workspace, hash_file
from storm_hf.target_trajectory.fitting import fit_targets
from storm_hf.target_trajectory.schema import DATA, MANIFEST
from storm_hf.target_trajectory.shards import read_shard
from storm_hf.target_trajectory.trajectory import FILE_NAME as STATISTICS
from storm_hf.thought_video import Rejected


_FINISH_STEP = "work/50_targets"
_COUNTED = ("source", "generator", "generator_revision", "license")


@dataclass(frozen=True)
class ThoughtsReport:
    """Contents and provenance of a thought-video data set; `manifest.json` is the same.

    Args:
        num_rows (`dict[str, int]`):
            Rows of each split.
        num_rejected (`dict[str, dict[str, int]]`):
            From each step to how many rows it rejected for which kind of reason. `rejected.jsonl` has each of them.
        sources (`dict[str, int]`):
            Rows of each collection.
        clip_licenses (`dict[str, int]`):
            Rows whose question's clip has this licence.
        thoughts (`dict[str, dict[str, int]]`):
            Number of thought videos of each `source`, `generator`, `generator_revision` and `license`.
        feature_shape (`tuple[int, int]`):
            Cells of a temporal patch, and the size of each.
        encoder (`str`):
            Name of the backbone.
        encoder_revision (`str`):
            Hash of the weights that encoded.
        settings (`dict[str, Any]`):
            Settings of the targets, with the chosen rank.
        asked (`dict[str, Any]`):
            The same as the recipe has it.
        rank_report (`dict[str, Any]`, *optional*):
            Report on the choice of the rank, if there was one.
        sha256 (`dict[str, str]`):
            Of every shard, the statistics and the table of rejected rows.
    """

    num_rows: dict[str, int]
    num_rejected: dict[str, dict[str, int]]
    sources: dict[str, int]
    clip_licenses: dict[str, int]
    thoughts: dict[str, dict[str, int]]
    feature_shape: tuple[int, int]
    encoder: str
    encoder_revision: str
    settings: dict[str, Any]
    asked: dict[str, Any]
    rank_report: dict[str, Any] | None
    sha256: dict[str, str]

    @classmethod
    def load(cls, folder: Path) -> "ThoughtsReport | None":
        """Read the manifest, or None before it is written."""
        path = folder / MANIFEST
        if not path.exists():
            return None
        content = read_json(path)
        return cls(**{**content, "feature_shape": tuple(content["feature_shape"])})


def finish(
    recipe: ThoughtsRecipe, plan: Plan, selection: Selection, workspace: Workspace, encoder_revision: str
) -> ThoughtsReport:
    """Learn the targets and write the manifest, unless it is there with the targets that are asked for.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Other targets than before are no obstacle: they are learned anew.
        plan ([`Plan`]):
            All shards.
        selection ([`Selection`]):
            Selection of the rows that become data.
        workspace ([`Workspace`]):
            The data set.
        encoder_revision (`str`):
            Hash of the weights that encoded.

    Raises:
        DatasetError: If too few rows of the training split are left to learn targets from.
    """
    folder = workspace.root
    report = ThoughtsReport.load(folder)
    if (
        report is not None
        and report.asked == asdict(recipe.targets)
        and not _is_left_over(recipe, plan, selection, workspace)
    ):
        return report  # nothing is written: the folder may be read-only
    with workspace.locked(_FINISH_STEP, MANIFEST):
        report = ThoughtsReport.load(folder)
        if report is None or report.asked != asdict(recipe.targets):
            (folder / MANIFEST).unlink(missing_ok=True)
            for name in (STATISTICS, REJECTED, MANIFEST):  # what a killed process left of them
                workspace.remove_unfinished("", name)
            report = _report(recipe, plan, selection, workspace, encoder_revision)
            write_json(folder / MANIFEST, asdict(report))
        _remove_what_was_refused(recipe, plan, selection, workspace)
    return report


def _refused_rows(plan: Plan, selection: Selection | None, workspace: Workspace) -> Iterator[Refused]:
    """Every row that was rejected so far, by step and in the order of the plan."""
    paths = [workspace.shard(ANNOTATIONS, REJECTED)]
    paths += [record_path(workspace, step, shard) for step in (PROMPTS, THOUGHTS) for shard in plan.num_rows]
    for path in paths:
        if path.exists():
            yield from read_refused(path)
    if selection is not None:
        for row, split in _rows_refused_by(selection, plan, workspace):
            yield refuse(row, SELECTION_STEP, split, Rejected(selection.refused[row.annotation.id]))


def count_kinds(refused: Iterable[Refused]) -> dict[str, dict[str, int]]:
    """Count the rejected rows of each step by kind of reason."""
    counts: dict[str, Counter[str]] = {}
    for each in refused:
        counts.setdefault(Path(each.step).name, Counter())[each.kind] += 1
    return {step: dict(sorted(kinds.items())) for step, kinds in counts.items()}


def _check_training_rows(count: int, rejected: Path) -> None:
    if count < 2:
        raise DatasetError(
            f"Expected two rows or more of the split train, to learn targets from, but {count} came through. {rejected} names "
            f"the reasons of the others. Where clips were mended, `storm build retry {rejected.parent} --reason unreadable` "
            "takes them up again; for other rows, remove this folder and build again."
        )


def _report(
    recipe: ThoughtsRecipe, plan: Plan, selection: Selection, workspace: Workspace, encoder_revision: str
) -> ThoughtsReport:
    folder = workspace.root
    shards = [workspace.shard(DATA, name) for name in selection.shards]
    rejected = _write_rejected(plan, selection, workspace)
    num_rows: Counter[str] = Counter()
    for name, count in selection.num_rows.items():
        num_rows[split_of(selection.shards[name])] += count
    _check_training_rows(num_rows["train"], rejected)
    trajectory, rank = fit_targets([path for path in shards if path.name.startswith("train-")], recipe.targets)
    settings = replace(recipe.targets, rank=rank.rank) if rank else recipe.targets
    files = [*shards, trajectory.save(folder), rejected]
    counts = _count_rows(selection, workspace)
    return ThoughtsReport(
        num_rows=dict(num_rows),
        num_rejected=count_kinds(_refused_rows(plan, selection, workspace)),
        sources=dict(sorted(counts["of"].items())),
        clip_licenses=dict(sorted(counts["clip_license"].items())),
        thoughts={name: dict(sorted(counts[name].items())) for name in _COUNTED},
        feature_shape=_feature_shape(shards[0]),
        encoder=recipe.encoder.model,
        encoder_revision=encoder_revision,
        settings=asdict(settings),
        asked=asdict(recipe.targets),
        rank_report=asdict(rank) if rank else None,
        sha256={path.relative_to(folder).as_posix(): hash_file(path) for path in files},
    )


def _write_rejected(plan: Plan, selection: Selection, workspace: Workspace) -> Path:
    """Name every rejected row with its step and reason."""
    path = workspace.root / REJECTED
    with written_atomically(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for each in _refused_rows(plan, selection, workspace):
            file.write(json.dumps(asdict(each) | {"step": Path(each.step).name}, sort_keys=True) + "\n")
    return path


def _count_rows(selection: Selection, workspace: Workspace) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("of", "clip_license", *_COUNTED)}
    for name in selection.shards:
        for row in rows_of(selection, name, workspace):
            counts["of"][row.annotation.source] += 1
            counts["clip_license"][row.annotation.license] += 1
            for column in _COUNTED:
                counts[column][row.thought[column]] += 1
    return counts


def _feature_shape(shard: Path) -> tuple[int, int]:
    _, num_cells, hidden_size = read_shard(shard).features["thought_features"].shape
    return num_cells, hidden_size


def _rows_refused_by(selection: Selection, plan: Plan, workspace: Workspace) -> Iterator[tuple[Row, str]]:
    """Rows that had a thought video but are not among the data."""
    if not selection.refused:
        return
    for shard in plan.num_rows:
        for row in kept_rows(workspace, shard):
            if row.annotation.id in selection.refused:
                yield row, split_of(shard)


def _is_left_over(recipe: ThoughtsRecipe, plan: Plan, selection: Selection, workspace: Workspace) -> bool:
    """Check whether thought videos that no row names are still there, since a process was killed before it removed them."""
    if not recipe.keep_thoughts:
        return (workspace.root / "videos" / "thoughts").exists()
    rows = _rows_refused_by(selection, plan, workspace)
    return any((workspace.root / row.thought["path"]).exists() for row, _ in rows)


def _remove_what_was_refused(recipe: ThoughtsRecipe, plan: Plan, selection: Selection, workspace: Workspace) -> None:
    """Remove the thought videos that no row names."""
    if not recipe.keep_thoughts:
        shutil.rmtree(workspace.root / "videos" / "thoughts", ignore_errors=True)
        return
    for row, _ in _rows_refused_by(selection, plan, workspace):
        (workspace.root / row.thought["path"]).unlink(missing_ok=True)
