"""Memory of a training step, part by part, in bytes per process.

Symbols: N parameters, of which T train, on P processes; b bytes of a weight, t of a trained one. Not counted: what the driver and
the allocator keep for themselves, about 1 GiB on a GPU.
"""

from dataclasses import dataclass

from storm_hf.planning.passes import FLOAT32


# Defaults of DeepSpeed, in elements: `reduce_bucket_size` and `stage3_max_live_parameters`.
REDUCE_BUCKET = 500_000_000
LIVE_PARAMETERS = 1_000_000_000
BLOCK = 64  # weights that share a scale in 4 bits, as bitsandbytes quantizes
NESTED_BLOCK = 256  # scales that share one, where they are quantized too


@dataclass(frozen=True)
class Weights:
    """Number of the weights, and their precision.

    Args:
        total (`int`):
            All N parameters, those of an adapter included, and the projector that PEFT keeps beside the one that it trains.
        trainable (`int`):
            T of them.
        bytes_frozen (`int`, *optional*, defaults to `4`):
            b, of one that does not train.
        bytes_trainable (`int`, *optional*, defaults to `4`):
            t, of one that does.
        quantized (`int`, *optional*, defaults to `0`):
            Number of weights held in 4 bits.
        has_nested_scales (`bool`, *optional*, defaults to `False`):
            Whether their scales are quantized too.
    """

    total: int
    trainable: int
    bytes_frozen: int = FLOAT32
    bytes_trainable: int = FLOAT32
    quantized: int = 0
    has_nested_scales: bool = False

    @property
    def size(self) -> int:
        """Bytes: t T + b (N - T); for those in 4 bits a half, and 4 of scale for 64, or 1 and 4 / 256 if nested."""
        scale = 1 + FLOAT32 / NESTED_BLOCK if self.has_nested_scales else FLOAT32
        plain = self.bytes_trainable * self.trainable
        plain += self.bytes_frozen * (self.total - self.trainable - self.quantized)
        return plain + round(self.quantized * (0.5 + scale / BLOCK))


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
    """

    weights: int
    gradients: int
    optimizer: int
    communication: int


def held_memory(weights: Weights, sharing: Sharing, bytes_per_state: int = FLOAT32) -> HeldMemory:
    """Weights, gradients, optimizer states and what processes exchange.

    - One process: weights as they are held; gradients t T; two states of AdamW, 2 t T (2 T with an optimizer in 8 bits).
    - DDP adds its buckets, as large as the gradients.
    - ZeRO-2: gradients t T / P; with the master copy in float32, 12 T / P of the optimizer; a bucket.
    - ZeRO-3: the weights over P too; the weights that are gathered at a time.

    Args:
        weights ([`Weights`]):
            Under ZeRO with `bf16`, all in 2 bytes.
        sharing ([`Sharing`]):
            Among how many, and what.
        bytes_per_state (`int`, *optional*, defaults to `4`):
            Bytes of one of the two states of a trained parameter.
    """
    size, gradients, num_processes = weights.size, weights.bytes_trainable * weights.trainable, sharing.num_processes
    if sharing.zero_stage == 0:
        exchanged = gradients if num_processes > 1 else 0
        return HeldMemory(size, gradients, 2 * bytes_per_state * weights.trainable, exchanged)
    optimizer = (FLOAT32 + 2 * bytes_per_state) * weights.trainable
    bucket = weights.bytes_trainable * min(REDUCE_BUCKET, weights.trainable)
    gathered = weights.bytes_frozen * min(LIVE_PARAMETERS, weights.total) if sharing.zero_stage == 3 else 0
    held = -(-size // num_processes) if sharing.zero_stage == 3 else size
    return HeldMemory(held, -(-gradients // num_processes), -(-optimizer // num_processes), bucket + gathered)


@dataclass(frozen=True)
class StepMemory:
    """Memory that one step adds, at different times.

    Args:
        pixels (`int`):
            The clips of the batch, as the processor makes them.
        vision (`int`):
            Most that the vision tower uses at a time, before anything else is there. Frozen, it keeps nothing. An estimate.
        activations (`int`):
            Bytes kept from the forward to the backward pass.
        kept_in_backward (`int`):
            Bytes of it left when the backward pass needs its workspace.
        weight_copies (`int`):
            Weights that automatic casting copied to 16 bits, and keeps at least to the end of the forward pass.
        cache (`int`):
            Bytes of `activations` that are keys and values of the rollout.
        workspace (`int`):
            Most that the backward pass of a layer uses beside: the layer computed once more if it is checkpointed, gradients
            of its activations, its gathered or unpacked weights.
        logits (`int`):
            The tile of logits that the head makes at a time, and its share of the weights. Positions without a label have
            none.
        update (`int`):
            Workspace of the optimizer beside gradients and states.
    """

    pixels: int
    vision: int
    activations: int
    kept_in_backward: int
    weight_copies: int
    cache: int
    workspace: int
    logits: int
    update: int


def peak_memory(held: HeldMemory, step: StepMemory, accumulates: bool, is_checkpointed: bool, is_rollout: bool) -> int:
    """Most memory that a process uses at a time.

    What is held, and the largest of: the vision tower; the end of the forward pass; the backward pass; the update. In the
    backward pass of one parallel pass activations go as gradients come, so that the larger of the two counts. In that of a
    rollout the last piece makes all gradients, long before the prompt's activations go. Accumulated gradients are always there.

    Args:
        held ([`HeldMemory`]):
            Memory that persists between steps.
        step ([`StepMemory`]):
            Memory that a step adds.
        accumulates (`bool`):
            Whether gradients of several batches are summed.
        is_checkpointed (`bool`):
            Whether layers are computed once more.
        is_rollout (`bool`):
            Whether the sequence runs in chunks.
    """
    gradients = held.gradients
    before = gradients if accumulates else 0
    kept = step.kept_in_backward + (0 if is_checkpointed else step.weight_copies)
    moments = [
        before + step.vision,
        before + step.activations + step.weight_copies + step.logits,
        step.workspace + (gradients + kept if accumulates or is_rollout else max(gradients, kept)),
        gradients + step.update,
    ]
    return held.weights + held.optimizer + held.communication + step.pixels + max(moments)
