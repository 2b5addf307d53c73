"""Real films, questions that need no annotator, and thoughts that are the film itself: where latents help, and where they do not.

    python benchmarks/natural.py                          after the downloads that benchmarks/films.py names
    python benchmarks/natural.py --encoder pixels         the same without a pretrained image encoder
    python benchmarks/natural.py --updates 3 --num-train 48 --num-tests 8      a rehearsal, in which nothing is learned

In which order do three shuffled parts of a film belong (`order`), and which of four candidates comes next (`next`)? Asked are
questions that were trained on, later windows of the training films, and films that were never trained on. The decoder is that of the
tiny backbone; what it sees is encoded once, by EfficientNet-Lite0 or as whitened pixels. From one base, direct answers and STORM get
as many updates. `nearest` learns nothing: it joins the parts whose ends and beginnings the encoder sees as most alike.

No thought holds an answer without its clip, so nothing is asked without clips. Intervals are over questions: they say nothing of yet
other films. A run that was stopped continues. Its checkpoints read encoded clips alone.
"""

import argparse
import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import torch
from datasets import disable_progress_bars
from films import cut_films
from frozen_tower import ENCODERS, PATCH_PX, FrozenTower, image_encoder
from rich.console import Console
from transformers import ProcessorMixin, set_seed
from worlds import table

from storm_hf.atomic import read_json
from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe
from storm_hf.demo import DemoFolder, DemoRecipe, Training, Variant, data, demo_recipe
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.demo.tasks import Report, Task, run_tasks
from storm_hf.demo.training import train_variant
from storm_hf.demo.variants import storm_variant
from storm_hf.evaluation.batch import Answer, answer_questions
from storm_hf.evaluation.bootstrap import wilson_interval
from storm_hf.inputs.features import cache_video_features
from storm_hf.inputs.prompts import Row
from storm_hf.inputs.wording import wording
from storm_hf.interventions.token_replacement import choose_donors, token_replacements
from storm_hf.model import StormForConditionalGeneration
from storm_hf.reporting import write_atomically
from storm_hf.target_trajectory import TargetTrajectory, load_thoughts
from storm_hf.target_trajectory.encode import ShardEncoder
from storm_hf.thought_video import FilmRecipe, FilmSplit, SegmentQuestion, SegmentSettings
from storm_hf.thought_video.clip_part import frame_times, read_frames
from storm_hf.thought_video.segments import cropped


RECIPE = Path(__file__).parents[1] / "datasets_builders" / "recipes" / "film_segments.yaml"
SEGMENTS = SegmentSettings(segment_seconds=0.8, fps=5.0, frame_size=(96, 160))
PATCHES_PER_PART = SEGMENTS.frames_per_segment // 2
SPLITS = {"train": "trained on", "validation": "later windows", "test": "other films"}
USE = ("zero", "noise_per_dataset", "mean_over_questions", "donor", "oracle")
FITTED_PAIRS = 60  # pairs of frames of each training film that give the components of what is seen
TRAININGS = {"base": Training(80, 1e-3), "align": Training(220, 1e-3), "answer": Training(100, 3e-4)}
Counts = Mapping[str, Sequence[int]]  # from the latents that were fed to correct answers and questions


@dataclasses.dataclass(frozen=True)
class FilmsBuilder(ThoughtsBuilder):
    """A builder that is given what encodes."""

    encoder: ShardEncoder | None = None


def make_recipe(arguments: argparse.Namespace) -> DemoRecipe:
    """Say how long is trained, and what the targets are."""
    trainings = {
        name: Training(arguments.updates or one.num_updates, one.learning_rate) for name, one in TRAININGS.items()
    }
    return dataclasses.replace(
        demo_recipe("shuffle", arguments.seed),
        world="films",
        trainings=trainings,
        num_train=arguments.num_train,
        test_depths={0: 2 * arguments.num_tests},  # of both tasks
        num_latents=3,  # one for each part of `order`
        frame_pixels=SEGMENTS.frame_size[0] * SEGMENTS.frame_size[1],
        target_layout="concat",
        whitening_rank=64,
        latent_scale=0.25,
        teacher_noise=0.3,
        rope_theta=4.0,
    )


def make_variants(recipe: DemoRecipe) -> tuple[Variant, ...]:
    """Make the base, which answers directly, more of the same, Stage I from the base, and STORM, which starts from Stage I."""
    base = Variant("start", "base", recipe.trainings["base"])
    storm = dataclasses.replace(storm_variant(recipe), is_shown=False)
    assert storm.start is not None
    align = dataclasses.replace(storm.start, start=base)
    storm = dataclasses.replace(storm, start=align)
    rest = Training(storm.num_updates - base.num_updates, recipe.trainings["align"].learning_rate)
    return base, Variant("direct", "direct", rest, start=base), align, storm


