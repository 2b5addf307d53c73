"""Time of an answer: direct, pause tokens, STORM, written chains, plain transformers, and how others think in latents.

    python benchmarks/answers.py                                           # minutes: 1 M parameters, 256 and 2,048 tokens
    python benchmarks/answers.py --sizes 135m --without "text 512" row     # SmolLM2's shape
    python benchmarks/answers.py --prompts 8192 --batches 1 8 32 --caches dynamic static compiled
    python benchmarks/answers.py --tables runs/answers.json --plot runs/answers.svg --write benchmarks/RESULTS.md

A cell is a model, a prompt, a batch and a cache. In each round of a cell all ways take turns, and ratios are taken within a
round; tables give medians, with quartiles in brackets. Before the rounds, latents of each other way to think are compared with
STORM's, in float32 to 1e-5 of their size, and answers to the last token. On a processor the clock is that of the process, which
runs one thread: what else the machine does delays the answer and hardly changes the figure. Models have random weights, answers
a fixed number of tokens (`benchmarks/answer_ways.py`). The table of a GPU is made by `benchmarks/gpu_answers.py`.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from answer_ways import SIZES, Answer, Request, Way, all_ways, build, random_prompt
from worlds import table

from storm_hf import StormForConditionalGeneration
from storm_hf.errors import StageError
from storm_hf.reporting import Bar, bar_chart, write_atomically


CACHES = ("dynamic", "static", "compiled")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2}  # of the size of the latents
STORM, DIRECT, FIRST = "STORM K=8", "direct, transformers", "first token, transformers"
REFERENCES = (FIRST, DIRECT, "direct")  # what the others are compared with: never left out
CHAIN, SLOW, LOOP = "text 128", "recompute latents K=16", "Python loop K=8"
NUM_EXTRA = 9  # passes of STORM with K = 8 before the first token of the answer, beside that of the prompt
SECTION = "### Time of an answer"


@dataclass(frozen=True)
class Cell:
    """One cell of the grid, with the seconds of each way, round by round.

    Args:
        size (`str`):
            Size of the model.
        dtype (`str`):
            Its numbers.
        prompt (`int`):
            Tokens of a prompt.
        batch (`int`):
            Number of prompts.
        cache (`str`):
            `dynamic`, `static`, or `compiled`: static with compiled decoding steps.
        answer (`int`):
            Tokens of an answer.
        seconds (`dict[str, list[float]]`, *optional*):
            Seconds of an answer by way.
    """

    size: str
    dtype: str
    prompt: int
    batch: int
    cache: str
    answer: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.size}, {self.prompt:,} tokens, batch {self.batch}, {self.cache} cache"

    def of(self, way: str) -> np.ndarray:
        """Seconds of a way, round by round."""
        return np.array(self.seconds[way])

    def ratio(self, way: str, other: str) -> str:
        """Quartiles of the time of a way over that of another one of the same round; a dash where one was not measured."""
        measured = way in self.seconds and other in self.seconds
        return quartiles(self.of(way) / self.of(other)) if measured else "-"

    def latent_step(self) -> str:
        """Quartiles of a pass of STORM, K = 8, over a decoding step, from differences to direct answers of the same round."""
        chains = [name for name in self.seconds if name.startswith("text")]
        if not chains or STORM not in self.seconds:
            return "-"
        length, text = min((int(name.split()[1]), name) for name in chains)
        step = (self.of(text) - self.of(DIRECT)) / length
        return quartiles((self.of(STORM) - self.of("direct")) / NUM_EXTRA / step)

    def further_latent(self) -> str:
        """Quartiles of a further latent over a further token, from thoughts and from chains of two lengths in the same round."""
        longer = {"STORM K=8": 8, "STORM K=16": 16, "text 32": 32, "text 128": 128}
        if not longer.keys() <= self.seconds.keys():
            return "-"
        latent, token = (
            (self.of(long) - self.of(short)) / (longer[long] - longer[short])
            for short, long in (("STORM K=8", "STORM K=16"), ("text 32", "text 128"))
        )
        return quartiles(latent / token)

    def bound(self) -> float:
        """STORM, K = 8, over the direct answer may be this, if a latent step is at most 1.1 decoding steps."""
        prefill = float(np.median(self.of(FIRST)))
        step = (float(np.median(self.of(DIRECT))) - prefill) / max(self.answer - 1, 1)
        return 1 + 1.1 * NUM_EXTRA * step / prefill


def quartiles(values: Iterable[float]) -> str:
    """Write median and quartiles."""
    low, median, high = np.quantile(list(values), (0.25, 0.5, 0.75))
    return f"{_short(median)} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    return f"{value:.{3 if value < 1 else 2 if value < 100 else 0}f}"


def check(ways: Sequence[Way], model: StormForConditionalGeneration, request: Request) -> None:
    """Compare each way to think with STORM.

    Raises:
        StageError: If a way has other latents or another answer.
    """
    expected: dict[int, Answer] = {}
    for way in (one for one in ways if one.num_latents is not None):
        own, found = expected.get(way.num_latents), way.answer(model, request)
        if own is None:
            own = expected[way.num_latents] = all_ways()[f"STORM K={way.num_latents}"].answer(model, request)
        distance = float((found.latents - own.latents).norm() / own.latents.norm())
        exact = model.dtype == torch.float32
        if not distance <= TOLERANCE[model.dtype] or (exact and not torch.equal(found.tokens, own.tokens)):
            raise StageError(
                f"Expected {way.name} to think and answer as STORM does, got latents that are {distance:.1e} apart, or "
                "another answer. A time of it would compare nothing."
            )


def measure(cell: Cell, model: StormForConditionalGeneration, ways: Sequence[Way], rounds: int) -> None:
    """Fill a cell: compare, warm up what was not compared, and let all ways take turns."""
    request = Request(
        random_prompt(model, cell.batch, cell.prompt), cell.answer, cell.cache != "dynamic", cell.cache == "compiled"
    )
    check(ways, model, request)
    for way in ways:
        is_chain = way.name.startswith("text")  # the code of the direct answer, and long
        is_warm = is_chain or way.num_latents is not None
        if request.is_compiled or not is_warm:
            way.answer(model, request)
    for _ in range(rounds):
        for way in ways:
            cell.seconds.setdefault(way.name, []).append(timed(way, model, request))


def timed(way: Way, model: StormForConditionalGeneration, request: Request) -> float:
    """Time one answer: CPU seconds of this process, or seconds of the clock on a GPU."""
    on_gpu = request.prompt.is_cuda
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize()
    begin = clock()
    way.answer(model, request)
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - begin


def facts(device: str) -> dict[str, str]:
    """Describe the machine and the versions."""
    cores = f"{platform.machine()}, {os.cpu_count()} cores, one thread"
    where = torch.cuda.get_device_name() if device == "cuda" else cores
    return {
        "machine": where,
        "date": str(date.today()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def save(path: Path, known: Mapping[str, str], cells: Sequence[Cell]) -> None:
    """Write all cells as JSON."""
    write_atomically(path, json.dumps({**known, "cells": [asdict(cell) for cell in cells]}, indent=1) + "\n")


def load(path: Path) -> tuple[dict[str, Any], list[Cell]]:
    """Read what `save` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return found, [Cell(**cell) for cell in found.pop("cells")]


