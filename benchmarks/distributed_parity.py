"""Does it matter how a run is spread over processes? Each way of training, against one process with the whole batch.

    python benchmarks/distributed_parity.py

Two processes on this machine's processor, started by `accelerate launch` with the files of `trainers/accelerate`, train a tiny
Qwen2.5-VL in both stages on the same rows. A row fails if the loss or the gradient norm of any step differs by more than the
tolerance, and then the exit code is 1. FSDP2 shards as accelerate does with `fsdp2.yaml` on GPUs, in a plain loop, since on a
processor accelerate would train with DDP instead.

Needs the extra `scale`. DeepSpeed compiles operators in its first run on a machine, which takes minutes.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))  # the tiny models and rows are those of the tests

from tests.scale.generation import compare_with_saved
from tests.scale.job import GLOBAL_BATCH, NUM_STEPS, Job, Outcome
from tests.scale.launch import launch, prepare


STAGES = ("align", "answer")
TOLERANCE = 1e-5  # largest relative difference of a loss or gradient norm, in float32, after up to NUM_STEPS updates
LOGIT_TOLERANCE = 1e-5
KILLED_AT = 3


@dataclass(frozen=True)
class Way:
    """A way of training that must give the numbers of one process."""

    title: str
    config: str | None
    job: Job

    @property
    def reference(self) -> str:
        """Name of the one-process job that it is compared with."""
        return f"one-{self.job.reference}"


def ways() -> Iterator[Way]:
    """All rows of the table that compare losses."""
    half = {"batch_size": GLOBAL_BATCH // 2}
    cut = {"batch_size": 1, "accumulate": GLOBAL_BATCH // 2}
    settings = [
        ("one process, the reference", None, "one", {"batch_size": GLOBAL_BATCH}),
        ("one process, LoRA, its reference", None, "one-lora", {"batch_size": GLOBAL_BATCH, "lora": True}),
        (
            "one process, latents alone, its reference",
            None,
            "one-narrow",
            {"batch_size": GLOBAL_BATCH, "narrow": True},
        ),
        ("one process, batch 1 x 8", None, "one-cut", {"batch_size": 1, "accumulate": GLOBAL_BATCH}),
        ("DDP", "ddp", "ddp", half),
        ("DDP, batch 1 x 4", "ddp", "ddp-cut", cut),
        ("DDP, LoRA", "ddp", "ddp-lora", {**half, "lora": True}),
        ("FSDP2", "ddp", "fsdp2", {**half, "fully_shard": True}),
        ("FSDP2, checkpointing", "ddp", "fsdp2-again", {**half, "fully_shard": True, "checkpointing": True}),
        ("FSDP2, latents alone", "ddp", "fsdp2-narrow", {**half, "fully_shard": True, "narrow": True}),
        ("ZeRO-2", "zero2", "zero2", half),
        ("ZeRO-2, batch 1 x 4", "zero2", "zero2-cut", cut),
        ("ZeRO-3", "zero3", "zero3", half),
        ("ZeRO-3, batch 1 x 4", "zero3", "zero3-cut", cut),
        ("ZeRO-3, checkpointing", "zero3", "zero3-again", {**half, "checkpointing": True}),
        ("ZeRO-3, LoRA", "zero3", "zero3-lora", {**half, "lora": True}),
        ("ZeRO-3, LoRA, checkpointing", "zero3", "zero3-lora-again", {**half, "lora": True, "checkpointing": True}),
        ("ZeRO-3, latents alone", "zero3", "zero3-narrow", {**half, "narrow": True, "checkpointing": True}),
        ("ZeRO-3, offload", "zero3_offload", "offload", half),
    ]
    for title, config, name, job in settings:
        for stage in STAGES:
            yield Way(title, config, Job(f"{name}-{stage}", stage, **job))


def train_all(folder: Path) -> None:
    """Run every way; those of one configuration in one launch."""
    every = list(ways())
    for config in dict.fromkeys(way.config for way in every):
        jobs = [way.job for way in every if way.config == config]
        if config == "zero3":
            jobs.append(Job("generates", "answer", GLOBAL_BATCH // 2, generates=True))
        started = time.monotonic()
        run = launch(config, jobs, folder)
        print(f"{config or 'one process'}: {len(jobs)} runs in {time.monotonic() - started:.0f} s", file=sys.stderr)
        if run.returncode != 0:
            print(run.stdout[-4000:], file=sys.stderr)


def parity_rows(folder: Path) -> Iterator[list[str]]:
    """Compare each way with its reference."""
    for way in ways():
        try:
            outcome, expected = (Outcome.read(folder / name) for name in (way.job.name, way.reference))
        except FileNotFoundError:
            yield [way.title, way.job.stage, "-", "-", "did not finish", "FAIL"]
            continue
        difference = outcome.difference(expected)
        yield [way.title, way.job.stage, *shown(outcome), f"{difference:.1e}", verdict(difference <= TOLERANCE)]


def generation_rows(folder: Path) -> Iterator[list[str]]:
    """Generation under ZeRO-3 with another length on each process, and the checkpoint that it saves."""
    try:
        is_same, difference = compare_with_saved(folder / "generates")
    except FileNotFoundError:
        is_same, difference = False, float("inf")
    yield ["ZeRO-3 `generate`, 3 and 5 tokens", "answer", "-", "-", "same tokens as one process", verdict(is_same)]
    is_close = difference <= LOGIT_TOLERANCE
    yield ["ZeRO-3 saved, `from_pretrained`", "answer", "-", "-", f"logits {difference:.1e}", verdict(is_close)]


def resumption_rows(folder: Path) -> Iterator[list[str]]:
    """One of the processes is killed; the run must end, and its resumption must give what an uninterrupted run gave."""
    for title, config in (("DDP", "ddp"), ("ZeRO-3", "zero3")):
        job = Job(f"{config}-killed", "answer", GLOBAL_BATCH // 2, save_steps=2)
        killed = launch(config, [replace(job, kill_at_step=KILLED_AT)], folder)
        saved = folder / job.name / "checkpoint-2" / "trainer_state.json"
        saved_at = saved.stat().st_mtime_ns if saved.exists() else 0
        resumed = launch(config, [job], folder)
        if resumed.returncode != 0:
            yield [f"{title}, killed and resumed", "answer", "-", "-", "did not finish", "FAIL"]
            continue
        outcome, expected = Outcome.read(folder / job.name), Outcome.read(folder / f"{config}-answer")
        difference = outcome.difference(expected)
        is_repeated = saved.stat().st_mtime_ns != saved_at  # the checkpoint is written once if the run went on from it
        is_fine = killed.returncode != 0 and not is_repeated and difference <= TOLERANCE
        yield [f"{title}, killed and resumed", "answer", *shown(outcome), f"{difference:.1e}", verdict(is_fine)]


def shown(outcome: Outcome) -> list[str]:
    """The steps of a run, for people."""
    return [" ".join(f"{value:.4f}" for value in values) for values in (outcome.loss, outcome.grad_norm)]


def verdict(is_fine: bool) -> str:
    """Format the end of a row."""
    return "ok" if is_fine else "FAIL"


def table(rows: list[list[str]]) -> str:
    """Write a Markdown table."""
    head = ["run", "stage", "loss of each step", "gradient norm", "largest relative difference", "verdict"]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def main() -> int:
    """Train in every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Keep the runs here, by default in a temporary folder.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = prepare((args.out or Path(temporary)).resolve())
        train_all(folder)
        rows = [*parity_rows(folder), *generation_rows(folder), *resumption_rows(folder)]
    print(f"Two processes, {NUM_STEPS} steps, {GLOBAL_BATCH} rows a step; tolerance {TOLERANCE:.0e}.\n\n{table(rows)}")
    return int(any(row[-1] != "ok" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
