"""Throughput of a run, in every line of its log: tokens, arithmetic, waiting, memory.

Counts stay on the device until a line is logged; one small gather then brings those of all processes together.

Axes: B batch, S sequence.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate.utils import is_peft_model
from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedModel

from storm_hf.inputs.collator import IGNORED_LABEL
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.device import known_flops_per_second, peak_memory_bytes
from storm_hf.training.flops import (
    AttentionShape,
    ParameterCounts,
    TokenCounts,
    attention_shape,
    count_parameters,
    is_dense,
    training_flops,
)


Batch = dict[str, torch.Tensor]

_MIB = 2**20
_MICROSECONDS = 1_000_000
_PIXELS_AND_GRIDS = (("pixel_values_videos", "video_grid_thw"), ("pixel_values", "image_grid_thw"))


@dataclass(frozen=True)
class Throughput:
    """Counts between two lines of the log.

    Args:
        num_processes (`int`):
            Processes that trained together.
        num_steps (`int`):
            Updates of the weights.
        seconds (`float`):
            Time that they took.
        seconds_waiting (`float`):
            Mean time that a process waited for its batches.
        peak_bytes (`int`):
            Most memory that a process has used since it began.
        num_cells (`int`):
            Size of all batches of all processes, padding included.
        tokens ([`~storm_hf.training.flops.TokenCounts`]):
            Tokens of all processes.
    """

    num_processes: int
    num_steps: int
    seconds: float
    seconds_waiting: float
    peak_bytes: int
    num_cells: int
    tokens: TokenCounts

    def metrics(self) -> dict[str, float]:
        """The values to log."""
        return {
            "tokens_per_second": self.tokens.decoder / self.seconds,
            "padding_share": 1 - self.tokens.decoder / self.num_cells,
            "step_seconds": self.seconds / self.num_steps,
            "data_wait_share": self.seconds_waiting / self.seconds,
            "peak_memory_mib": self.peak_bytes / _MIB,
        }


@dataclass(frozen=True)
class Utilisation:
    """Share of a device's arithmetic that the FLOPs of a model take.

    Args:
        parameters ([`~storm_hf.training.flops.ParameterCounts`]):
            Of the model.
        attention ([`~storm_hf.training.flops.AttentionShape`]):
            Of the model.
        peak_flops_per_second (`float`):
            Dense FLOPs per second of one device.
    """

    parameters: ParameterCounts
    attention: AttentionShape
    peak_flops_per_second: float

    def of(self, throughput: Throughput) -> float:
        """Divide the model FLOPs of some steps by those that all devices could have computed in their time."""
        flops = training_flops(self.parameters, throughput.tokens, self.attention)
        return flops / (self.peak_flops_per_second * throughput.num_processes * throughput.seconds)


class ThroughputMeter:
    """Counts what training steps compute on, and how long they take. It waits for the device only in `read`.

    A trainer lets it run while it takes the batches of a step, stops it before what is no training, and logs its `metrics`:
    over the steps since the last line `tokens_per_second` (of all processes, padding excluded), `padding_share`,
    `step_seconds`, `data_wait_share` (of the time, spent waiting for the next batch) and, where the device's peak is known,
    `model_flops_utilisation`; and `peak_memory_mib`, of the fullest process since it began.

    Args:
        config ([`StormConfig`]):
            Holds the ids of the tokens and the size of the patches.
        detaches_prompt (`bool`, *optional*, defaults to `False`):
            Whether prompts have no backward pass.
        utilisation ([`Utilisation`], *optional*):
            Also logged, if it is known.
    """

    def __init__(
        self, config: PreTrainedConfig, detaches_prompt: bool = False, utilisation: Utilisation | None = None
    ) -> None:
        self.config, self.detaches_prompt, self.utilisation = config, detaches_prompt, utilisation
        self._since: float | None = None
        self._begin()

    @classmethod
    def of_run(cls, model: PreTrainedModel | PeftModel, args: StormTrainingConfig) -> "ThroughputMeter":
        """Make the meter of a model and of how it is trained."""
        storm = model.get_base_model() if is_peft_model(model) else model
        num_latents = storm.config.num_latents if args.num_latents is None else args.num_latents
        peak = peak_flops_per_second(args) if is_dense(storm.config) else None
        reads_frozen = storm.config.thought_adapter is not None and args.freeze_vision
        return cls(
            storm.config,
            detaches_prompt=reads_frozen or not args.rollout_gradient.reaches_prompt(num_latents),
            utilisation=None
            if peak is None
            else Utilisation(count_parameters(storm), attention_shape(storm.config), peak),
        )

    def _begin(self) -> None:
        self.num_steps, self.seconds, self.seconds_waiting = 0, 0.0, 0.0
        self._counts: list[torch.Tensor] = []

    def run(self) -> None:
        """Let the clock run, if it stands."""
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock: what follows, such as saving or evaluating, is no training."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Take batches, and time how long each one is waited for."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waiting += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def observe(self, batches: Sequence[Batch]) -> None:
        """Count the batches of one update."""
        self.num_steps += 1
        for batch in batches:
            nothing = batch["input_ids"].new_zeros(())  # what joins it travels without the device being waited for
            self._counts.append(torch.stack([nothing + count for count in self._counts_of(batch)]))

    def _counts_of(self, batch: Batch) -> list[torch.Tensor | int]:
        """Cells of the batch, then the fields of [`TokenCounts`] in order."""
        input_ids, mask = batch["input_ids"], batch["attention_mask"].long()
        is_supervised = batch["labels"] != IGNORED_LABEL  # (B, S)
        num_latents = self._num_latents(input_ids)
        lengths = mask.sum(dim=1)  # (B,)
        prompts = (mask * (is_supervised.cumsum(dim=1) == 0)).sum(dim=1) - num_latents
        detached = prompts * self.detaches_prompt
        patches, patch_pairs = self._patches_of(batch)
        return [
            mask.numel(),
            lengths.sum(),
            (lengths * lengths).sum(),
            detached.sum(),
            (detached * detached).sum(),
            is_supervised.sum(),
            num_latents.sum(),
            patches,
            patch_pairs,
            self._is_video(input_ids).sum() if patches else 0,
        ]

    def _num_latents(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Latent steps of each row, (B,); pause tokens are none, they are ordinary tokens."""
        if self.config.latent_token_id is None:
            return input_ids.new_zeros(len(input_ids))
        return (input_ids == self.config.latent_token_id).sum(dim=1)

    def _patches_of(self, batch: Batch) -> tuple[int, torch.Tensor | int]:
        """Patches that the vision tower sees, and their pairs within a frame; none where its features are cached."""
        patches: int = 0
        pairs: torch.Tensor | int = 0
        size = self.config.vlm_config.vision_config.patch_size
        side = size if isinstance(size, int) else size[0]
        for name, grid in _PIXELS_AND_GRIDS:
            if (pixels := batch.get(name)) is None:
                continue
            if grid in batch:  # a row of pixels is a patch
                num_frames, height, width = batch[grid].unbind(dim=-1)
                patches += len(pixels)
                pairs += (num_frames * (height * width) ** 2).sum()
            else:  # pictures, in their last two axes
                per_frame = pixels.shape[-2] * pixels.shape[-1] // side**2
                patches += per_frame * pixels.shape[:-3].numel()
                pairs += per_frame**2 * pixels.shape[:-3].numel()
        return patches, pairs

    def _is_video(self, input_ids: torch.Tensor) -> torch.Tensor:
        is_video = torch.zeros_like(input_ids, dtype=torch.bool)
        for name in ("video_token_id", "image_token_id"):
            if (token_id := getattr(self.config.vlm_config, name, None)) is not None:
                is_video = is_video | (input_ids == token_id)
        return is_video

    def metrics(self, gather: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> dict[str, float]:
        """Read the values to log; none if no step was taken."""
        if (throughput := self.read(gather, device)) is None:
            return {}
        shares = {} if self.utilisation is None else {"model_flops_utilisation": self.utilisation.of(throughput)}
        return throughput.metrics() | shares

    def read(self, gather: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> Throughput | None:
        """Reduce the counts of all ranks since the last call and reset; None if no step was taken."""
        self.stop()
        if not self._counts:
            return None
        time_taken, time_waited = (round(_MICROSECONDS * value) for value in (self.seconds, self.seconds_waiting))
        mine = torch.tensor([self.num_steps, time_taken, time_waited, peak_memory_bytes(device)], device=device)
        rows = gather(torch.cat([mine, torch.stack(self._counts).sum(dim=0).to(device)])[None]).tolist()
        self._begin()
        self.run()
        steps, times, waits, peaks, *counts = zip(*rows, strict=True)
        num_cells, *tokens = map(sum, counts)
        return Throughput(
            num_processes=len(rows),
            num_steps=steps[0],
            seconds=max(times) / _MICROSECONDS,
            seconds_waiting=sum(waits) / len(rows) / _MICROSECONDS,
            peak_bytes=max(peaks),
            num_cells=num_cells,
            tokens=TokenCounts(*tokens),
        )


def peak_flops_per_second(args: StormTrainingConfig) -> float | None:
    """Find the dense FLOPs per second of one device of a run; None where it is not known.

    Args:
        args ([`StormTrainingConfig`]):
            Its `peak_flops_per_second` comes first. What is known of devices is about 16-bit arithmetic only.
    """
    if args.peak_flops_per_second is not None:
        return args.peak_flops_per_second
    return known_flops_per_second(args.device) if args.bf16 or args.fp16 else None
