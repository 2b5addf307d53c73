"""Rows that are read by worker processes: the same batches, on one core each, and errors that arrive."""

import os
import sys
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training import processes  # noqa: F401  (what its fork server imports once, workers need not)
from tests.training.tiny_training import NUM_LATENTS, QUIET, logged
from tests.training.tiny_videos import load_tiny, prompt_encoder, write_thoughts
from tests.video.fake_libraries import GIVE_UP, write_decord

from storm_hf import StormAlignConfig, StormAlignTrainer, StormAnswerConfig
from storm_hf.align.collator import AlignCollator
from storm_hf.align.targets import fit_trajectory
from storm_hf.errors import ConfigurationError, DependencyError, VideoReadError
from storm_hf.inputs.collator import AnswerCollator
from storm_hf.inputs.features import cache_video_features
from storm_hf.training import device as devices
from storm_hf.training.loading import load_rows
from storm_hf.video import timeline
from storm_hf.video.library_process import stop_idle_processes


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.setenv("STORM_VIDEO_BACKEND", "pyav")  # restored at the end, whatever a trainer sets
    monkeypatch.delenv("STORM_VIDEO_BACKEND")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"), num_rows=6)))["train"]


@pytest.fixture(scope="module")
def tiny(qwen_checkpoint):
    return load_tiny(qwen_checkpoint, NUM_LATENTS)


def settings(folder, **changes):
    return {
        **QUIET,
        "output_dir": str(folder),
        "max_steps": 3,
        "learning_rate": 0.0,
        "whitening_rank": 4,
        **changes,
    }


def align_trainer(tiny, rows, folder, **changes):
    model, processor = tiny
    args = StormAlignConfig(**settings(folder, **changes))
    return StormAlignTrainer(model=model, args=args, train_dataset=rows, processing_class=processor)


def assert_equal_batches(batches, expected):
    assert len(batches) == len(expected) == 3
    for batch, wanted in zip(batches, expected, strict=True):
        assert batch.keys() == wanted.keys()
        for name, value in batch.items():
            assert value.dtype == wanted[name].dtype
            assert torch.equal(value, wanted[name]), name


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_make_the_batches_that_the_trainer_itself_would(method, is_cached, tiny, rows, tmp_path):
    rows = cache_video_features(rows, *tiny) if is_cached else rows
    workers = {"dataloader_num_workers": 2, "dataloader_multiprocessing_context": method}
    alone = list(align_trainer(tiny, rows, tmp_path).get_train_dataloader())
    helped = list(align_trainer(tiny, rows, tmp_path, **workers).get_train_dataloader())
    assert_equal_batches(helped, alone)


@pytest.mark.slow
def test_run_with_workers_logs_the_losses_of_one_without(tiny, rows, tmp_path):
    losses = []
    for num_workers in (0, 2):
        trainer = align_trainer(tiny, rows, tmp_path, dataloader_num_workers=num_workers)
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_read_with_the_backend_of_the_run(workers, tiny, rows, tmp_path, monkeypatch):
    write_decord(tmp_path, GIVE_UP)
    monkeypatch.syspath_prepend(str(tmp_path))
    stop_idle_processes()
    trainer = align_trainer(tiny, rows, tmp_path, dataloader_num_workers=workers, video_backend="decord")
    with pytest.raises(VideoReadError, match="cannot be read by decord .no such codec"):
        next(iter(trainer.get_train_dataloader()))
    stop_idle_processes()