def make_base(folder: DemoFolder, recipe: DemoRecipe) -> tuple[StormForConditionalGeneration, ProcessorMixin]:
    """Save a tiny backbone that has learned nothing, with a processor that knows the words of the questions."""
    drawn = [SegmentQuestion.draw(task, 0, SEGMENTS) for task in SEGMENTS.tasks]
    words = wording([option for each in drawn for option in each.options], *(each.question for each in drawn))
    processor = tiny_processor(words, recipe.num_latents, recipe.frame_pixels)
    processor.video_processor.patch_size = PATCH_PX
    processor.video_processor.image_mean = processor.video_processor.image_std = [0.5] * 3
    set_seed(recipe.seed)
    config = tiny_config(processor, recipe.num_latents, recipe.latent_scale, recipe.rope_theta)
    model = StormForConditionalGeneration(config)
    for saved in (model, processor):
        saved.save_pretrained(folder.base)
    return model, processor


def frames_of(films: Path) -> torch.Tensor:
    """Read pairs of frames of all films of a folder, (F, 3, H, W), from -1 to 1."""
    pairs = []
    for film in sorted(films.glob("*.mp4")):
        first = np.linspace(0, len(frame_times(film)) - 2, FITTED_PAIRS).astype(int)
        frames = read_frames(film, (first[:, None] + (0, 1)).ravel())
        pairs += [cropped(frame, (1, 0.5, 0.5), SEGMENTS.frame_size) for frame in frames]
    return torch.from_numpy(np.stack(pairs)).permute(0, 3, 1, 2) / 127.5 - 1


def build(folder: DemoFolder, recipe: DemoRecipe, films: Path, encoder: str, packages: Path, report: Report) -> None:
    """Cut questions and thought videos out of the films, and encode both. Worker."""
    disable_progress_bars()
    model, processor = make_base(folder, recipe)
    see = image_encoder(encoder, packages)
    model.backbone.model.visual = FrozenTower(see, frames_of(films / "train"), model.config.hidden_size)
    counts = {**dict.fromkeys(SPLITS, recipe.test_depths[0]), "train": recipe.num_train}
    splits = {name: FilmSplit(folder=str(films / name), count=count) for name, count in counts.items()}
    thoughts = ThoughtsRecipe.read(
        RECIPE,
        output_dir=str(folder.data),
        generator={"segments": {"num_frames": 2 * recipe.num_latents}},
        encoder={"model": str(folder.base)},
        targets={"num_latents": recipe.num_latents, "rank": recipe.whitening_rank, "layout": recipe.target_layout},
        seed=recipe.seed,
    )
    thoughts = dataclasses.replace(thoughts, films=FilmRecipe(splits=splits, segments=SEGMENTS))
    FilmsBuilder(thoughts, encoder=ShardEncoder(folder.data, model, processor, name=encoder)).build()
    for split, rows in load_thoughts(folder.data).items():
        if (folder.cached / split / "dataset_info.json").exists():  # written last
            continue
        asked = rows.select_columns(["video", "question", "options"])
        encoded = cache_video_features(asked, model, processor)
        encoded.remove_columns(asked.column_names).save_to_disk(folder.cached / split)


def learn(folder: DemoFolder, recipe: DemoRecipe, variant: Variant, report: Report) -> None:
    """Train a variant, ask all questions, and write the counts last. Worker."""
    train_variant(folder, recipe, variant, report)
    found = {name: ask(folder, recipe, variant, rows) for name, rows in questions(folder, recipe).items()}
    write_atomically(folder.variant(variant.name) / "results.json", json.dumps(found, indent=1) + "\n")


def questions(folder: DemoFolder, recipe: DemoRecipe) -> dict[str, list[Row]]:
    """Read the rows that are asked about, by task and split; of those trained on no more than of the others."""
    found: dict[str, list[Row]] = {f"{task}, {title}": [] for title in SPLITS.values() for task in SEGMENTS.tasks}
    for split, title in SPLITS.items():
        rows = data.dataset(folder, split, with_thoughts=True)
        for row in rows.select(range(min(len(rows), recipe.test_depths[0]))):
            found[f"{str(row['id']).split('-')[1]}, {title}"].append(row)
    return found


