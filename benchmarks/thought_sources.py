"""Thoughts without a video generator: STORM on `shuffle` with its chain of thought drawn as text, beside the simulator's pictures.

    python benchmarks/thought_sources.py --seeds 0 1 2
    python benchmarks/thought_sources.py --seeds 0 --chain chain_of_thought       the words of a small vocabulary, in a larger font
    python benchmarks/thought_sources.py --seeds 0 --updates 4 --num-train 48      a rehearsal, in which nothing is learned

Each run is that of `storm demo` with the variants `align` and `storm` alone: clips, steps and rates are the same, and so are the
base's captions, from which the tower learns to see. Only the thought videos differ. A run that was stopped continues.
"""

import argparse
import platform
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from controls import rehearsal
from rich.console import Console
from worlds import table

from storm_hf.annotations import Annotation
from storm_hf.atomic import read_json
from storm_hf.demo import DemoFolder, DemoRecipe, data, demo_recipe
from storm_hf.demo.report_data import read_interventions
from storm_hf.demo.stages import prepare
from storm_hf.demo.tasks import Report, Task, run_tasks
from storm_hf.demo.training import variant_task
from storm_hf.demo.variants import storm_variant
from storm_hf.errors import StageError
from storm_hf.thought_video import Rejected, RenderedChainGenerator, WorldExample
from storm_hf.video import write_video
from storm_hf.worlds import ask, make_world


WORKERS = 2
SOURCES = ("simulator", "rendered_chain")
MEASURES = ("own", "zero", "mean_over_questions", "latents_only", "oracle", "follows_donor")


def render(folder: DemoFolder, recipe: DemoRecipe, source: str, chain: str, report: Report) -> None:
    """Render the clips and thought videos of a run. Worker."""
    data.render(folder, recipe, WORKERS, report)
    if source != "rendered_chain":
        return
    examples = [example for each in data.examples_of(folder, recipe).values() for example in each]
    height, width = examples[0].thought.read().shape[1:3]
    generator = RenderedChainGenerator(frame_size=(height, width), max_steps=recipe.num_latents)
    world = make_world(recipe.world, **recipe.knobs)
    for example in examples:
        if chain == "spoken_chain":
            seed = example.thought.seed
            words = ask(world, world.describe(seed, depth=example.depth), seed, "usual").spoken_chain
        else:
            words = getattr(example, chain)
        draw_chain(generator, example, words)


def draw_chain(generator: RenderedChainGenerator, example: WorldExample, chain: str) -> None:
    """Draw the chain of thought of an episode in the place of its thought video."""
    asked = Annotation(
        id=example.id, video=example.video, question=example.question, answer=example.answer, chain_of_thought=chain
    )
    thought = generator.generate(asked, seed=example.thought.seed)
    if isinstance(thought, Rejected) or example.thought.path is None:
        raise StageError(f"Expected a chain that can be drawn for {example.id} but got {thought}.")
    write_video(example.thought.path, thought.read(), fps=thought.fps)


def run(folder: DemoFolder, recipe: DemoRecipe, source: str, chain: str, console: Console) -> dict[str, Any]:
    """Train STORM on one source of thoughts; return the results of both stages."""
    num_episodes = data.world_recipe(recipe).num_episodes
    task = Task(
        "render", f"Drawing clips and {source} thoughts", num_episodes, render, (folder, recipe, source, chain)
    )
    with folder.claimed(recipe):
        folder.once("1_render", partial(run_tasks, [task], folder.logs, workers=1, console=console))
    prepare(folder, recipe, console)
    storm = storm_variant(recipe)
    folder.once(
        "4_storm",
        partial(run_tasks, [variant_task(folder, recipe, storm)], folder.logs, workers=1, console=console),
    )
    return {name: read_json(folder.variant(name) / "results.json") for name in ("align", "storm")}


def row(source: str, seed: int, results: dict[str, Any]) -> list[str]:
    """Tabulate a run: the accuracy on the deep clips after each stage, under interventions, and what the latents resemble."""
    storm = results["storm"]
    measured = read_interventions(storm["interventions"])
    cells = [results["align"]["accuracy"], *(measured[name] for name in MEASURES), storm["top1_state"]]
    return [source, str(seed), *(f"{cell:.3f}" for cell in cells)]


def main() -> None:
    """Run all seeds with each source and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sources", nargs="+", default=SOURCES, choices=SOURCES)
    chains = ("spoken_chain", "chain_of_thought", "terse_chain")
    parser.add_argument("--chain", default=chains[0], choices=chains, help="words that are drawn")
    parser.add_argument("--updates", type=int, help="of each stage, for a rehearsal")
    parser.add_argument("--num-train", type=int, default=48, help="clips of a rehearsal")
    parser.add_argument("--out", type=Path, default=Path("runs/thought_sources"))
    arguments = parser.parse_args()
    console, rows = Console(stderr=True), []
    for seed in arguments.seeds:
        recipe = replace(demo_recipe("shuffle", seed), variants=("storm",))
        if arguments.updates is not None:
            recipe = rehearsal(recipe, arguments.updates, arguments.num_train)
        for source in arguments.sources:
            chain = f"-{arguments.chain}" if source == "rendered_chain" else ""
            rehearsed = "" if arguments.updates is None else f"-{arguments.updates}-updates"
            folder = DemoFolder((arguments.out / f"{source}{chain}-{seed}{rehearsed}").resolve())
            rows.append(row(source, seed, run(folder, recipe, source, arguments.chain, console)))
    out = Console(soft_wrap=True)
    out.print(f"shuffle, chain {arguments.chain}, {date.today()}, {platform.machine()}\n", markup=False)
    out.print(table(["thoughts", "seed", "Stage I", *MEASURES, "state retrieval"], rows), markup=False)


if __name__ == "__main__":
    main()
