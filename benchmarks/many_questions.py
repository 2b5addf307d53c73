"""Many questions about one clip: a session, which reads the clip once, against asking one by one.

    python benchmarks/many_questions.py
    python benchmarks/many_questions.py --questions 32 --frames 64

A random model of a few million parameters and a random clip. All ways take turns in one process and begin without a clip in memory:
each is given the frames, and answers all questions. Seconds are those of the processor, which a busy machine changes little; with one
thread they are those of an idle one. The answers of all ways are compared token by token.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date

import numpy as np
import torch
from transformers import Qwen2_5_VLProcessor, set_seed

from storm_hf import StormForConditionalGeneration, StormSession
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.evaluation import Answer, ClipQuestion, ask
from storm_hf.evaluation.single import question_encoder
from storm_hf.video import VideoClip


HEIGHT, WIDTH = 128, 256  # pixels; 16 x 16 of two frames make a token
WORDS = (
    "who",
    "what",
    "where",
    "when",
    "is",
    "the",
    "ball",
    "cup",
    "left",
    "right",
    "first",
    "last",
    "before",
    "after",
)


def build(num_latents: int, hidden: int, layers: int) -> tuple[StormForConditionalGeneration, Qwen2_5_VLProcessor]:
    """A random STORM in evaluation mode, and its processor."""
    processor = tiny_processor(WORDS, num_latents, frame_pixels=HEIGHT * WIDTH)
    config = tiny_config(processor, num_latents)
    heads = hidden // 32
    sizes = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": heads // 8, "max_position_embeddings": 32768}
    config.vlm_config.text_config.update(sizes)
    config.vlm_config.text_config.layer_types = ["full_attention"] * layers
    config.vlm_config.vision_config.out_hidden_size = hidden
    set_seed(0)
    return StormForConditionalGeneration(config).eval(), processor


def random_clip(num_frames: int) -> VideoClip:
    """Frames of noise, one a second."""
    frames = np.random.default_rng(0).integers(255, size=(num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return VideoClip(frames, np.arange(num_frames) / 1.0, num_frames, num_frames, 0, 0, "frames")


def random_questions(clip: VideoClip, count: int) -> list[ClipQuestion]:
    """Questions of five to fifteen words."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(5, 16, size=count)
    return [ClipQuestion(clip, " ".join(generator.choice(WORDS, size=length)) + " ?") for length in lengths]


def measure(ways: dict[str, Callable[[], list[Answer]]], num_rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; all must answer alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    expected = None
    for _ in range(num_rounds):
        for name, answer in ways.items():
            started = time.process_time()
            answers = [each.token_ids for each in answer()]
            seconds[name].append(time.process_time() - started)
            expected = expected or answers
            if answers != expected:
                raise SystemExit(f"{name} answers otherwise than the first way: {answers} and {expected}.")
    return seconds


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--num-latents", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, processor = build(args.num_latents, args.hidden, args.layers)
    clip = random_clip(args.frames)
    questions = random_questions(clip, args.questions)
    length = {"max_new_tokens": args.new_tokens}
    ways = {
        "one by one": lambda: [ask(model, processor, question, **length) for question in questions],
        "session, one after the other": lambda: StormSession(model, processor).ask_all(
            questions, batch_size=1, **length
        ),
        "session, together": lambda: StormSession(model, processor).ask_all(
            questions, batch_size=args.questions, **length
        ),
    }
    ask(model, processor, questions[0], **length)  # what is set up once
    seconds = measure(ways, args.rounds)
    inputs = question_encoder(model, processor, None)([questions[0].row()])
    num_clip = int(torch.isin(inputs["input_ids"], torch.tensor(model.config.vision_token_ids)).sum())
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    print(
        f"{date.today():%d %B %Y}, {platform.machine()}, {args.threads} thread(s), torch {torch.__version__}: {millions:.1f} M parameters, "
        f"{args.layers} layers of width {args.hidden}, a clip of {num_clip} tokens, {args.questions} questions, K = {args.num_latents}, "
        f"answers of at most {args.new_tokens} tokens, {args.rounds} rounds\n"
    )
    print("| questions | seconds of processor time, median (least to most) | times as fast |\n| --- | --- | --- |")
    base = statistics.median(seconds["one by one"])
    for name, each in seconds.items():
        median = statistics.median(each)
        print(f"| {name} | {median:.2f} ({min(each):.2f} to {max(each):.2f}) | {base / median:.1f} |")


if __name__ == "__main__":
    main()
