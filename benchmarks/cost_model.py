"""Cost of an answer from a configuration: FLOPs, bytes and operations of prefill, latent step and answer step.

    python benchmarks/cost_model.py --sizes 1m 135m --prompts 256 2048       # predicted beside measured, on this processor
    python benchmarks/cost_model.py --gpu h200 --sizes 7b --prompts 2048 8192   # limits on paper; nothing is run

The phases run once on tensors without data (`storm_hf.planning.dry_run`), and every operation that is no view is counted: its
FLOPs, and the bytes of what it reads and writes. `least` bytes are those that no implementation avoids: each weight and the
cache once. A limit is the longer of FLOPs over peak and least bytes over bandwidth. The prediction for a processor adds up its
operations: each costs the host's time of an operation, and the longer of its FLOPs and its bytes. The three rates are measured
before: a product of matrices, products of a vector with as many weights as the model has, and a step of a model that is too
small for either.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from answer_ways import END, FIRST_WORD, SIZES, Passes, build, make_config
from torch.utils._pytree import tree_leaves
from transformers.initialization import no_init_weights
from worlds import table

from storm_hf import StormForConditionalGeneration
from storm_hf.planning import find_gpu
from storm_hf.planning.dry_run import DryRun


PHASES = ("prefill", "latent step", "answer step")
NUM_LATENTS, CHAIN, ANSWER = 8, 256, 8
GB, GFLOP = 1e9, 1e9
_aten = torch.ops.aten
_FREE = {_aten._unsafe_view, _aten.detach, _aten.alias, _aten.lift_fresh, _aten.empty, _aten._local_scalar_dense}
_LOOKUPS = {_aten.embedding, _aten.index, _aten.index_select}  # they read as much as they write


@dataclass(frozen=True)
class Operation:
    """One operation: its FLOPs, and the bytes that it reads and writes."""

    flops: int
    num_bytes: int


class Meter(DryRun):
    """Runs operations without data, and lists those that compute or copy."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it takes."""
        before = self.flops
        output = super().__torch_dispatch__(func, types, args, kwargs)
        if not (func.is_view or func.overloadpacket in _FREE):
            read = output if func.overloadpacket in _LOOKUPS else (args, kwargs)
            self.operations.append(Operation(self.flops - before, _num_bytes(read) + _num_bytes(output)))
        return output


def _num_bytes(values: Any) -> int:
    """Bytes of the tensors among some values; what is expanded lies in memory once."""
    return sum(
        value.element_size() * _num_stored(value) for value in tree_leaves(values) if isinstance(value, torch.Tensor)
    )


def _num_stored(tensor: torch.Tensor) -> int:
    number = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        number *= size if stride or size == 0 else 1
    return number


class Phases:
    """The phases of an answer as calls, one after the other, with real tensors or in a dry run.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        num_rows (`int`):
            Number B of prompts.
        prompt (`int`):
            Tokens of a prompt, with `<|latent_start|>`.
    """

    def __init__(self, model: StormForConditionalGeneration, num_rows: int, prompt: int) -> None:
        self.model, self.num_rows, self.prompt = model, num_rows, prompt
        self.passes = Passes(model, has_cache=True)
        self.state = torch.empty(0)

    def _read(self, token: int, length: int) -> None:
        tokens = torch.full((self.num_rows, length), token, device=self.model.device)
        self.state = self.passes(self.model.get_input_embeddings()(tokens))

    def prefill(self) -> None:
        """Read the prompt."""
        self._read(FIRST_WORD, self.prompt)

    def latent_step(self) -> None:
        """Make a latent and read it."""
        latent = self.model.model.latent_projector(self.state)
        self.state = self.passes(latent[:, None] * self.model.config.latent_scale)

    def answer_step(self) -> None:
        """Make the logits of a token and read one."""
        self.model.compute_logits(self.state)
        self._read(END, 1)

    def calls(self) -> dict[str, Callable[[], None]]:
        """Each phase by name, in their order."""
        return dict(zip(PHASES, (self.prefill, self.latent_step, self.answer_step), strict=True))


