"""Targets are found inside the trainer: those that the data set's builder chose, as in the scripts."""

import importlib.util
import logging
from pathlib import Path

import pytest
import torch
from datasets import concatenate_datasets, load_dataset, load_from_disk
from tests.training.tiny_training import QUIET, logged
from tests.training.tiny_videos import load_tiny, write_thoughts
from trl import ScriptArguments, TrlParser

from storm_hf import StormAlignConfig, StormAlignTrainer, StormModelConfig, TargetTrajectory, load_rows
from storm_hf.align.targets import DEFAULT_RANK, choose_targets
from storm_hf.errors import DatasetError, LatentError
from storm_hf.pipeline.paths import origin_of


NUM_LATENTS = 3
CHOSEN_RANK = 5
SCRIPT = Path(__file__).parents[2] / "trainers" / "align.py"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A data set whose builder chose targets of rank 5."""
    folder = write_thoughts(tmp_path_factory.mktemp("built"))
    features = load_rows(str(folder))["train"].with_format("numpy")["thought_features"][:]
    TargetTrajectory.fit([features], num_latents=NUM_LATENTS, rank=CHOSEN_RANK).save(folder)
    return folder


@pytest.fixture(scope="module")
def unbuilt(tmp_path_factory):
    """The same without chosen targets."""
    return write_thoughts(tmp_path_factory.mktemp("unbuilt"))


def arguments(folder, **settings):
    return StormAlignConfig(str(folder), **{**QUIET, "max_steps": 2, "num_latents": NUM_LATENTS, **settings})


CHANGES = {
    "as loaded": lambda rows, place: rows,
    "selected": lambda rows, place: rows.select(range(4)),
    "shuffled": lambda rows, place: rows.shuffle(seed=1),
    "mapped": lambda rows, place: rows.map(lambda row: {"answer": row["answer"] + "."}),
    "filtered": lambda rows, place: rows.filter(lambda row: row["answer"] != "up"),
    "without a column": lambda rows, place: rows.remove_columns("clip_caption"),
    "split again": lambda rows, place: rows.train_test_split(test_size=2, seed=0)["train"],
    "as arrays": lambda rows, place: rows.with_format("numpy"),
    "joined": lambda rows, place: concatenate_datasets([rows, rows]),
    "saved and loaded": lambda rows, place: rows.save_to_disk(place) or load_from_disk(place),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_rows_know_the_targets_of_their_data_set(change, built, tmp_path, caplog):
    rows = change(load_rows(str(built))["train"], str(tmp_path / "saved"))
    targets = choose_targets(None, rows, NUM_LATENTS, arguments(tmp_path))
    assert targets.statistics.rank == CHOSEN_RANK
    assert "fitted" not in caplog.text


def test_folder_of_rows_is_known_from_anywhere(built, tmp_path, monkeypatch):
    monkeypatch.chdir(built.parent)
    rows = load_rows(built.name)["train"]
    monkeypatch.chdir(tmp_path)
    assert choose_targets(None, rows, NUM_LATENTS, arguments(tmp_path)).statistics.rank == CHOSEN_RANK


@pytest.mark.parametrize("given", [str, Path], ids=["text", "path"])
def test_targets_can_be_named_by_their_data_set(given, built, unbuilt, tmp_path):
    rows = load_rows(str(unbuilt))["train"]
    targets = choose_targets(given(built), rows, NUM_LATENTS, arguments(tmp_path))
    assert targets.statistics.rank == CHOSEN_RANK


def test_targets_of_another_number_than_the_latents_are_refused_when_the_trainer_is_made(qwen_checkpoint, tmp_path):
    model, processor = load_tiny(qwen_checkpoint, NUM_LATENTS)
    rows = load_rows(str(write_thoughts(tmp_path / "data", 2)))["train"]
    four = TargetTrajectory(4, normalize="layernorm")
    with pytest.raises(
        LatentError, match=r"a target for each of 3 latents, got 4\. .*with_num_latents\(3\).*num_latents=4"
    ):
        StormAlignTrainer(
            model=model,
            args=arguments(tmp_path),
            train_dataset=rows,
            processing_class=processor,
            target_trajectory=four,
        )


def test_other_number_of_latents_than_the_data_set_has_targets_is_warned_of(built, tmp_path, caplog):
    targets = choose_targets(str(built), load_rows(str(built))["train"], 2, arguments(tmp_path))
    assert (targets.num_latents, targets.statistics.rank) == (2, CHOSEN_RANK)
    assert f"saved with {built} have 3 steps, but the model has 2 latents" in caplog.text


def test_data_set_that_is_named_and_has_no_targets_is_an_error(unbuilt, tmp_path):
    rows = load_rows(str(unbuilt))["train"]
    with pytest.raises(DatasetError, match=r"Expected whitening.safetensors with the data set .*`target_trajectory`"):
        choose_targets(unbuilt, rows, NUM_LATENTS, arguments(tmp_path))


@pytest.mark.parametrize(
    ("settings", "rank", "level"),
    [({}, DEFAULT_RANK, logging.WARNING), ({"whitening_rank": 4}, 4, logging.INFO)],
)
def test_fitting_says_what_was_fitted(settings, rank, level, unbuilt, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="storm_hf"):
        targets = choose_targets(None, load_rows(str(unbuilt))["train"], NUM_LATENTS, arguments(tmp_path, **settings))
    (record,) = [record for record in caplog.records if "fitted" in record.message]
    assert record.levelno == level
    assert f"whiten of rank {rank}, temporal pooling, layout average, K = 3" in record.message
    assert targets.statistics.rank == rank


def test_rows_of_another_origin_are_fitted_to(built, unbuilt, tmp_path):
    both = concatenate_datasets([load_rows(str(place))["train"] for place in (built, unbuilt)])
    assert origin_of(both) is None
    assert origin_of(load_dataset(str(built))["train"]) is None
    assert origin_of(load_rows(str(built))["train"].to_iterable_dataset()) is None, "`datasets` keeps no record there"
    assert choose_targets(None, both, NUM_LATENTS, arguments(tmp_path)).statistics.rank == DEFAULT_RANK


def test_rows_without_thoughts_are_refused(built, tmp_path):
    rows = load_rows(str(built))["train"].remove_columns("thought_features")
    with pytest.raises(DatasetError, match="Stage I needs the column `thought_features`"):
        choose_targets(None, rows, NUM_LATENTS, arguments(tmp_path, whitening_rank=4))


def test_python_trains_on_the_targets_of_the_script(built, qwen_checkpoint, tmp_path):
    settings = {**QUIET, "max_steps": 2, "num_latents": NUM_LATENTS, "bf16": False}
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value).lower())]
    places = ["--model_name_or_path", str(qwen_checkpoint), "--dataset_name", str(built), "--output_dir"]
    parser = TrlParser((ScriptArguments, StormAlignConfig, StormModelConfig))
    specification = importlib.util.spec_from_file_location("script", SCRIPT)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    trained = []
    script.StormAlignTrainer = lambda **given: trained.append(StormAlignTrainer(**given)) or trained[0]
    script.main(*parser.parse_args_and_config([*places, str(tmp_path / "script"), *options]))

    trainer = StormAlignTrainer(
        model=str(qwen_checkpoint),
        args=StormAlignConfig(str(tmp_path / "python"), **settings),
        train_dataset=load_rows(str(built))["train"],
    )
    trainer.train()
    trainer.save_model()
    for name in ("loss", "align_loss", "latent_cosine", "grad_norm"):
        assert logged(trainer, name) == logged(trained[0], name), name
    saved = [TargetTrajectory.load(tmp_path / name) for name in ("script", "python")]
    assert torch.equal(saved[0].statistics.projection, saved[1].statistics.projection)
    assert saved[1].statistics.rank == CHOSEN_RANK


def test_targets_of_a_collator_of_ones_own_are_saved_with_the_model(built, qwen_checkpoint, tmp_path):
    model, processor = load_tiny(qwen_checkpoint, NUM_LATENTS)
    usual = {"args": arguments(tmp_path, max_steps=1), "train_dataset": load_rows(str(built))["train"]}
    first = StormAlignTrainer(model=model, processing_class=processor, **usual)
    second = StormAlignTrainer(model=model, processing_class=processor, data_collator=first.data_collator, **usual)
    second.save_model()
    assert TargetTrajectory.load(tmp_path).statistics.rank == CHOSEN_RANK
