"""DeepSpeed and FSDP2 on two processes: the same numbers as one process, and no hang where processes disagree or die.

A small version of `benchmarks/distributed_parity.py`. Each launch runs several jobs, since starting it takes longest.
"""

import re
from dataclasses import replace

import pytest
from tests.scale.generation import compare_with_saved
from tests.scale.job import GLOBAL_BATCH, NUM_STEPS, Job, Outcome
from tests.scale.launch import launch, prepare


pytestmark = [pytest.mark.slow, pytest.mark.scale]
TOLERANCE = 1e-5
HALF = GLOBAL_BATCH // 2
ALONE = [
    *(Job(f"alone-{stage}", stage, GLOBAL_BATCH) for stage in ("align", "answer")),
    Job("alone-lora-answer", "answer", GLOBAL_BATCH, lora=True),
    Job("alone-words-align", "align", GLOBAL_BATCH, words=True),
    *(Job(f"alone-narrow-{stage}", stage, GLOBAL_BATCH, narrow=True) for stage in ("align", "answer")),
]
DDP = [
    *(Job(f"ddp-{stage}", stage, HALF) for stage in ("align", "answer")),
    *(Job(f"fsdp2-{stage}", stage, HALF, fully_shard=True) for stage in ("align", "answer")),
    Job("fsdp2-words-align", "align", HALF, fully_shard=True, words=True),
    Job("fsdp2-narrow-answer", "answer", HALF, fully_shard=True, narrow=True),
]
ZERO3 = [
    *(Job(f"zero3-{stage}", stage, 1, accumulate=HALF) for stage in ("align", "answer")),
    *(Job(f"again-{stage}", stage, HALF, checkpointing=True) for stage in ("align", "answer")),
    *(Job(f"zero3-narrow-{stage}", stage, HALF, checkpointing=True, narrow=True) for stage in ("align", "answer")),
    Job("zero3-words-align", "align", HALF, words=True),
    Job("zero3-lora-answer", "answer", HALF, lora=True, checkpointing=True),
    Job("generates", "answer", HALF, generates=True),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("scale"))


@pytest.fixture(scope="module")
def trained(folder):
    """The folder after every job has been done."""
    for config, jobs in ((None, ALONE), ("ddp", DDP), ("zero3", ZERO3)):
        run = launch(config, jobs, folder)
        assert run.returncode == 0, run.stdout[-4000:]
    return folder


@pytest.mark.parametrize("job", [*DDP, *ZERO3], ids=lambda job: job.name)
def test_two_processes_log_what_one_process_logs(job, trained):
    outcome = Outcome.read(trained / job.name)
    assert len(outcome.loss) == NUM_STEPS
    assert outcome.difference(Outcome.read(trained / f"alone-{job.reference}")) <= TOLERANCE


def test_reference_moves_by_more_than_the_tolerance(trained):
    losses = Outcome.read(trained / "alone-answer").loss
    assert min(abs(ours - theirs) for ours, theirs in zip(losses, losses[1:], strict=False)) > 10 * TOLERANCE


def test_generation_and_saved_checkpoint_equal_one_process(trained):
    is_same, difference = compare_with_saved(trained / "generates")
    assert is_same
    assert difference <= TOLERANCE


@pytest.mark.parametrize(
    ("disagreement", "expected"),
    [
        ({"latents_of_rank": (3, 5)}, "3 latents with `pixel_values_videos` on rank 0; 5 latents"),
        ({"text_only_rank": 1}, "3 latents with no video on rank 1"),
    ],
    ids=["latents", "video"],
)
def test_processes_that_disagree_end_with_an_error_on_each(disagreement, expected, folder):
    run = launch("zero3", [Job("disagree", "answer", HALF, **disagreement)], folder)
    assert run.returncode != 0
    told = re.findall(r"\[rank(\d)\]: storm_hf\.errors\.StageError: (.*)", run.stdout)
    assert {rank for rank, _ in told} == {"0", "1"}
    assert all(expected in message for _, message in told)


def test_run_whose_process_was_killed_ends_and_resumes_to_the_same_losses(trained):
    job = Job("killed", "answer", HALF, save_steps=2)
    killed = launch("zero3", [replace(job, kill_at_step=3)], trained)
    assert killed.returncode != 0
    assert not (trained / "killed" / "outcome.json").exists()
    saved = trained / "killed" / "checkpoint-2" / "trainer_state.json"
    saved_at = saved.stat().st_mtime_ns
    assert launch("zero3", [job], trained).returncode == 0
    assert saved.stat().st_mtime_ns == saved_at, "the run went on, and did not begin anew"
    assert Outcome.read(trained / "killed").difference(Outcome.read(trained / "alone-answer")) <= TOLERANCE