def summary_table(cells: Sequence[Cell]) -> str:
    """Tabulate the ratios that matter, one row per cell."""
    head = ["", f"{STORM} / direct", "bound", "latent step / decoding step", "further latent / further token"]
    head += [f"{CHAIN} / {STORM}"]
    head += [f"STORM K=16 / {SLOW}", f"{LOOP} / {STORM}", f"direct / {DIRECT}"]
    rows = [
        [
            str(cell),
            cell.ratio(STORM, "direct"),
            f"{cell.bound():.2f}",
            cell.latent_step(),
            cell.further_latent(),
            cell.ratio(CHAIN, STORM),
            cell.ratio("STORM K=16", SLOW),
            cell.ratio(LOOP, STORM),
            cell.ratio("direct", DIRECT),
        ]
        for cell in cells
    ]
    return table(head, rows)


def ways_table(cells: Sequence[Cell]) -> str:
    """Tabulate the time of each way relative to the direct answer of transformers, one column per cell."""
    names = [name for name in all_ways() if any(name in cell.seconds for cell in cells)]
    seconds = [f"{_short(float(np.median(cell.of(DIRECT))))} s" for cell in cells]
    rows = [[name, *(cell.ratio(name, DIRECT) for cell in cells)] for name in names]
    return table(["", *map(str, cells)], [[f"{DIRECT}, seconds", *seconds], *rows])