@dataclass(frozen=True)
class Cost:
    """Cost of a phase.

    Args:
        operations (`list[Operation]`):
            All that it runs, in order.
        least_bytes (`int`):
            Bytes of the weights and of the cache that it reads.
    """

    operations: list[Operation]
    least_bytes: int

    @property
    def flops(self) -> int:
        """FLOPs of all operations."""
        return sum(operation.flops for operation in self.operations)

    def seconds(self, rates: "Rates") -> float:
        """Predict the time of its operations one after the other."""
        return sum(
            rates.operation_seconds + max(one.flops / rates.flops_per_second, one.num_bytes / rates.bytes_per_second)
            for one in self.operations
        )

    def limit(self, flops_per_second: float, bytes_per_second: float) -> tuple[float, str]:
        """Seconds that no implementation beats, and what limits it."""
        arithmetic, memory = self.flops / flops_per_second, self.least_bytes / bytes_per_second
        return max((arithmetic, "arithmetic"), (memory, "bandwidth"))


@torch.no_grad()
def predict(size: str, num_rows: int, prompt: int, dtype: torch.dtype) -> dict[str, Cost]:
    """Count each phase of a model in `SIZES`, from its configuration alone."""
    costs = {}
    with Meter() as meter:
        with no_init_weights():
            model = StormForConditionalGeneration(make_config(SIZES[size])).to(dtype).eval()
        phases = Phases(model, num_rows, prompt)
        for name, call in phases.calls().items():
            past = 0 if name == "prefill" else phases.passes.cache.get_seq_length()
            meter.operations = []
            call()
            costs[name] = Cost(meter.operations, _least_bytes(model, name, num_rows, past))
    return costs


def _least_bytes(model: StormForConditionalGeneration, phase: str, num_rows: int, past: int) -> int:
    """Bytes of the layers, of the head or the projector, and of the cached keys and values."""
    text = model.config.get_text_config()
    read: list[torch.Tensor] = list(model.get_decoder().layers.parameters())
    if phase == "answer step":
        read += [model.get_output_embeddings().weight]
    elif phase == "latent step":
        read += model.model.latent_projector.parameters()
    width = text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    cached = 2 * text.num_hidden_layers * width * past * num_rows * read[0].element_size()
    return sum(weight.nbytes for weight in read) + cached


@dataclass(frozen=True)
class Rates:
    """Speed of a processor.

    Args:
        flops_per_second (`float`):
            FLOPs per second of a large product of matrices.
        bytes_per_second (`float`):
            Bytes per second of products of a vector with matrices.
        operation_seconds (`float`):
            Time of the host for an operation of a model in eager mode.
    """

    flops_per_second: float
    bytes_per_second: float
    operation_seconds: float


def cpu_seconds(call: Callable[[], object], repetitions: int) -> float:
    """Median CPU seconds of a call, after one that warms up."""
    times = []
    for _ in range(repetitions + 1):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return statistics.median(times[1:])


@torch.no_grad()
def measure_rates(size: str, dtype: torch.dtype, repetitions: int = 5) -> Rates:
    """Measure the three rates in one thread, with matrices as wide as those of a model and a vector per pass."""
    width, length = SIZES[size].intermediate_size, 256
    states, matrix = torch.randn(length, width, dtype=dtype), torch.randn(width, width, dtype=dtype)
    product = cpu_seconds(lambda: states @ matrix, repetitions)
    num_bytes = predict(size, 1, 1, dtype)["prefill"].least_bytes
    matrices = torch.randn(max(round(num_bytes / matrix.nbytes), 1), width, width, dtype=dtype)
    streamed = cpu_seconds(lambda: [states[:1] @ one.T for one in matrices], repetitions)
    phases = Phases(build("tiny", dtype=dtype), 1, 16)
    phases.prefill()
    step = cpu_seconds(phases.latent_step, 10 * repetitions)
    num_operations = len(predict("tiny", 1, 16, dtype)["latent step"].operations)
    return Rates(2 * length * width**2 / product, matrices.nbytes / streamed, step / num_operations)


