"""The table of answers on one GPU, by one command of at most ten minutes.

    python benchmarks/gpu_answers.py                                   # 7B, bfloat16, random weights: about 16 GB
    python benchmarks/gpu_answers.py --size 135m --prompts 256 2048
    python benchmarks/gpu_answers.py --device cpu --size tiny --prompts 64 --dtype float32 --chain 4    # that it runs

For each prompt: a latent step and a decoding step beside the bandwidth of a copy in the same memory, the prefill beside the peak
of the data sheet (MFU), and an answer after a chain of thought of 256 tokens over one after K = 8 latents, by `generate`.
All take turns; medians, with quartiles in brackets. Bytes and FLOPs are those of `benchmarks/cost_model.py`. Nothing is begun once
`--minutes` are over, and what is left out is named.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from answer_ways import SIZES, Request, build, plain, random_prompt, storm
from answers import facts, quartiles
from cost_model import NUM_LATENTS, Phases, predict
from worlds import table

from storm_hf import StormForConditionalGeneration
from storm_hf.reporting import write_atomically
from storm_hf.training.device import known_flops_per_second


COPIED_BYTES = {"cuda": 2**30, "cpu": 2**24}  # beyond any cache, where it is a GPU's
STEPS = 16  # of one measurement, so that the wait for the device counts little


@dataclass(frozen=True)
class Row:
    """Figures of one prompt length, round by round.

    Args:
        prompt (`int`):
            Tokens of the prompt.
        prefill (`list[float]`):
            Seconds of the prefill.
        latent_step (`list[float]`):
            Seconds of a latent step.
        decoding_step (`list[float]`):
            Seconds of a decoding step, with its logits.
        storm (`list[float]`):
            Seconds of an answer after K = 8 latents.
        chain (`list[float]`):
            Seconds of an answer after a chain of thought.
    """

    prompt: int
    prefill: list[float]
    latent_step: list[float]
    decoding_step: list[float]
    storm: list[float]
    chain: list[float]


def seconds_of(call: Callable[[], object], device: torch.device, repetitions: int = 1) -> float:
    """Time a call by the clock, until the device has finished."""
    _wait(device)
    begin = time.perf_counter()
    for _ in range(repetitions):
        call()
    _wait(device)
    return (time.perf_counter() - begin) / repetitions


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second of a copy within the memory of the device, read and written."""
    source = torch.zeros(COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [seconds_of(lambda: target.copy_(source), device, 5) for _ in range(4)]
    return 2 * source.nbytes / min(times[1:])


@torch.no_grad()
def measure(model: StormForConditionalGeneration, request: Request, rounds: int, chain: int) -> Row:
    """Measure the answers of a request and their phases; the first round warms up and does not count."""
    row = Row(request.prompt.shape[1], [], [], [], [], [])
    for count in range(rounds + 1):
        phases = Phases(model, 1, row.prompt)
        found = {
            "prefill": seconds_of(phases.prefill, model.device),
            "latent_step": seconds_of(phases.latent_step, model.device, STEPS),
            "decoding_step": seconds_of(phases.answer_step, model.device, STEPS),
            "storm": seconds_of(partial(storm, model, request, NUM_LATENTS), model.device),
            "chain": seconds_of(partial(plain, model, request, num_before=chain), model.device),
        }
        for name, seconds in found.items() if count else ():
            getattr(row, name).append(seconds)
    return row


def cells(row: Row, size: str, dtype: torch.dtype, bandwidth: float, peak: float | None) -> list[str]:
    """Write the figures of a row."""
    costs = predict(size, 1, row.prompt, dtype)
    steps = []
    for name, times in (("latent step", row.latent_step), ("answer step", row.decoding_step)):
        steps += [quartiles(1000 * np.array(times)), quartiles(costs[name].least_bytes / np.array(times) / bandwidth)]
    prefill = np.array(row.prefill)
    utilisation = "-" if peak is None else quartiles(costs["prefill"].flops / prefill / peak)
    ratios = np.array(row.latent_step) / row.decoding_step, np.array(row.chain) / row.storm
    answers = quartiles(1000 * np.array(row.storm)), quartiles(ratios[1])
    return [f"{row.prompt:,}", quartiles(1000 * prefill), utilisation, *steps, quartiles(ratios[0]), *answers]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="7b", choices=SIZES)
    parser.add_argument("--prompts", type=int, nargs="+", default=[256, 2048, 8192])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--compiled", action="store_true", help="answers with a static cache and compiled steps")
    parser.add_argument("--chain", type=int, default=256, help="tokens of the chain of thought")
    parser.add_argument("--answer", type=int, default=8, help="tokens of the answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no further prompt is begun")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_answers.json"))
    return parser.parse_args()


def main() -> None:
    """Measure one prompt length after the other, save the figures, and print the table."""
    begin, arguments = time.perf_counter(), parse()
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    where, bandwidth, peak = facts(arguments.device), copy_bandwidth(device), known_flops_per_second(device)
    known = {**where, "size": arguments.size, "dtype": arguments.dtype, "copy_bandwidth": bandwidth}
    model = build(arguments.size, arguments.device, dtype)
    rows: list[Row] = []
    for prompt in arguments.prompts:
        if time.perf_counter() - begin > 60 * arguments.minutes:
            print(f"{prompt:,} tokens: left out, since the time is over")
            continue
        request = Request(random_prompt(model, 1, prompt), arguments.answer, arguments.compiled, arguments.compiled)
        rows.append(measure(model, request, arguments.rounds, arguments.chain))
        write_atomically(arguments.out, json.dumps({**known, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    print(f"{arguments.size}, {arguments.dtype}, {where['machine']}, torch {where['torch']}, {where['date']}")
    written = "unknown" if peak is None else f"{peak / 1e12:,.0f} TFLOP/s"
    print(f"copy bandwidth {bandwidth / 1e9:,.1f} GB/s, peak {written}\n")
    head = ["prompt", "prefill, ms", "MFU", "latent step, ms", "of copy bandwidth"]
    head += ["decoding step, ms", "of copy bandwidth", "latent / decoding step"]
    head += [f"STORM K={NUM_LATENTS}, ms", f"text {arguments.chain} / STORM"]
    print(table(head, [cells(row, arguments.size, dtype, bandwidth, peak) for row in rows]))


if __name__ == "__main__":
    main()
