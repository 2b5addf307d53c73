"""Processes that hold one sharded model must run the same layers: checked once per accumulated batch.

ZeRO-3 and FSDP gather each layer from all processes at the moment it runs. A process that runs the decoder once more than the
others (another number of latents), or that skips the vision tower (a batch without a video), would leave all of them waiting
for ever. With DistributedDataParallel, ZeRO-1 and ZeRO-2 every process has the whole model, and a batch may be as it likes.

Axes: P processes, M micro-batches of an accumulated batch.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from storm_hf.errors import StageError


_ENCODED_INPUTS = ("pixel_values", "pixel_values_videos", "video_features")  # each is encoded by a pass of its own
_ABSENT = -1


def is_sharded(model: nn.Module) -> bool:
    """Check for parameters of a model that are partitioned over processes, by ZeRO-3 (`ds_id`) or FSDP (`DTensor`)."""
    return any(hasattr(parameter, "ds_id") or isinstance(parameter, DTensor) for parameter in model.parameters())


def unshard_lm_head(model: PreTrainedModel) -> None:
    """Gather the head that FSDP2 has cut, until the backward pass, which reduces its gradient over processes.

    TRL's fused head reads the weight without a call of the module, and would otherwise gather it on its own: the gradient of
    one process would then stand for that of all.
    """
    head = model.get_output_embeddings()
    if isinstance(head, FSDPModule):
        head.unshard()


def gathered_lm_head(model: PreTrainedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """The head for a loss beside that of `unshard_lm_head`: a call of the module would free the weight before the backward pass."""
    head = model.get_output_embeddings()
    is_cut = isinstance(head, FSDPModule)
    return head.forward if is_cut else head


def forward_signatures(
    batches: Sequence[Mapping[str, torch.Tensor]], latent_token_id: int | None, num_batches: int, device: torch.device
) -> torch.Tensor:
    """Write down which way each micro-batch will take through the model.

    Args:
        batches (`Sequence[Mapping]`):
            Model inputs of the micro-batches.
        latent_token_id (`int`, *optional*):
            Id of a latent step in `input_ids`; None if the model has no latent tokens.
        num_batches (`int`):
            Number M of micro-batches in a full accumulated batch. The last one of an epoch may have fewer.
        device (`torch.device`):
            Device of the collective operation.

    Returns:
        `torch.Tensor` of shape `(num_batches, 2)`: The number of latent steps, and one bit for each of `_ENCODED_INPUTS`.
    """
    routes = torch.full((num_batches, 2), _ABSENT, device=device)
    marker = _ABSENT if latent_token_id is None else latent_token_id
    for number, batch in enumerate(batches):
        routes[number, 0] = (batch["input_ids"] == marker).sum(dim=1).max()
        routes[number, 1] = sum(1 << bit for bit, name in enumerate(_ENCODED_INPUTS) if batch.get(name) is not None)
    return routes


def check_ranks_match(routes: torch.Tensor) -> None:
    """Compare the routes of all processes.

    Args:
        routes (`torch.Tensor` of shape `(num_processes, num_batches, 2)`):
            Results of `forward_signatures` of each process, in order of rank.

    Raises:
        StageError: On every process alike, if in some micro-batch not all take the same route.
    """
    for number, of_rank in enumerate(routes.transpose(0, 1).tolist()):  # (M, P, 2)
        ranks_of: dict[tuple[int, int], list[int]] = {}
        for rank, (num_latents, vision) in enumerate(of_rank):
            ranks_of.setdefault((num_latents, vision), []).append(rank)
        if len(ranks_of) > 1:
            found = "; ".join(f"{_words(*route)} on {_ranks(ranks)}" for route, ranks in ranks_of.items())
            raise StageError(
                "ZeRO-3 and FSDP need every process to run the same layers, or all would wait for ever. In micro-batch "
                f"{number} they differ: {found}. Train all rows with one `num_latents`, and rows with and without a video "
                "in runs of their own; or keep the model whole on each process (ddp.yaml, zero2.yaml)."
            )


def _words(num_latents: int, vision: int) -> str:
    if num_latents == _ABSENT:
        return "no batch"
    inputs = [f"`{name}`" for bit, name in enumerate(_ENCODED_INPUTS) if vision & 1 << bit]
    return f"{num_latents} latents with {' and '.join(inputs) or 'no video'}"


def _ranks(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:4]))
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}{f' and {len(ranks) - 4} more' if len(ranks) > 4 else ''}"
