"""A tiny model and a storm-thoughts data set of its world, as files."""

from pathlib import Path

from tests.diagnostics.thinker import NUM_LATENTS, make_thinker

from storm_hf.target_trajectory import TargetSettings, build_thoughts
from storm_hf.thought_video import WorldRecipe, WorldSplit, render_world
from storm_hf.worlds.asking import Wordings


DEPTHS = {2: 3, 4: 3}  # test clips by number of swaps


def write_model_and_thoughts(folder: Path, wordings: Wordings = "usual") -> Path:
    """Write `model/` and `data/`, as a run of the demo has them."""
    thinker = make_thinker(folder / "clips", num_rows=0)
    thinker.model.save_pretrained(folder / "model")
    thinker.processor.save_pretrained(folder / "model")
    splits = {"train": WorldSplit(count=8), "test": WorldSplit(depths=DEPTHS, wordings=wordings)}
    recipe = WorldRecipe("shuffle", splits, {"num_steps": NUM_LATENTS, "min_swaps": 0, "max_swaps": NUM_LATENTS})
    settings = TargetSettings(NUM_LATENTS, rank=8)
    examples = render_world(recipe, folder / "data")
    build_thoughts(folder / "data", examples, thinker.model, thinker.processor, settings, encoder="tiny")
    return folder
