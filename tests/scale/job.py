"""One run of a tiny model by several processes, and what is kept of it. A process reads its jobs from a file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


GLOBAL_BATCH = 8
NUM_STEPS = 4


@dataclass(frozen=True)
class Job:
    """Joint work of all processes of a launch.

    Args:
        name (`str`):
            Name of the folder of its results.
        stage (`str`):
            `"align"` or `"answer"`.
        batch_size (`int`):
            Rows of a micro-batch on each process.
        accumulate (`int`, *optional*, defaults to `1`):
            Micro-batches of an accumulated batch.
        checkpointing (`bool`, *optional*, defaults to `False`):
            Whether layers are recomputed in the backward pass.
        lora (`bool`, *optional*, defaults to `False`):
            Whether only an adapter is trained.
        narrow (`bool`, *optional*, defaults to `False`):
            Whether every answer comes from the latents alone.
        words (`bool`, *optional*, defaults to `False`):
            Whether latents learn to be read as words.
        fully_shard (`bool`, *optional*, defaults to `False`):
            Whether FSDP2 shards the model, in a plain loop: on a processor accelerate would train with DDP instead.
        latents_of_rank (`tuple` of `int`, *optional*):
            Another number of latents for each process, which must be refused.
        text_only_rank (`int`, *optional*):
            A process whose rows have no video, which must be refused.
        save_steps (`int`, *optional*, defaults to `0`):
            Steps between checkpoints; `0` saves none. A run goes on from the newest one.
        kill_at_step (`int`, *optional*, defaults to `0`):
            Step after which the last process is killed; `0` for none.
        generates (`bool`, *optional*, defaults to `False`):
            Whether each process generates answers of a length of its own in the end, and the model is saved.
    """

    name: str
    stage: str
    batch_size: int
    accumulate: int = 1
    checkpointing: bool = False
    lora: bool = False
    narrow: bool = False
    words: bool = False
    fully_shard: bool = False
    latents_of_rank: Sequence[int] = ()
    text_only_rank: int = -1
    save_steps: int = 0
    kill_at_step: int = 0
    generates: bool = False

    @property
    def reference(self) -> str:
        """Name of the same run by one process, behind a name of its own."""
        return f"{'lora-' * self.lora}{'narrow-' * self.narrow}{'words-' * self.words}{self.stage}"


def write_jobs(jobs: Sequence[Job], path: Path) -> None:
    """Write jobs for the processes of one launch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(job) for job in jobs]))


def read_jobs(path: Path) -> list[Job]:
    """Read what `write_jobs` wrote."""
    return [Job(**job) for job in json.loads(path.read_text())]


@dataclass(frozen=True)
class Outcome:
    """Log of a job, step by step."""

    loss: list[float]
    grad_norm: list[float]

    @classmethod
    def read(cls, folder: Path) -> "Outcome":
        """Read the outcome that a job left in its folder."""
        return cls(**json.loads((folder / "outcome.json").read_text()))

    def write(self, folder: Path) -> None:
        """Leave the outcome in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "outcome.json").write_text(json.dumps(asdict(self)))

    def difference(self, other: "Outcome") -> float:
        """Largest relative difference of any step from that of another run."""
        if len(self.loss) != len(other.loss) or not self.loss:
            return float("inf")
        pairs = [*zip(self.loss, other.loss, strict=True), *zip(self.grad_norm, other.grad_norm, strict=True)]
        return max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)
