"""Language of a pretrained backbone: what it says before training, rows that keep it, and what is left afterwards."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars
from transformers import AutoProcessor

from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.evaluation.language import (
    LanguageMeasure,
    LanguageReport,
    measure_language,
    read_training_prompts,
    read_training_texts,
)
from storm_hf.model import StormForConditionalGeneration, storm_processor
from storm_hf.reporting import write_atomically
from storm_hf.training.language import answers_before, load_language, record_language


_ROWS, _BEFORE = "rows.parquet", "before.json"
_ANSWER_TOKENS = 48


def record_backbone(folder: DemoFolder, recipe: DemoRecipe) -> None:
    """Measure the language of the backbone, and record what it predicts on its own answers and on plain text if that is kept.

    A model that is trained with these rows is held to the backbone in every stage, whatever model a stage starts from.
    """
    disable_progress_bars()
    processor = storm_processor(str(folder.backbone), recipe.num_latents)
    model = StormForConditionalGeneration.from_backbone(
        str(folder.backbone), recipe.num_latents, processor=processor
    ).eval()
    before = measure_language(model, processor, name=recipe.backbone)
    folder.language.mkdir(parents=True, exist_ok=True)
    if recipe.keep_language:
        answers = answers_before(model, processor, read_training_prompts(), max_new_tokens=_ANSWER_TOKENS)
        rows = record_language(model, processor, [*answers, *({"text": text} for text in read_training_texts())])
        rows.to_parquet(folder.language / _ROWS)
    write_atomically(folder.language / _BEFORE, before.to_json())


def recorded_rows(folder: DemoFolder) -> Dataset:
    """Load the rows that keep the language."""
    return load_language(str(folder.language / _ROWS))


def compare_language(folder: DemoFolder, checkpoint: Path, name: str) -> LanguageReport:
    """Measure the language of a trained checkpoint, and put it beside that of the backbone."""
    model = StormForConditionalGeneration.from_pretrained(checkpoint)
    after = measure_language(model, AutoProcessor.from_pretrained(checkpoint), name=name)
    return LanguageReport(read_before(folder), after)


def read_before(folder: DemoFolder) -> LanguageMeasure:
    """Read the measure of the backbone."""
    return LanguageMeasure.from_json((folder.language / _BEFORE).read_text(encoding="utf-8"))


def read_language(results: Mapping[str, Any]) -> LanguageReport:
    """Read the language of a variant from its `results.json`."""
    return LanguageReport.from_json(json.dumps(results["language"]))
