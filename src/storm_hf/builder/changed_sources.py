"""Files of annotations that changed after a build was begun, and what changed in them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from storm_hf.annotations import Annotation, read_annotations
from storm_hf.builder.progress import read_refused
from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.builder.records import Row, read_records
from storm_hf.errors import StaleWorkError
from storm_hf.pipeline.fingerprint import read_fingerprint
from storm_hf.pipeline.workspace import Workspace
from storm_hf.writing import read_json


_INDEX, _REJECTED = "index.json", "rejected.jsonl"
_KINDS = ("new", "changed", "removed")


def check_sources(recipe: ThoughtsRecipe, workspace: Workspace, step: str, parameters: Mapping[str, Any]) -> None:
    """Make sure that the files of annotations are those that a folder was begun with.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Recipe of the build.
        workspace ([`Workspace`]):
            The data set.
        step (`str`):
            Name of the step that reads annotations.
        parameters (`Mapping[str, Any]`):
            Parameters that determine the rows now.

    Raises:
        StaleWorkError: If the contents of a file, and nothing else, have changed since. The message counts the new rows.
    """
    known = read_fingerprint(workspace.root).get(step, {}).get("parameters")
    if not known or known["sources"].keys() != parameters["sources"].keys():
        return
    changed = [
        new["path"]
        for split, sources in parameters["sources"].items()
        for old, new in zip(known["sources"][split], sources, strict=False)
        if old["path"] == new["path"] and old["sha256"] != new["sha256"]
    ]
    if changed:
        raise StaleWorkError(_explanation(recipe, workspace, step, changed))


def _explanation(recipe: ThoughtsRecipe, workspace: Workspace, step: str, changed: list[str]) -> str:
    names, folder = " and ".join(changed), workspace.root
    has = "has" if len(changed) == 1 else "have"
    if not workspace.shard(step, _INDEX).exists():
        return f"{names} {has} changed while {folder} was begun. Nothing is built yet: remove {folder} and give the same command."
    counts = _changes(recipe, workspace, step)
    what = ", ".join(
        f"{counts[kind]} {kind} {'row' if counts[kind] == 1 else 'rows'}" for kind in _KINDS if counts[kind]
    )
    return (
        f"{names} {has} changed since {folder} was begun: {what or 'the same rows in another form or order'}. A build is not "
        f"extended: give the same command with `--output_dir {folder}-2`, which builds all rows, or put the earlier file back."
    )


def _changes(recipe: ThoughtsRecipe, workspace: Workspace, step: str) -> Counter[str]:
    """Count the rows by what became of them. A row that was refused before and is the same now is no change."""
    known = _known_rows(workspace, step)
    refused = {row.id for row in read_refused(workspace.shard(step, _REJECTED))}
    counts: Counter[str] = Counter()
    for source in (source for split in recipe.splits for source in recipe.sources[split]):
        for row in read_annotations(source):
            if not isinstance(row, Annotation):
                continue
            if row.id in known:
                counts["changed"] += _comparable(row) != known.pop(row.id)
            elif row.id not in refused:
                counts["new"] += 1
    counts["removed"] = len(known)
    return counts


def _known_rows(workspace: Workspace, step: str) -> dict[str, Annotation]:
    shards = read_json(workspace.shard(step, _INDEX))["num_rows"]
    records = (
        record for name in shards for record in read_records(workspace.shard(step, f"{name}.jsonl"), workspace.root)
    )
    return {row.annotation.id: _comparable(row.annotation) for row in records if isinstance(row, Row)}


def _comparable(annotation: Annotation) -> Annotation:
    return replace(annotation, video=annotation.video.absolute())
