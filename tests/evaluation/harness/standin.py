"""Stand-ins for the four benchmarks, laid out as lmms-eval looks for them: invented questions about tiny clips.

write_standins(root)   questions and videos; `root` is then a `--data-root`
TASKS                  the tasks that they serve
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from storm_hf.video import write_video


TASKS = (
    "videomme",
    "videomme_w_subtitle",
    "mvbench_action_sequence",
    "mvbench_object_existence",
    "tempcompass_yes_no",
    "mmvu_val",
)
_SUBTITLES = """1
00:00:00,000 --> 00:00:02,000
<font color="white" size=".72c">a square goes by</font>

"""
_COLOURS = ("red", "green", "blue", "grey")
_MMVU_CHOICES = dict(zip("ABCDE", (*_COLOURS, "none of these"), strict=True))


def write_standins(root: Path) -> Path:
    """Write questions and videos of all stand-ins below `root`."""
    write_videomme(root)
    write_mvbench(root)
    write_tempcompass(root)
    write_mmvu(root)
    return root


def write_videomme(root: Path, num_videos: int = 4, questions_per_video: int = 1) -> None:
    rows = [
        {
            "video_id": f"{number:03}",
            "duration": ("short", "short", "medium", "long")[number % 4],
            "domain": "Knowledge",
            "sub_category": "Astronomy",
            "url": "",
            "videoID": f"clip{number}",
            "question_id": f"{number:03}-{place}",
            "task_type": "Counting Problem",
            "question": f"Which colour does the square number {number} have?" + " Look again." * (place - 1),
            "options": [f"{letter}. {colour}." for letter, colour in zip("ABCD", _COLOURS, strict=True)],
            "answer": "ABCD"[number % 4],
        }
        for number in range(num_videos)
        for place in range(1, 1 + questions_per_video)
    ]
    _write_split(root / "lmms-eval/Video-MME", "test", {"default": rows})
    for number in range(num_videos):
        _write_clip(root / f"videomme/data/clip{number}.mp4", number)
    subtitle = root / "videomme/subtitle/clip0.srt"
    subtitle.parent.mkdir()
    subtitle.write_text(_SUBTITLES)


def write_mvbench(root: Path) -> None:
    places = {"action_sequence": "star/Charades_segment", "object_existence": "clevrer/video_validation"}
    rows_of = {
        task: [
            {
                "video": f"{task}{number}.mp4",
                "question": f"What does the square number {number} do?",
                "candidates": ["it waits", "it goes right", "it goes left"],
                "answer": ["it goes right", "it waits"][number % 2],
            }
            for number in range(3)
        ]
        for task in places
    }
    _write_split(root / "OpenGVLab/MVBench", "train", rows_of)
    for task, place in places.items():
        for number, row in enumerate(rows_of[task]):
            _write_clip(root / "mvbench_video" / place / row["video"], number)


def write_tempcompass(root: Path) -> None:
    rows = [
        {
            "video_id": f"v{number}",
            "question": f"Does the square number {number} go right?",
            "answer": ("yes", "no")[number % 2],
            "dim": dimension,
        }
        for number, dimension in enumerate(("action", "direction", "speed", "order", "attribute_change"))
    ]
    _write_split(root / "lmms-eval/TempCompass", "test", {"yes_no": rows})
    for number, row in enumerate(rows):
        _write_clip(root / f"tempcompass/videos/{row['video_id']}.mp4", number)


def write_mmvu(root: Path) -> None:
    rows = [
        {
            "id": f"validation_{number}",
            "video_path": f"videos/{subject}/{number}.mp4",
            "question_type": kind,
            "question": f"Which colour does the square number {number} have?",
            "choices": _MMVU_CHOICES if kind == "multiple-choice" else dict.fromkeys("ABCDE", ""),
            "answer": "B" if kind == "multiple-choice" else "green",
            "metadata": {"subject": subject},
        }
        for number, (subject, kind) in enumerate(
            [("Art", "multiple-choice"), ("Chemistry", "multiple-choice"), ("Dentistry", "open-ended")]
        )
    ]
    _write_split(root / "lmms-eval/MMVU", "validation", {"default": rows})
    for number, row in enumerate(rows):
        _write_clip(root / "mmvu" / row["video_path"], number)


def _write_split(folder: Path, split: str, rows_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write a data set as the Hub has it: one Parquet file per configuration, and the card that names them."""
    card = ["---", "configs:"]
    for name, rows in rows_of.items():
        path = folder / name / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        pd.DataFrame(list(rows)).to_parquet(path)
        card += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {name}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))


def _write_clip(path: Path, seed: int) -> None:
    write_video(path, np.stack(list(_frames(seed))), fps=4)


def _frames(seed: int, count: int = 12, side: int = 56) -> Iterator[np.ndarray]:
    """A square of a random colour that goes right."""
    colour = np.random.default_rng(seed).integers(64, 255, size=3)
    for step in range(count):
        frame = np.zeros((side, side, 3), dtype=np.uint8)
        frame[20:36, 3 * step : 3 * step + 16] = colour
        yield frame
