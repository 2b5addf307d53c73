"""A build that is killed at any moment ends, once it is begun again, with the bytes of one that was not."""

import os
import signal
import time
from multiprocessing import get_context

import numpy as np
import pytest
from tests.builder.tiny_build import clips_and_annotations, published, tiny_recipe

from storm_hf.builder import Share, ThoughtsBuilder
from storm_hf.builder.engines import BuildJob, build_with_datatrove, build_with_workers


FORK = get_context("fork")  # a process that has loaded everything


def start(recipe, share=None):
    """Begin a build in a process of its own."""
    process = FORK.Process(target=ThoughtsBuilder(recipe, share=share or Share()).build)
    process.start()
    return process


def finish(process):
    process.join(600)  # seconds; a crowded machine takes some
    assert process.exitcode == 0


def recipe_for(annotations, checkpoint, folder):
    return tiny_recipe(annotations, checkpoint, folder, frame_size=[112, 196])


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    """Ten questions about clips of the size that showed that x264 does not repeat itself."""
    return clips_and_annotations(tmp_path_factory.mktemp("natural"), 10, 224, 392)


@pytest.fixture(scope="module")
def built(annotations, qwen_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "data"
    finish(start(recipe_for(annotations, qwen_checkpoint, folder)))
    return folder


@pytest.fixture(scope="module")
def seconds(annotations, qwen_checkpoint, tmp_path_factory):
    """Duration of a build on this machine."""
    began = time.monotonic()
    finish(start(recipe_for(annotations, qwen_checkpoint, tmp_path_factory.mktemp("timed"))))
    return time.monotonic() - began


@pytest.mark.parametrize("attempt", range(3))
def test_killed_build_ends_with_the_bytes_of_an_uninterrupted_one(
    attempt, built, annotations, qwen_checkpoint, tmp_path, seconds
):
    recipe = recipe_for(annotations, qwen_checkpoint, tmp_path)
    for moment in np.random.default_rng(attempt).uniform(0, seconds, size=2):
        process = start(recipe)
        process.join(float(moment))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    finish(start(recipe))
    assert published(tmp_path) == published(built)


def test_processes_build_together_and_take_over_from_one_that_is_killed(
    built, annotations, qwen_checkpoint, tmp_path, seconds
):
    recipe = recipe_for(annotations, qwen_checkpoint, tmp_path)
    processes = [start(recipe, Share(rank, 3)) for rank in range(3)]
    processes[0].join(seconds / 2)
    processes[0].kill()
    for process in processes[1:]:
        finish(process)
    assert published(tmp_path) == published(built)


@pytest.mark.slow
def test_workers_that_start_anew_write_the_same_bytes(built, annotations, qwen_checkpoint, tmp_path):
    report = build_with_workers(recipe_for(annotations, qwen_checkpoint, tmp_path), 2)
    assert report.num_rows == {"train": 10}
    assert published(tmp_path) == published(built)


@pytest.mark.slow
def test_tasks_of_datatrove_write_the_same_bytes(built, annotations, qwen_checkpoint, tmp_path):
    build_with_datatrove(recipe_for(annotations, qwen_checkpoint, tmp_path), 3)
    assert published(tmp_path) == published(built)


def test_job_of_an_array_does_its_own_shards(annotations, qwen_checkpoint, tmp_path):
    recipe = recipe_for(annotations, qwen_checkpoint, tmp_path)
    BuildJob(recipe, "annotations")(None)
    BuildJob(recipe, "prompts")(None, rank=1, world_size=3)
    assert [path.name for path in sorted((tmp_path / "work" / "20_prompts").iterdir())] == ["train-00001.jsonl"]
