"""The first step: annotations, cut into shards. The index is written last, and has the number of rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storm_hf.annotations import Annotation, SourceConfig, load_layout, read_annotations
from storm_hf.annotations.layout import EVIDENCE_OPTIONS
from storm_hf.annotations.record import EVIDENCE, SeenIds
from storm_hf.atomic import write_json, written_atomically
from storm_hf.builder.progress import ANNOTATIONS, INDEX, REJECTED, Refused
from storm_hf.builder.row_steps import Record, Row, write_records
from storm_hf.builder.sources import write_stamps
from storm_hf.inputs.wording import ASKED_COLUMNS
from storm_hf.pipeline.workspace import Workspace, hash_file
from storm_hf.thought_video import FilmRecipe, WorldRecipe, file_stem
from storm_hf.worlds import split_seeds


if TYPE_CHECKING:  # a look at a build needs no torch
    from storm_hf.builder.recipe import ThoughtsRecipe


_WORLD_COLUMNS = ("depth", "states", "chain_of_thought", "terse_chain", "clip_caption", "thought_caption")
_LICENSE_OF_WORLDS = "Apache-2.0"


def plan_parameters(recipe: "ThoughtsRecipe") -> dict[str, Any]:
    """Parameters that determine the rows: sources with a hash of each file, world or films, and the size of shards."""
    sources = {
        split: [
            source.to_dict()
            | {"sha256": _hash_of(source), "layout": _layout_parameters(source.layout, recipe.shows_evidence)}
            for source in each
        ]
        for split, each in recipe.sources.items()
    }
    world = asdict(recipe.world) if recipe.world else None
    for split in world["splits"].values() if world else ():
        if split["wordings"] == "usual":  # as folders say that were begun before there were others
            del split["wordings"]
    parameters = {"sources": sources, "world": world, "rows_per_shard": recipe.rows_per_shard, "seed": recipe.seed}
    return parameters if recipe.films is None else parameters | {"films": _film_parameters(recipe.films)}


def _layout_parameters(name: str, shows_evidence: bool) -> dict[str, Any]:
    """Fields that a layout reads, in the form of folders that were begun before layouts could join several files and read evidence."""
    layout = asdict(load_layout(name))
    if len(layout["join"]) < 2:
        layout["join"] = next(iter(layout["join"]), None)
    if not shows_evidence:
        layout["fields"] = {name: paths for name, paths in layout["fields"].items() if name not in EVIDENCE}
        for option in EVIDENCE_OPTIONS:
            del layout[option]
    return layout


def _film_parameters(films: FilmRecipe) -> dict[str, Any]:
    """Settings of questions about films, and the films with their sizes: reading terabytes to hash them would take hours."""
    sizes = {split: {name: path.stat().st_size for name, path in each.items()} for split, each in films.find().items()}
    return asdict(films) | {"bytes": sizes}


def write_plan(recipe: "ThoughtsRecipe", workspace: Workspace) -> None:
    """Read all annotations and write them as shards, and the index last. Nothing happens where that was done before.

    Raises:
        DatasetError: If a source cannot be read, as a whole.
    """
    with workspace.claimed(ANNOTATIONS, INDEX) as index:
        if index is None:
            return
        refused: list[Refused] = []  # bounded by what is wrong, not by what there is
        num_rows: dict[str, int] = {}
        with SeenIds() as seen:
            for split in recipe.splits:
                rows = _kept(_records(recipe, split, workspace.root), split, seen, refused)
                for number, batch in enumerate(_batches(rows, recipe.rows_per_shard)):
                    name = f"{split}-{number:05d}"
                    _write(workspace.shard(ANNOTATIONS, f"{name}.jsonl"), batch, workspace.root)
                    if recipe.sources:  # worlds and films make clips of their own
                        write_stamps(workspace, name, batch)
                    num_rows[name] = len(batch)
        _write(workspace.shard(ANNOTATIONS, REJECTED), refused, workspace.root)
        write_json(index, {"num_rows": num_rows, "num_rejected": len(refused)})


def _write(path: Path, records: Iterable[Record], folder: Path) -> None:
    with written_atomically(path) as unfinished:
        write_records(unfinished, records, folder)


def _kept(records: Iterable[Record], split: str, seen: SeenIds, refused: list[Refused]) -> Iterator[Row]:
    """Go on with rows; collect those that were refused, and those whose id another source or split has."""
    for record in records:
        if isinstance(record, Refused):
            refused.append(record)
        elif seen.add(record.annotation.id):
            yield record
        else:
            refused.append(_repeated(record, split))


def _repeated(row: Row, split: str) -> Refused:
    return Refused(
        step=ANNOTATIONS,
        split=split,
        source=row.annotation.source,
        reason=f"repeated id: another source or split has a row {row.annotation.id!r}",
        id=row.annotation.id,
    )


def _records(recipe: "ThoughtsRecipe", split: str, folder: Path) -> Iterator[Record]:
    if recipe.world is not None:
        yield from _episodes(recipe.world, split, recipe.rows_per_shard, folder, recipe.shows_evidence)
        return
    if recipe.films is not None:
        yield from _segments(recipe.films, split, recipe.seed, folder)
        return
    for source in recipe.sources[split]:
        for outcome in read_annotations(source, reads_evidence=recipe.shows_evidence):
            if isinstance(outcome, Annotation):
                yield Row(annotation=outcome, seed=_row_seed(recipe.seed, outcome.id))
            else:
                yield Refused(
                    step=ANNOTATIONS,
                    split=split,
                    source=outcome.source,
                    reason=f"annotation: {outcome.reason}",
                    id=outcome.id,
                    line=outcome.line,
                )


def _row_seed(seed: int, name: str) -> int:
    """The seed of a row: it depends on its id, not on where it stands."""
    return int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:4], "big")


def _episodes(
    world_recipe: WorldRecipe, split: str, rows_per_shard: int, folder: Path, has_chains: bool
) -> Iterator[Row]:
    """Tell the episodes of a world without drawing them; the next step draws the clips."""
    world, how_many = world_recipe.world_of(split), world_recipe.splits[split]
    seeds = split_seeds(split, how_many.num_episodes, world_recipe.seed)
    depths: Sequence[int | None] = how_many.depth_of_each or [None] * len(seeds)
    for number, (seed, depth) in enumerate(zip(seeds, depths, strict=True)):
        text = world.describe(seed, depth=depth)
        name = f"{world.name}-{seed:09d}" + ("" if depth is None else f"-d{depth}")
        clip = folder / "videos" / "worlds" / f"{split}-{number // rows_per_shard:05d}" / f"{file_stem(name)}.mp4"
        asked = how_many.ask(world, text)
        annotation = Annotation(
            id=name,
            video=clip.absolute(),
            question=asked.question,
            options=asked.options,
            answer=asked.answer,
            license=_LICENSE_OF_WORLDS,
            source=world.name,
            chain_of_thought=asked.spoken_chain if has_chains else "",
        )
        words = {column: getattr(text, column) for column in _WORLD_COLUMNS} | {
            "asked": {"seed": seed, "depth": depth}
        }
        if world_recipe.has_wordings:
            words |= {column: getattr(asked, column) for column in ASKED_COLUMNS}
        yield Row(annotation=annotation, seed=seed, words=words)


def _segments(films: FilmRecipe, split: str, seed: int, folder: Path) -> Iterator[Row]:
    """Draw the questions about films; the next step cuts the clips."""
    clips = (folder / "videos" / "films" / split).absolute()
    for annotation in films.annotations(split, clips, lambda name: _row_seed(seed, name)):
        yield Row(annotation=annotation, seed=_row_seed(seed, annotation.id))


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


def _hash_of(source: SourceConfig) -> str | None:
    """Hash of the file of a source; what lies in a folder or on the Hub is known by its name and version."""
    path = Path(source.path)
    return hash_file(path) if path.is_file() else None