@pytest.mark.parametrize("config", [StormAlignConfig, StormAnswerConfig])
@pytest.mark.parametrize(("backend", "error"), [("opencv", ConfigurationError), ("decord", DependencyError)])
def test_backend_that_cannot_read_here_is_told_with_the_arguments(config, backend, error, tmp_path, monkeypatch):
    monkeypatch.setattr("storm_hf.video.library_process.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(error):
        config(str(tmp_path), use_cpu=True, video_backend=backend)
    monkeypatch.setenv("STORM_VIDEO_BACKEND", backend)
    with pytest.raises(ConfigurationError if backend == "opencv" else error):
        config(str(tmp_path), use_cpu=True)


@dataclass(frozen=True)
class Report:
    """Says what a worker is allowed to use, where a batch would be."""

    def __call__(self, rows: Any) -> dict[str, torch.Tensor]:
        with timeline.open_video(Path(rows[0]["video"])) as (_, stream):
            timeline.use_threads(stream, 10_000)
            numbers = [os.getpid(), torch.get_num_threads(), stream.codec_context.thread_count]
        return {"numbers": torch.tensor(numbers)}


def test_each_worker_keeps_to_one_core(tiny, rows, tmp_path):
    assert parent_process() is None
    trainer = align_trainer(tiny, rows, tmp_path, dataloader_num_workers=2)
    trainer.data_collator = Report()
    reports = [batch["numbers"].tolist() for batch in trainer.get_train_dataloader()]
    assert {tuple(numbers[1:]) for numbers in reports} == {(1, 1)}
    assert os.getpid() not in {numbers[0] for numbers in reports}
    own_process = Report()(rows)["numbers"].tolist()
    assert own_process[2] != 1, "the process that trains decodes long videos on all cores"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_broken_video_reaches_the_user_with_its_name(num_workers, tiny, rows, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(rows[0]["video"]).read_bytes()[:200])
    rows = rows.map(lambda row, number: {"video": str(broken) if number == 3 else row["video"]}, with_indices=True)
    with pytest.raises(VideoReadError, match=r"broken\.mp4"):
        align_trainer(tiny, rows, tmp_path, dataloader_num_workers=num_workers).train()


def test_workers_live_on_where_there_are_any(tmp_path):
    assert StormAnswerConfig(str(tmp_path), use_cpu=True, dataloader_num_workers=2).dataloader_persistent_workers
    assert not StormAnswerConfig(str(tmp_path), use_cpu=True).dataloader_persistent_workers


def test_workers_are_left_out_on_a_cpu(tmp_path):
    assert StormAnswerConfig(str(tmp_path), use_cpu=True).dataloader_num_workers == 0
    assert devices.workers_to_spare() == 0 or torch.cuda.is_available()


@pytest.mark.parametrize(
    ("num_cores", "num_training", "num_workers"), [(96, 8, 8), (16, 4, 3), (16, 1, 8), (4, 4, 0), (1, 1, 0)]
)
def test_workers_share_the_cores_that_training_leaves(num_cores, num_training, num_workers, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(num_cores))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(num_training))
    assert devices.workers_to_spare() == num_workers


def test_prompts_are_padded_to_the_longest_of_the_batch_and_no_further(tiny, rows):
    encoder = prompt_encoder(*tiny)
    lengths = [AnswerCollator(encoder)([row])["input_ids"].shape[1] for row in rows]
    for batch in (rows.select([0, 1]), rows.select([2, 3])):
        mask = AnswerCollator(encoder)(list(batch))["attention_mask"]
        prompts = [encoder([row])["input_ids"].shape[1] for row in batch]
        answers = [AnswerCollator(encoder).encode_answer(row["answer"]).shape[0] for row in batch]
        assert mask.shape[1] == max(prompts) + max(answers)
    assert len(set(lengths)) > 1


def test_cached_features_travel_in_half_precision(tiny, rows):
    cached = cache_video_features(rows, *tiny)
    trajectory = fit_trajectory(rows, NUM_LATENTS, StormAlignConfig(**settings("unused")))
    batch = AlignCollator(AnswerCollator(prompt_encoder(*tiny)), trajectory)(list(cached.select([0, 1])))
    assert batch["video_features"].dtype == torch.float16


def test_half_precision_in_the_batch_changes_no_result(tiny, rows):
    cached = cache_video_features(rows, *tiny)
    batch = AnswerCollator(prompt_encoder(*tiny))(list(cached.select([0, 1])))
    halves = tiny[0](**batch)
    floats = tiny[0](**{**batch, "video_features": batch["video_features"].float()})
    assert torch.equal(halves.loss, floats.loss)
    assert torch.equal(halves.latents, floats.latents)