@torch.no_grad()
def measure(size: str, num_rows: int, prompt: int, dtype: torch.dtype, repetitions: int = 5) -> dict[str, float]:
    """Measure the phases: median CPU seconds."""
    model = build(size, dtype=dtype)
    prefills = [Phases(model, num_rows, prompt) for _ in range(repetitions + 1)]
    remaining = iter(prefills)
    found = {"prefill": cpu_seconds(lambda: next(remaining).prefill(), repetitions)}
    for name, call in list(prefills[-1].calls().items())[1:]:
        found[name] = cpu_seconds(call, 2 * repetitions)
    return found


def processor_table(sizes: list[str], num_rows: int, prompts: list[int], dtype: torch.dtype) -> str:
    """Tabulate the prediction beside the measurement."""
    rows = []
    for size in sizes:
        rates = measure_rates(size, dtype)
        for prompt in prompts:
            real = measure(size, num_rows, prompt, dtype)
            for name, cost in predict(size, num_rows, prompt, dtype).items():
                predicted = cost.seconds(rates)
                figures = f"{cost.flops / GFLOP:.3g}", f"{cost.least_bytes / GB:.3g}", str(len(cost.operations))
                times = f"{1000 * predicted:.3g}", f"{1000 * real[name]:.3g}", f"{predicted / real[name]:.2f}"
                rows.append([f"{size}, {prompt:,} tokens, {name}", *figures, *times])
    head = ["", "GFLOP", "least GB", "operations", "predicted, ms", "measured, ms", "predicted / measured"]
    return table(head, rows)


def gpu_table(name: str, sizes: list[str], num_rows: int, prompts: list[int], dtype: torch.dtype) -> str:
    """Tabulate the limits of a GPU, and what a chain of thought of 256 tokens would cost over STORM at these limits."""
    gpu, rows = find_gpu(name), []
    for size in sizes:
        for prompt in prompts:
            seconds = {}
            for phase, cost in predict(size, num_rows, prompt, dtype).items():
                seconds[phase], limited = cost.limit(gpu.flops_per_second, gpu.bytes_per_second)
                number = len(cost.operations)
                figures = f"{cost.flops / GFLOP:.3g}", f"{cost.least_bytes / GB:.3g}", f"{1000 * seconds[phase]:.3g}"
                host = f"{1e6 * seconds[phase] / number:.2g}"
                rows.append([f"{size}, {prompt:,} tokens, {phase}", *figures, limited, str(number), host, ""])
            rows[-1][-1] = f"{chain_over_storm(seconds):.1f}"
    head = ["", "GFLOP", "least GB", "limit, ms", "limited by", "operations", "µs per operation at the limit"]
    return f"{gpu.name}, {dtype}\n\n" + table([*head, f"text {CHAIN} / STORM K={NUM_LATENTS}"], rows)


def chain_over_storm(seconds: dict[str, float]) -> float:
    """Time of an answer after a chain of thought over that of an answer after K latents, from the times of the phases."""
    prefill, latent, answer = (seconds[name] for name in PHASES)
    return (prefill + (CHAIN + ANSWER - 1) * answer) / (prefill + NUM_LATENTS * latent + ANSWER * answer)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1m"], choices=SIZES)
    parser.add_argument("--prompts", type=int, nargs="+", default=[256, 2048])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--gpu", help="part of the name of a GPU whose limits are shown, such as h200")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="bfloat16 with --gpu, else float32")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if arguments.gpu else "float32"))
    torch.set_num_threads(1)
    if arguments.gpu:
        print(gpu_table(arguments.gpu, arguments.sizes, arguments.batch, arguments.prompts, dtype))
    else:
        print(processor_table(arguments.sizes, arguments.batch, arguments.prompts, dtype))


if __name__ == "__main__":
    main()
