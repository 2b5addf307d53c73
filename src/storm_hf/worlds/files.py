"""Episodes as real mp4 files with a manifest, written so that a stopped run goes on where it was.

    folder/  world.json  clips/<id>.mp4  thoughts/<id>.mp4  episodes.jsonl

A video exists if and only if it is complete, and the manifest is written last. `world.json` says which world the files
show; other knobs are refused rather than mixed.

Each base seed owns ten million seeds, each split a million of them, one after the other:

    base seed 0   train 0 ...   validation 1,000,000 ...   test 2,000,000 ...   longer 3,000,000 ...
    base seed 1   train 10,000,000 ...

so that no two splits, and no two runs with different base seeds, ever share one. Different seeds can still draw the
same episode where a world has few: `shuffle` without any swap has four.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from storm_hf.atomic import written_atomically
from storm_hf.errors import ConfigurationError, DatasetError, StaleWorkError
from storm_hf.video import write_video
from storm_hf.worlds.episode import EpisodeText
from storm_hf.worlds.registry import make_world
from storm_hf.worlds.render import check_canvas, on_canvas
from storm_hf.worlds.world import World


MANIFEST = "episodes.jsonl"
_WORLD_FILE = "world.json"
_DRAWING_VERSION = 1  # raise it when the pictures of a world, or the way they are encoded, change
_EPISODES_PER_TASK = 16


@dataclass(frozen=True, kw_only=True)
class EpisodeFiles(EpisodeText):
    """An episode whose videos are files.

    Args:
        id (`str`):
            World, seed and, where it was asked for, depth: `shuffle-000000017-d5`.
        clip_path (`Path`):
            Input clip of the model.
        thought_path (`Path`):
            The simulator showing the reasoning.
    """

    id: str
    clip_path: Path
    thought_path: Path


def write_episodes(
    world: World[Any],
    seeds: Sequence[int],
    folder: str | os.PathLike[str],
    *,
    workers: int = 1,
    start_method: str = "spawn",
    depths: int | Sequence[int] | None = None,
    canvas: tuple[int, int] | None = None,
    on_finished: Callable[[EpisodeFiles], None] | None = None,
) -> list[EpisodeFiles]:
    """Render episodes to mp4 files, keeping those that are there already.

    Args:
        world ([`World`]):
            The simulator.
        seeds (`Sequence[int]`):
            One per episode; see `split_seeds`.
        folder (`str` or `os.PathLike`):
            Output folder. It holds episodes of one world; several calls add to the same manifest.
        workers (`int`, *optional*, defaults to 1):
            Processes that render.
        start_method (`str`, *optional*, defaults to `"spawn"`):
            Start method of the processes. Anew by default, so a script needs its `if __name__ == "__main__":`; `"fork"` is quicker, in a
            process without threads.
        depths (`int` or `Sequence[int]`, *optional*):
            Depth of all episodes, or of each. Left out, the world draws them.
        canvas (`tuple[int, int]`, *optional*):
            Height and width that frames are padded to, in pixels before enlargement, so that one model can see several worlds.
            The world does not read padded frames.
        on_finished (`Callable[[EpisodeFiles], None]`, *optional*):
            Called once per episode, in order, when its files are complete. Progress bars use it.

    Returns:
        `list[EpisodeFiles]`: One per seed, in their order.

    Raises:
        ConfigurationError: If seeds and depths differ in number, the world has no such depth, or the canvas is too small.
        StaleWorkError: If the folder holds another world or other knobs.
    """
    folder = Path(folder)
    if canvas is not None:
        check_canvas(world.frame_size, canvas)
    _claim(folder, world, canvas)
    depth_of_each = _one_each(depths, len(seeds))
    tasks = [(world, folder, seed, depth, canvas) for seed, depth in zip(seeds, depth_of_each, strict=True)]
    written = []
    for files in _render(tasks, workers, start_method):
        if on_finished is not None:
            on_finished(files)
        written.append(files)
    _write_manifest(folder, written)
    return written


def read_episodes(folder: str | os.PathLike[str]) -> list[EpisodeFiles]:
    """Read the manifest that `write_episodes` left, in the order of the ids.

    Raises:
        DatasetError: If there is none: nothing was written, or the writing was stopped.
    """
    manifest = Path(folder) / MANIFEST
    if not manifest.exists():
        raise DatasetError(f"Expected {manifest} but it does not exist. Run write_episodes again; it continues.")
    with manifest.open(encoding="utf-8") as rows:
        return [_from_row(Path(folder), json.loads(row)) for row in rows]


def world_of_clip(clip: str | os.PathLike[str]) -> World[Any] | None:
    """Make the world that drew a clip, knobs included, from the `world.json` that lies a folder above it.

    Args:
        clip (`str` or `os.PathLike`):
            A clip, or a thought video, that `write_episodes` wrote.

    Returns:
        [`World`] or `None`: Nothing where no world left its name, or where frames were padded to a canvas: no world reads those.
    """
    path = Path(clip).parent.parent / _WORLD_FILE
    if not path.is_file():
        return None
    knobs = json.loads(path.read_text(encoding="utf-8"))
    if "canvas" in knobs:
        return None
    del knobs["drawing_version"]
    return make_world(knobs.pop("world"), **knobs)


_Canvas = tuple[int, int] | None
_Task = tuple[World[Any], Path, int, int | None, _Canvas]


def _render(tasks: list[_Task], workers: int, start_method: str) -> Iterator[EpisodeFiles]:
    if workers <= 1:
        yield from map(_render_one, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context(start_method)) as pool:
        yield from pool.map(_render_one, tasks, chunksize=_EPISODES_PER_TASK)


def _render_one(task: _Task) -> EpisodeFiles:
    world, folder, seed, depth, canvas = task
    episode_id = f"{world.name}-{seed:09d}" + ("" if depth is None else f"-d{depth}")
    clip_path = folder / "clips" / f"{episode_id}.mp4"
    thought_path = folder / "thoughts" / f"{episode_id}.mp4"
    if not (clip_path.exists() and thought_path.exists()):
        episode = world.episode(seed, depth=depth)
        for path, frames in ((clip_path, episode.clip), (thought_path, episode.thought)):
            write_video(path, frames if canvas is None else on_canvas(frames, canvas), fps=episode.fps)
    text = world.describe(seed, depth=depth)
    return EpisodeFiles(**vars(text), id=episode_id, clip_path=clip_path, thought_path=thought_path)


def _one_each(depths: int | Sequence[int] | None, count: int) -> Sequence[int | None]:
    if depths is None or isinstance(depths, int):
        return [depths] * count
    if len(depths) != count:
        raise ConfigurationError(f"Expected one depth per seed, {count}, but got {len(depths)}.")
    return depths


def _claim(folder: Path, world: World[Any], canvas: _Canvas) -> None:
    """Say in the folder which world it holds, or make sure that it is this one."""
    mine = {"world": world.name, **asdict(world), "drawing_version": _DRAWING_VERSION}  # type: ignore[call-overload]
    if canvas is not None:
        mine["canvas"] = list(canvas)
    path = folder / _WORLD_FILE
    if not path.exists():
        _write_lines(path, [json.dumps(mine, indent=2)])
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    unknown = {each.name: each.default for each in fields(world) if each.name not in theirs}  # type: ignore[arg-type]
    if {**unknown, **theirs} != mine:  # a knob that a folder was written before has its default there
        raise StaleWorkError(f"{folder} holds episodes of {theirs}; expected {mine}. Choose another folder.")


def _write_manifest(folder: Path, written: list[EpisodeFiles]) -> None:
    known = {files.id: files for files in (read_episodes(folder) if (folder / MANIFEST).exists() else [])}
    known.update((files.id, files) for files in written)
    rows = (json.dumps(_to_row(folder, known[episode_id])) for episode_id in sorted(known))
    _write_lines(folder / MANIFEST, rows)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with written_atomically(path) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _to_row(folder: Path, files: EpisodeFiles) -> dict[str, Any]:
    paths = {"clip_path": files.clip_path, "thought_path": files.thought_path}
    return {**asdict(files), **{name: path.relative_to(folder).as_posix() for name, path in paths.items()}}


def _from_row(folder: Path, row: dict[str, Any]) -> EpisodeFiles:
    words = {field.name: row[field.name] for field in fields(EpisodeText)}
    words.update(options=tuple(row["options"]), states=tuple(row["states"]))
    return EpisodeFiles(
        **words, id=row["id"], clip_path=folder / row["clip_path"], thought_path=folder / row["thought_path"]
    )


SPLITS = ("train", "validation", "test", "longer")
_SEEDS_PER_SPLIT = 1_000_000
_SEEDS_PER_BASE = 10 * _SEEDS_PER_SPLIT


def split_seeds(split: str, count: int, seed: int = 0) -> range:
    """Take seeds for the episodes of a split.

    Args:
        split (`str`):
            `train`, `validation`, `test`, or `longer`: episodes with more steps than trained on.
        count (`int`):
            Number of seeds. The first n are the same whatever the count.
        seed (`int`, *optional*, defaults to 0):
            Base seed of the run.

    Returns:
        `range`: The seeds, ascending.

    Raises:
        ConfigurationError: If there is no such split, or it has fewer seeds than asked for.
    """
    if split not in SPLITS:
        raise ConfigurationError(f"Expected a split of {', '.join(SPLITS)} but got {split!r}.")
    if not 0 <= count <= _SEEDS_PER_SPLIT:
        raise ConfigurationError(f"Expected a count from 0 to {_SEEDS_PER_SPLIT} seeds in a split but got {count}.")
    if seed < 0:
        raise ConfigurationError(f"Expected a base seed of 0 or more but got {seed}.")
    first = seed * _SEEDS_PER_BASE + SPLITS.index(split) * _SEEDS_PER_SPLIT
    return range(first, first + count)
