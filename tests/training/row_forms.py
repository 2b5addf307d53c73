"""One question about one clip, said in every form that data sets have it, and ways to store rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_dataset
from PIL import Image

from storm_hf.video import read_video


QUESTION, ANSWER = "Where is the red ball now?", "left"
Row = dict[str, Any]


def user(*parts: Any, text: str = QUESTION) -> list[Row]:
    """A conversation of one turn: parts, then the question."""
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def assistant(content: Any = ANSWER) -> list[Row]:
    """An answer as a message."""
    return [{"role": "assistant", "content": content}]


def embedded(video: str) -> Row:
    """A video as Parquet embeds it; its path names nothing on this machine."""
    return {"bytes": Path(video).read_bytes(), "path": "elsewhere.mp4"}


# What every form becomes: the same prompt and the same answer.
FORMS: dict[str, Callable[[str], Row]] = {
    "question": lambda video: {"video": video, "question": QUESTION, "options": None, "answer": ANSWER},
    "question with no options": lambda video: {"video": video, "question": QUESTION, "options": [], "answer": ANSWER},
    "videos and question": lambda video: {"videos": [video], "question": QUESTION, "answer": ANSWER},
    "prompt and completion": lambda video: {
        "prompt": user({"type": "video", "video": video}),
        "completion": assistant(),
    },
    "completion of parts": lambda video: {
        "prompt": user({"type": "video", "video": video}),
        "completion": assistant([{"type": "text", "text": "le"}, {"type": "text", "text": "ft"}]),
    },
    "completion as text": lambda video: {"prompt": user({"type": "video", "video": video}), "completion": ANSWER},
    "prompt and completion as text": lambda video: {"prompt": QUESTION, "completion": ANSWER, "videos": [video]},
    "text with a placeholder": lambda video: {
        "prompt": f"<video>{QUESTION}",
        "completion": ANSWER,
        "videos": [video],
    },
    "content as text": lambda video: {
        "prompt": [{"role": "user", "content": QUESTION}],
        "completion": assistant(),
        "video": video,
    },
    "placeholder and column": lambda video: {
        "prompt": user({"type": "video"}),
        "completion": assistant(),
        "videos": [video],
    },
    "messages": lambda video: {
        "messages": [*user({"type": "video", "video": video}), *assistant([{"type": "text", "text": ANSWER}])]
    },
    "messages in JSON": lambda video: {
        "messages": json.dumps([*user({"type": "video", "video": video}), *assistant()])
    },
    "prompt and completion in JSON": lambda video: {
        "prompt": json.dumps(user({"type": "video", "video": video})),
        "completion": json.dumps(assistant()),
    },
    "url": lambda video: {"prompt": user({"type": "video", "url": f"file://{video}"}), "completion": ANSWER},
    "path": lambda video: {"prompt": user({"type": "video", "path": video}), "completion": ANSWER},
    "absent keys as None": lambda video: {
        "prompt": user({"type": "video", "url": None, "path": video, "fps": None, "max_pixels": None}),
        "completion": ANSWER,
        "chat_template_kwargs": None,
    },
    "video_url": lambda video: {
        "prompt": user({"type": "video_url", "video_url": {"url": f"file://{video}"}}),
        "completion": ANSWER,
    },
    "bytes": lambda video: {"video": embedded(video), "question": QUESTION, "answer": ANSWER},
    "bytes in a part": lambda video: {
        "prompt": user({"type": "video", "video": embedded(video)}),
        "completion": ANSWER,
    },
    "bytes alone": lambda video: {"video": Path(video).read_bytes(), "question": QUESTION, "answer": ANSWER},
    "video beside no videos": lambda video: {"prompt": QUESTION, "completion": ANSWER, "videos": [], "video": video},
    "no bytes": lambda video: {"video": {"bytes": None, "path": video}, "question": QUESTION, "answer": ANSWER},
}


def frame_forms(video: str, folder: Path) -> dict[str, Any]:
    """The frames of a clip in every form."""
    frames = read_video(video).frames
    pictures = [Image.fromarray(frame) for frame in frames]
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(str(folder / f"{number}.png"))
        picture.save(paths[-1])
    return {
        "array": frames,
        "channels first": np.ascontiguousarray(frames.transpose(0, 3, 1, 2)),
        "arrays": list(frames),
        "pictures": pictures,
        "paths": paths,
        "urls": [f"file://{path}" for path in paths],
        "embedded": [{"bytes": Path(path).read_bytes(), "path": None} for path in paths],
    }


def as_jsonl(row: Row, folder: Path) -> Row:
    """The row as a JSON-lines file gives it back."""
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))[0]


def as_parquet(row: Row, folder: Path) -> Row:
    """The row as a Parquet file gives it back."""
    path = folder / "rows.parquet"
    Dataset.from_list([row]).to_parquet(path)
    return load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(folder / "cache"))[0]


STORES: dict[str, Callable[[Row, Path], Row]] = {
    "list": lambda row, folder: row,
    "dataset": lambda row, folder: Dataset.from_list([row])[0],
    "parquet": as_parquet,
    "jsonl": as_jsonl,
    "pandas": lambda row, folder: Dataset.from_list([row]).to_pandas().iloc[0].to_dict(),
}
