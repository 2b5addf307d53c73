"""Read mutated headers of valid videos in a process that may die: `python -m tests.video.fuzz FOLDER SEED COUNT`.

Containers stay valid enough to be opened: codec tags, stream types, handlers, sizes, indices, rates and metadata change, the
pictures do not. Every input must be read, or be a `VideoReadError` in one line, within its time and a bounded memory. A line of
JSON is printed for each input that is not, and one with totals at the end.
"""

import gc
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.video import clips

from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.video import VideoLimits, read_video


TIMEOUT_SECONDS = 5.0  # for the reading
GRACE_SECONDS = 15.0  # that a machine under load may take longer
LIMITS = VideoLimits(max_frame_pixels=4_000_000, max_total_bytes=64 * 2**20, max_packets=20_000)
MEMORY_BYTES = 2 * 2**30  # more than the limits need, address space of the decoder's threads included
_HEADER_BYTES = 8192
_WORDS = (
    b"avc1",
    b"encv",
    b"hvc1",
    b"av01",
    b"mp4v",
    b"apch",
    b"zzzz",
    b"vide",
    b"soun",
    b"hint",
    b"text",
    b"meta",
    b"tmcd",
)
_WORDS += (
    b"vids",
    b"auds",
    b"txts",
    b"H264",
    b"MJPG",
    b"cvid",
    b"raw ",
    b"DIB ",
    b"stsd",
    b"stsz",
    b"stco",
    b"stts",
    b"ctts",
)
_WORDS += (
    b"elst",
    b"free",
    b"mdat",
    b"moov",
    b"dref",
    b"url ",
    b"V_AV1",
    b"V_VP9",
    b"V_MPEG2",
    b"A_AAC",
    b"V_UNCOMPRESSED",
)
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def write_seeds(folder: Path) -> list[Path]:
    """Write a small valid video of each container and codec that is at hand."""
    frames = clips.numbered_frames(12, 48, 64)
    made = [
        ("a.mp4", {}),
        ("fast.mp4", {"movflags": "faststart"}),
        ("frag.mp4", {"movflags": "frag_keyframe+empty_moov", "keyframe_every": 4}),
        ("a.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("a.avi", {"codec": "mpeg4"}),
        ("raw.avi", {"codec": "rawvideo", "pix_fmt": "bgr24"}),
        ("a.ts", {"container": "mpegts"}),
        ("a.mpg", {"codec": "mpeg2video", "fps": 25}),
        ("a.flv", {"codec": "flv"}),
        ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("a.nut", {"codec": "ffv1", "pix_fmt": "yuv420p"}),
        ("a.ogv", {"codec": "libtheora"}),
        ("a.asf", {"codec": "msmpeg4"}),
        ("a.y4m", {"codec": "wrapped_avframe", "container": "yuv4mpegpipe"}),
    ]
    seeds = []
    for name, how in made:
        try:
            seeds.append(clips.encode(folder / name, frames, **how))
        except Exception as error:  # this FFmpeg does not write it
            sys.stderr.write(f"{name} was not written: {error}\n")
    return seeds


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Change one to four places of the headers, at the beginning or, where the index is there, at the end."""
    content = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        _change(content, draw)
    return bytes(content)


def _change(content: bytearray, draw: random.Random) -> None:
    size = min(_HEADER_BYTES, len(content))
    start = draw.choice((0, max(0, len(content) - size)))
    position = min(start + draw.randrange(size), len(content) - 9)
    kind = draw.randrange(6)
    if kind == 0:  # a name of a codec, a stream type, a handler or an atom
        known = [place for word in _WORDS if (place := content.find(word)) >= 0]
        word = draw.choice(_WORDS)
        position = draw.choice(known or [position])
        content[position : position + len(word)] = word
    elif kind == 1:  # a size, a count, an offset or a rate
        number = draw.choice(_NUMBERS).to_bytes(4, draw.choice(("big", "little")))
        content[position : position + 4] = number
    elif kind == 2:
        content[position] ^= 1 << draw.randrange(8)
    elif kind == 3:
        content[position] = draw.randrange(256)
    elif kind == 4:  # a part of the header twice
        content[position:position] = content[position : position + draw.choice((1, 4, 8, 64))]
    else:
        del content[position : position + draw.choice((1, 4, 8, 64))]


def problem_of(path: Path, strict: bool) -> tuple[str, str | None]:
    """Read a file, and return how it went and what was wrong with that, if anything was."""
    began = time.monotonic()
    try:
        read_video(path, num_frames=3, strict=strict, timeout_seconds=TIMEOUT_SECONDS, limits=LIMITS)
        outcome = "read"
    except (VideoReadError, DatasetError) as error:
        outcome = type(error).__name__
        if "\n" in str(error):
            return outcome, f"a sentence of several lines: {error}"
    except Exception as error:
        return type(error).__name__, f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    return outcome, f"{seconds:.1f} s" if seconds > TIMEOUT_SECONDS + GRACE_SECONDS else None


def main(folder: Path, seed: int, count: int) -> None:
    """Fuzz."""
    seeds, outcomes = [path.read_bytes() for path in write_seeds(folder)], Counter()
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY_BYTES,) * 2)
    path, current = folder / "mutated", folder / "current.json"
    num_open = len(os.listdir("/proc/self/fd"))
    for number in range(seed, seed + count):
        draw = random.Random(number)
        path.write_bytes(mutated(draw.choice(seeds), draw))
        current.write_text(json.dumps({"input": number}))  # what killed this process, if it dies
        outcome, problem = problem_of(path, strict=bool(number % 2))
        outcomes[outcome] += 1
        if problem is not None:
            _report({"input": number, "problem": problem})
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd")) - num_open
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    _report({"outcomes": outcomes, "descriptors": descriptors, "peak_mib": peak})


def _report(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
