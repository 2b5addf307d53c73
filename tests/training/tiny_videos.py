"""A tiny data set of thoughts with real video files, as a builder leaves it, and a Qwen processor that reads it."""

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Array3D, Dataset, Features, List, Value
from transformers import set_seed

from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model import StormForConditionalGeneration, storm_processor
from storm_hf.video import write_video


OPTIONS = ["left", "right", "up", "down"]
NUM_CELLS, HIDDEN_SIZE = 4, 32
_TEXT = Value("string")
_FEATURES = Features(
    {
        "id": _TEXT,
        "video": _TEXT,
        "question": _TEXT,
        "options": List(_TEXT),
        "answer": _TEXT,
        "thought_video": _TEXT,
        "thought_features": Array3D((None, NUM_CELLS, HIDDEN_SIZE), "float16"),
        "clip_caption": _TEXT,
        "thought_caption": _TEXT,
    }
)


def write_thoughts(folder: Path, num_rows: int = 8) -> Path:
    """Write a data set that `load_dataset` opens: a training split, and its first half once more to test on."""
    rows = [_write_row(folder, number) for number in range(num_rows)]
    for split, count in (("train", num_rows), ("test", num_rows // 2)):
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows[:count], features=_FEATURES).to_parquet(path)
    return folder


def _write_row(folder: Path, number: int) -> dict[str, Any]:
    generator = np.random.default_rng(number)
    paths = {name: f"videos/{name}-{number}.mp4" for name in ("clip", "thought")}
    for path in paths.values():
        cells = generator.integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
        write_video(folder / path, cells.repeat(28, axis=1).repeat(28, axis=2), fps=4)
    return {
        "id": f"row-{number}",
        "video": paths["clip"],
        "question": "Where is the red ball now?" if number % 2 else "What happens next in the video after that?",
        "options": OPTIONS,
        "answer": OPTIONS[number % 4],
        "thought_video": paths["thought"],
        "thought_features": generator.standard_normal((6, NUM_CELLS, HIDDEN_SIZE)).astype(np.float16),
        "clip_caption": f"The ball rolls {OPTIONS[number % 4]}.",
        "thought_caption": f"The ball is {OPTIONS[number % 4]} now.",
    }


def load_tiny(checkpoint: Path, num_latents: int) -> tuple[StormForConditionalGeneration, Any]:
    """Make a STORM of a plain tiny checkpoint, with its processor."""
    set_seed(0)  # draws the projector
    processor = storm_processor(checkpoint, num_latents)
    model = StormForConditionalGeneration.from_backbone(checkpoint, num_latents, processor=processor)
    return model.eval(), processor


def prompt_encoder(model: StormForConditionalGeneration, processor: Any, **settings: Any) -> PromptEncoder:
    """Encode prompts for a model with its own number of latents."""
    return PromptEncoder(processor, model.config, **{"num_latents": model.config.num_latents, **settings})
