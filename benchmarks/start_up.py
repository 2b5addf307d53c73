"""Start-up of `storm ask`: from the command to the last token, beside a plain script that does the same with transformers alone.

    python benchmarks/start_up.py
    python benchmarks/start_up.py --model runs/demo/storm --clip clip.mp4 --rounds 7

The script imports torch and transformers, loads the same checkpoint with its own code, reads the clip with PyAV and generates;
both answer one question with at most four tokens. They take turns, each in a new interpreter, in CPU time, which a busy machine
changes little; the target is a ratio of 1.1. Without `--model` an untrained one of the size of the demo's is made. `--profile`
lists the packages that `storm ask` loads and the script does not, with the time of their import by the clock. Imports and
commands without a model are those of `benchmarks/import_cost.py`.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from import_cost import COMMAND

from storm_hf.errors import StageError


QUESTION = "Which cup holds the ball at the end?"
NUM_TOKENS = 4
NUM_LATENTS = 6
NUM_SHOWN = 25
PLAIN = """
import av
import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

folder, clip, question = {folder!r}, {clip!r}, {question!r}
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, dtype="auto").eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with av.open(clip) as container:
    rate = float(container.streams.video[0].average_rate)
    frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
metadata = VideoMetadata(total_num_frames=len(frames), fps=rate, frames_indices=list(range(len(frames))))
messages = [{{"role": "user", "content": [{{"type": "video"}}, {{"type": "text", "text": question}}]}}]
text = processor.apply_chat_template(messages, add_generation_prompt=True)
inputs = processor(text=[text], videos=[frames], video_metadata=[metadata], return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens={num_tokens}, do_sample=False)
print(processor.decode(tokens[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""
_IMPORTED = re.compile(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", re.MULTILINE)


def make_stand_in(folder: Path) -> tuple[Path, Path]:
    """Save an untrained model of the demo's size, and draw a clip; return where they lie."""
    from transformers import set_seed

    from storm_hf.demo.backbone import tiny_config, tiny_processor
    from storm_hf.model import StormForConditionalGeneration
    from storm_hf.worlds import make_world, split_seeds, write_episodes

    world = make_world("shuffle")
    processor = tiny_processor(world.vocabulary, NUM_LATENTS, frame_pixels=16 * 64)
    set_seed(0)
    model = StormForConditionalGeneration(tiny_config(processor, NUM_LATENTS, latent_scale=0.5))
    model.save_pretrained(folder / "storm")
    processor.save_pretrained(folder / "storm")
    (episode,) = write_episodes(world, split_seeds("test", 1, 0), folder / "clips")
    return folder / "storm", episode.clip_path


def programs(model: Path, clip: Path) -> dict[str, str]:
    """Write both programs."""
    words = ("ask", str(clip), QUESTION, "--model", str(model), "--max-new-tokens", str(NUM_TOKENS))
    return {
        "storm ask": COMMAND.format(words=", ".join(map(repr, words))),
        "plain script": PLAIN.format(folder=str(model), clip=str(clip), question=QUESTION, num_tokens=NUM_TOKENS),
    }


def run(code: str, *flags: str) -> tuple[float, str]:
    """Run a program in a new interpreter, and return its CPU seconds and its messages.

    Raises:
        StageError: If it fails.
    """
    before = os.times()
    finished = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False)
    after = os.times()
    if finished.returncode:
        raise StageError(f"Expected both programs to answer, but one failed:\n{finished.stderr}")
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, finished.stderr


def only_ours(ours: str, plain: str) -> list[tuple[str, float]]:
    """Add up the imports of the first profile that the second has not, by package, in milliseconds, longest first."""
    known = {name for _, name in _IMPORTED.findall(plain)}
    found: Counter[str] = Counter()
    for microseconds, name in _IMPORTED.findall(ours):
        if name not in known:
            found[".".join(name.split(".")[:2])] += int(microseconds)
    return [(package, microseconds / 1000) for package, microseconds in found.most_common()]


def main() -> None:
    """Let both take turns, and print their times and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint, such as runs/demo/storm")
    parser.add_argument("--clip", type=Path, help="a clip, such as clip.mp4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="list imports that are not the script's")
    arguments = parser.parse_args()
    if (arguments.model is None) != (arguments.clip is None):
        parser.error("give --model and --clip, or neither")
    with tempfile.TemporaryDirectory() as folder:
        places = make_stand_in(Path(folder)) if arguments.model is None else (arguments.model, arguments.clip)
        codes = programs(*places)
        for code in codes.values():  # bytecode and the copy of the checkpoint's code are written once
            run(code)
        if arguments.profile:
            found = only_ours(*(run(code, "-X", "importtime")[1] for code in codes.values()))
            print("\n".join(f"{milliseconds:6.0f} ms  {name}" for name, milliseconds in found[:NUM_SHOWN]))
        rounds = np.array([[run(code)[0] for code in codes.values()] for _ in range(arguments.rounds)])  # (rounds, 2)
    for name, seconds in zip(codes, rounds.T, strict=True):
        low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        print(f"{name}: {median:.2f} ({low:.2f} to {high:.2f}) s of CPU time")
    low, median, high = np.quantile(rounds[:, 0] / rounds[:, 1], (0.25, 0.5, 0.75))
    print(f"storm ask / plain script: {median:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
