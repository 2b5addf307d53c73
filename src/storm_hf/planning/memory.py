"""Memory that a process holds from step to step, in bytes: weights, gradients, optimizer states, buffers of the exchange.

Symbols: N parameters, of which T train, on P processes. Not counted: what the driver and the allocator keep for themselves,
about 1 GiB on a GPU.
"""

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn


FLOAT32 = 4
# Defaults of DeepSpeed, in elements: `reduce_bucket_size` and `stage3_max_live_parameters`.
_REDUCE_BUCKET = 500_000_000
_LIVE_PARAMETERS = 1_000_000_000
BLOCK = 64  # weights that share a scale in 4 bits, as bitsandbytes quantizes
_NESTED_BLOCK = 256  # scales that share one, where they are quantized too


@dataclass(frozen=True)
class Weights:
    """Number of the weights, and their bytes.

    Args:
        total (`int`):
            All N parameters, those of an adapter included, and the projector that PEFT keeps beside the one that it trains.
        trainable (`int`):
            T of them.
        size (`int`):
            Bytes of all.
        trainable_size (`int`):
            Bytes of those that train, and of their gradients.
        quantized (`int`, *optional*, defaults to `0`):
            Number of weights held in 4 bits.
    """

    total: int
    trainable: int
    size: int
    trainable_size: int
    quantized: int = 0

    @classmethod
    def of(
        cls, model: nn.Module, quantized: Collection[nn.Parameter] = (), has_nested_scales: bool = False
    ) -> "Weights":
        """Count the weights of a model.

        Args:
            model ([`~torch.nn.Module`]):
                The model, before quantization.
            quantized (`Collection[torch.nn.Parameter]`, *optional*):
                Matrices that will be held in 4 bits: a half byte for each weight, and 4 of scale for 64 of them, or 1 and
                4 / 256 if scales are quantized too.
            has_nested_scales (`bool`, *optional*, defaults to `False`):
                Whether their scales are quantized too.
        """
        parameters = list(model.parameters())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        in_4_bits = _count(quantized)
        scale = 1 + FLOAT32 / _NESTED_BLOCK if has_nested_scales else FLOAT32
        return cls(
            total=_count(parameters),
            trainable=_count(trained),
            size=_bytes(parameters) - _bytes(quantized) + round(in_4_bits * (0.5 + scale / BLOCK)),
            trainable_size=_bytes(trained),
            quantized=in_4_bits,
        )


def _count(parameters: Collection[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(parameters: Collection[nn.Parameter]) -> int:
    return sum(parameter.nbytes for parameter in parameters)


@dataclass(frozen=True)
class Sharing:
    """Sharding of a model over processes.

    Args:
        num_processes (`int`, *optional*, defaults to `1`):
            Number P of processes, one for each GPU.
        zero_stage (`int`, *optional*, defaults to `0`):
            0: each holds all of it (DDP). 2: gradients and optimizer states in P pieces. 3: the weights too.
    """

    num_processes: int = 1
    zero_stage: int = 0


@dataclass(frozen=True)
class HeldMemory:
    """Memory that persists between steps.

    Args:
        weights (`int`):
            N parameters.
        gradients (`int`):
            Those of T parameters; between steps there are none, unless they are accumulated.
        optimizer (`int`):
            States of AdamW.
        communication (`int`):
            Buckets that gradients are reduced in, and weights that are gathered.
        reference (`int`, *optional*, defaults to `0`):
            A frozen copy of the model, which reinforcement holds it to.
    """

    weights: int
    gradients: int
    optimizer: int
    communication: int
    reference: int = 0


def held_memory(weights: Weights, sharing: Sharing, bytes_per_state: int = FLOAT32) -> HeldMemory:
    """Weights, gradients, optimizer states and what processes exchange.

    - One process: weights; gradients as large as those that train; two states of AdamW, each as large (T bytes with an
      optimizer in 8 bits).
    - DDP adds its buckets, as large as the gradients.
    - ZeRO-2: gradients / P; with the master copy in float32, 12 T / P of the optimizer; a bucket.
    - ZeRO-3: the weights / P too; the weights that are gathered at a time.

    Args:
        weights ([`Weights`]):
            Weights as they are held; under ZeRO with `bf16`, all in 16 bits.
        sharing ([`Sharing`]):
            Among how many, and what.
        bytes_per_state (`int`, *optional*, defaults to `4`):
            Bytes of one of the two states of a trained parameter.
    """
    gradients, num_processes = weights.trainable_size, sharing.num_processes
    if sharing.zero_stage == 0:
        exchanged = gradients if num_processes > 1 else 0
        return HeldMemory(weights.size, gradients, 2 * bytes_per_state * weights.trainable, exchanged)
    optimizer = (FLOAT32 + 2 * bytes_per_state) * weights.trainable
    bucket = gradients * min(_REDUCE_BUCKET, weights.trainable) // max(weights.trainable, 1)
    gathered = weights.size * min(_LIVE_PARAMETERS, weights.total) // weights.total if sharing.zero_stage == 3 else 0
    held = -(-weights.size // num_processes) if sharing.zero_stage == 3 else weights.size
    return HeldMemory(held, -(-gradients // num_processes), -(-optimizer // num_processes), bucket + gathered)