def ask(folder: DemoFolder, recipe: DemoRecipe, variant: Variant, rows: Sequence[Row]) -> Counts:
    """Count the correct answers, those of STORM also with other latents in the place of its own."""
    model, processor = data.load(folder.checkpoint(variant.name))
    prompts = variant.make_prompts(processor, model.config)
    answer = partial(answer_questions, model, prompts, rows, max_new_tokens=4)
    own = answer()
    if variant.stage_one is None or variant.stage == "align":
        return {"own": count(own, rows)}
    targets = TargetTrajectory.load(folder.variant(variant.stage_one.name))([row["thought_features"] for row in rows])
    latents = np.stack([np.asarray(one.latents) for one in own])
    made = token_replacements(latents, choose_donors(rows, recipe.seed), targets.numpy(), recipe.seed)
    return {"own": count(own, rows), **{name: count(answer(intervene=made[name]), rows) for name in USE}}


def count(answers: Sequence[Answer], rows: Sequence[Row]) -> tuple[int, int]:
    """Count correct answers, and questions."""
    return sum(said.choice == row["answer"] for said, row in zip(answers, rows, strict=True)), len(rows)


def nearest(row: Row) -> str:
    """Join the parts that follow each other most smoothly, as all variants see them."""
    is_order = str(row["id"]).split("-")[1] == "order"
    paths = list(permutations(range(3))) if is_order else [(0, candidate) for candidate in range(1, 5)]
    features = np.asarray(row["video_features"], dtype=np.float32)
    parts = features.reshape(3 if is_order else 5, PATCHES_PER_PART, -1)
    gaps = np.linalg.norm(parts[:, None, -1] - parts[None, :, 0], axis=-1)  # between an end and a beginning
    best = min(paths, key=lambda path: sum(gaps[place] for place in pairwise(path)))
    return "".join(str(part + 1) for part in best) if is_order else str(best[1])


def cell(counted: Sequence[int]) -> str:
    """Write a count with its share and 95 % interval."""
    correct, asked = counted
    low, high = wilson_interval(correct / asked, asked)
    return f"{correct}: {correct / asked:.3f} ({low:.2f}-{high:.2f})"


def results_table(results: Mapping[str, Mapping[str, Counts]]) -> str:
    """Tabulate one row per way to answer, one column per task and split."""
    sets = results["nearest"]
    head = ["correct answers", *(f"{name}, n = {counted['own'][1]}" for name, counted in sets.items())]
    rows = [
        [title if fed == "own" else f"{title}, {fed}", *(cell(found[name][fed]) for name in sets)]
        for title, found in results.items()
        for fed in next(iter(found.values()))
    ]
    return table(head, rows)


def main() -> None:
    """Cut, encode, train, ask; print one row per way to answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=ENCODERS, default=ENCODERS[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-train", type=int, default=1600, help="training questions of both tasks")
    parser.add_argument("--num-tests", type=int, default=192, help="test questions of each task and split")
    parser.add_argument("--updates", type=int, help="of every training, for a rehearsal in a folder of its own")
    parser.add_argument(
        "--packages", type=Path, default=Path("runs/films"), help="folder that films.py says how to fill"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/natural"))
    arguments = parser.parse_args()
    if arguments.encoder == "efficientnet" and not any(arguments.packages.glob("efficientnet_lite0*")):
        parser.error(f"there is no efficientnet-lite0 in {arguments.packages}: see films.py, or use --encoder pixels")
    recipe, console, out = make_recipe(arguments), Console(stderr=True), arguments.out.resolve()
    rehearsed = "" if arguments.updates is None else f"-{arguments.updates}-updates"
    folder = DemoFolder(out / f"{arguments.encoder}-{arguments.seed}{rehearsed}")
    for film in cut_films(arguments.packages, out / "films"):
        console.print(f"left out: {film.file}, since there is no {film.package} in {arguments.packages}", markup=False)
    prepared = (folder, recipe, out / "films", arguments.encoder, arguments.packages.resolve())
    tasks = [Task("build", "Cutting and encoding", 1, build, prepared)]
    variants = make_variants(recipe)
    tasks += [Task(one.name, one.title, one.num_updates, learn, (folder, recipe, one)) for one in variants]
    with folder.claimed(recipe):
        for task in tasks:
            folder.once(task.name, partial(run_tasks, [task], folder.logs, workers=1, console=console))
    asked = questions(folder, recipe)
    near = {name: (sum(nearest(row) == row["answer"] for row in rows), len(rows)) for name, rows in asked.items()}
    found = {"nearest": {name: {"own": counted} for name, counted in near.items()}}
    found |= {one.title: read_json(folder.variant(one.name) / "results.json") for one in variants}
    write_atomically(folder.path / "natural.json", json.dumps(found, indent=1) + "\n")
    shown = Console(soft_wrap=True)
    shown.print(f"{arguments.encoder}, seed {arguments.seed}, {date.today()}, {platform.machine()}\n", markup=False)
    shown.print(results_table(found), markup=False)


if __name__ == "__main__":
    main()
