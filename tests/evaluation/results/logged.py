"""Invented runs in the form in which the harness logs them."""

import json
from pathlib import Path


def videomme(number, video="clip0", answer="A", **fields):
    document = {
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Astronomy",
        "task_type": "Counting Problem",
        "videoID": video,
        "question_id": f"{number:03}",
        "question": "Which colour has the square?",
        "options": ["A. red.", "B. green.", "C. blue.", "D. grey."],
        "answer": answer,
    }
    return document | fields


def mvbench(video="a.mp4", answer="it waits"):
    return {"video": video, "question": "What happens?", "candidates": ["it waits", "it runs"], "answer": answer}


def tempcompass(question="Does it run?", answer="yes", dim="action", **fields):
    return {"video_id": "v0", "question": question, "answer": answer, "dim": dim} | fields


def mmvu(kind="multiple-choice", answer="B", subject="Art"):
    choices = dict(zip("ABCDE", ("red", "green", "blue", "grey", "none of these"), strict=True))
    path = f"videos/{subject}/0.mp4"
    return {
        "id": "v_0",
        "video_path": path,
        "question_type": kind,
        "question": "?",
        "choices": choices,
        "answer": answer,
    }


def write_samples(run: Path, variant: str, task: str, rows, **more) -> Path:
    """Write pairs of document and completion as samples of a task."""
    path = run / variant / f"{variant}_samples_{task}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = [
        {"doc_id": number, "doc": document, "filtered_resps": [completion], **more}
        for number, (document, completion) in enumerate(rows)
    ]
    path.write_text("".join(f"{json.dumps(sample)}\n" for sample in samples))
    return path