def chart(cell: Cell) -> str:
    """Draw the time of each way in one cell, with its quartiles."""
    medians = {name: float(np.median(cell.of(name))) for name in cell.seconds}
    bars = [
        Bar(
            name,
            median,
            f"{_short(median)} s",
            "accent" if name.startswith("STORM") else "neutral",
            tuple(np.quantile(cell.of(name), (0.25, 0.75))),
        )
        for name, median in medians.items()
    ]
    largest = max(bar.interval[1] for bar in bars)
    return bar_chart(bars, title=f"Time of an answer: {cell}", maximum=largest)


def report(known: Mapping[str, str], cells: Sequence[Cell]) -> str:
    """Write the section of RESULTS.md: the facts, then both tables."""
    rounds, answer = len(cells[0].of(DIRECT)), cells[0].answer
    lengths = {len(cell.of(DIRECT)) for cell in cells}
    often = f"{rounds}" if len(lengths) == 1 else f"{min(lengths)} to {max(lengths)}"
    versions = f"torch {known['torch']}, transformers {known['transformers']}"
    return (
        f"{known['date']}, {known['machine']}, {versions}. Answers of {answer} tokens,\n"
        f"{often} rounds; medians (quartiles).\n\n{summary_table(cells)}\n\n"
        f"Each way over the direct answer of transformers, of the same round:\n\n{ways_table(cells)}\n"
    )


def replace_section(text: str, heading: str, body: str) -> str:
    """Put `body` under a heading, in the place of what is there up to the next heading.

    Raises:
        StageError: If there is no such heading.
    """
    before, found, after = text.partition(f"{heading}\n")
    if not found:
        raise StageError(f"Expected the line `{heading}` in the file to write to, but there is none. Add it first.")
    rest = after.find("\n#")
    return f"{before}{heading}\n\n{body}" + ("" if rest < 0 else after[rest:])


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1m"], choices=SIZES)
    parser.add_argument("--prompts", type=int, nargs="+", default=[256, 2048])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--caches", nargs="+", default=["dynamic"], choices=CACHES)
    parser.add_argument("--answer", type=int, default=8, help="tokens of an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", nargs="+", default=[], help="beginnings of the names of ways to leave out")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--out", type=Path, default=Path("runs/answers.json"))
    parser.add_argument("--tables", type=Path, nargs="+", help="show what was measured, and measure nothing")
    parser.add_argument("--plot", type=Path, help="SVG of the first cell")
    parser.add_argument("--write", type=Path, help=f"Markdown file whose section `{SECTION}` is to hold the tables")
    return parser.parse_args()


def chosen_ways(without: Sequence[str]) -> list[Way]:
    """List all ways but those whose names begin with one of some words."""
    return [way for name, way in all_ways().items() if name in REFERENCES or not name.startswith(tuple(without))]


def measure_grid(arguments: argparse.Namespace) -> tuple[dict[str, str], list[Cell]]:
    """Measure all cells, and save after each."""
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    ways = chosen_ways(arguments.without)
    known, cells = facts(arguments.device), []
    for size in arguments.sizes:
        model = build(size, arguments.device, getattr(torch, arguments.dtype))
        for prompt, batch, cache in product(arguments.prompts, arguments.batches, arguments.caches):
            cells.append(Cell(size, arguments.dtype, prompt, batch, cache, arguments.answer))
            measure(cells[-1], model, ways, arguments.rounds)
            save(arguments.out, known, cells)
    return known, cells


def main() -> None:
    """Measure or read, and print the tables."""
    arguments = parse()
    if arguments.tables:
        read = [load(path) for path in arguments.tables]
        known, cells = read[0][0], [cell for _, found in read for cell in found]
    else:
        known, cells = measure_grid(arguments)
    print(report(known, cells))
    if arguments.plot:
        write_atomically(arguments.plot, chart(cells[0]))
    if arguments.write:
        text = arguments.write.read_text(encoding="utf-8")
        write_atomically(arguments.write, replace_section(text, SECTION, report(known, cells)))


if __name__ == "__main__":
    main()
