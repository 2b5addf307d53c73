"""What the commands under faults read: tiny models, clips, data sets and recipes, made once."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from tests.builder.tiny_build import clips_and_annotations
from tests.diagnostics.thinker import NUM_LATENTS, WORLD, make_thinker
from tests.hub.checkpoints import write_checkpoint
from tests.hub.conftest import write_dataset
from tests.tiny import tiny_qwen_checkpoint
from tests.training.tiny_videos import write_thoughts

from storm_hf.target_trajectory import TargetSettings, build_thoughts
from storm_hf.thought_video import WorldRecipe, WorldSplit, render_world
from storm_hf.video import write_video


@dataclass(frozen=True)
class Place:
    """The folder of all that is read, and of the one that is written.

    Args:
        root (`Path`):
            The folder.
        port (`int`):
            Port of the loopback Hub.
    """

    root: Path
    port: int

    @property
    def out(self) -> Path:
        """The folder that a command writes, which begins empty for each fault."""
        return self.root / "out"

    @property
    def home(self) -> Path:
        """The caches of Hugging Face's libraries."""
        return self.root / "hf"

    def read(self, name: str) -> Path:
        """A folder or a file that commands read."""
        return self.root / "read" / name

    @property
    def hanging_library(self) -> Path:
        """A file that takes the place of decord, where it is there."""
        return self.read("libraries") / "decord.py"

    def write_reading(self, timeout_seconds: float = 100.0) -> None:
        """Write the recipe of a build that reads with decord, and how long it waits for it."""
        recipe = yaml.safe_load(self.read("build.yaml").read_text(encoding="utf-8"))
        recipe["reading"] = {"video_backend": "decord", "timeout_seconds": timeout_seconds}
        self.read("build with decord.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def prepare(self) -> None:
        """Write everything that is read."""
        base = tiny_qwen_checkpoint(self.read("base"))
        write_thoughts(self.read("thoughts"))
        _write_recipes(self, clips_and_annotations(self.read("clips"), 6))
        _write_world_data(self)
        write_dataset(self.read("published"), has_columns=True)
        write_checkpoint(self.read("checkpoint"), base)
        self.hanging_library.parent.mkdir()
        self.write_reading()


def _write_recipes(place: Place, annotations: Path) -> None:
    build = {
        "output_dir": "unused",
        "sources": {"train": [{"path": str(annotations)}]},
        "generator": {"future": {"horizon_seconds": 1.0, "fps": 4.0}},
        "encoder": {"model": str(place.read("base"))},
        "targets": {"num_latents": 2, "rank": 4},
        "rows_per_shard": 2,
        "embed": "copy",
    }
    worlds = {
        "output_dir": "unused",
        "world": {"world": "order", "splits": {"train": {"count": 6}, "test": {"count": 2}}},
        "generator": {"simulator": {}},
        "encoder": build["encoder"],
        "targets": {"num_latents": 6, "rank": 4},
        "rows_per_shard": 2,
    }
    stage = {"dataset_name": str(place.read("thoughts")), "num_latents": 3, **_TINY}
    align, answer = {"kind": "align", "whitening_rank": 4}, {"kind": "answer"}
    start = {"model_name_or_path": str(place.read("base")), "output_dir": str(place.out)}
    recipes = {
        "build": build,
        "worlds": worlds,
        "align": {**start, **stage, "whitening_rank": 4},
        "answer": {**start, **stage},
        "run": {**start, **stage, "stages": [align, answer]},
    }
    for name, content in recipes.items():
        place.read(f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


_TINY = {
    "max_steps": 4,
    "save_steps": 2,
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "report_to": "none",
    "logging_steps": 1,
    "gradient_checkpointing": False,
}


def _write_world_data(place: Place) -> None:
    """A model with a data set of its world, and a clip to ask about."""
    thinker = make_thinker(place.read("drawn"), num_rows=0)
    thinker.model.save_pretrained(place.read("storm"))
    thinker.processor.save_pretrained(place.read("storm"))
    splits = {"train": WorldSplit(count=8), "validation": WorldSplit(count=4), "test": WorldSplit(count=12)}
    recipe = WorldRecipe("shuffle", splits, {"num_steps": NUM_LATENTS, "min_swaps": 1, "max_swaps": NUM_LATENTS})
    data = place.read("data")
    settings = TargetSettings(NUM_LATENTS, rank=8)
    build_thoughts(
        data, render_world(recipe, data), thinker.model, thinker.processor, settings, encoder="tiny", rows_per_shard=8
    )
    episode = WORLD.episode(99)
    write_video(place.read("asked") / "clip.mp4", episode.clip, fps=episode.fps)
