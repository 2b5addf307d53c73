"""A request of lmms-eval as a conversation, and its videos as frames with their times."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import ProcessorMixin

from storm_hf.errors import PromptError
from storm_hf.evaluation.harness.settings import PromptStyle
from storm_hf.training.media import load_clip


# The tags are those that lmms-eval cuts out before it reads an answer.
REASONING_REQUEST = (
    "\nThink step by step before you answer: write your reasoning between <think> and </think>, and after it nothing but the "
    "answer, in the form asked for above."
)


@dataclass(frozen=True)
class HarnessQuestion:
    """One request of lmms-eval.

    Args:
        task (`str`):
            Name of the task.
        doc_id (`int`):
            Position of the question in its data set.
        context (`str`):
            The text of the question.
        generation (`Mapping[str, Any]`):
            Generation settings of the task: `max_new_tokens`, `until`, `do_sample` and the like.
        conversation (`list[dict]`):
            Messages as chat templates take them; videos are paths.
    """

    task: str
    doc_id: int
    context: str
    generation: Mapping[str, Any]
    conversation: list[dict[str, Any]]


def read_question(
    arguments: tuple[Any, ...], conversation: list[dict[str, Any]], style: PromptStyle
) -> HarnessQuestion:
    """Take a request of lmms-eval apart.

    Args:
        arguments (`tuple`):
            `Instance.args` of a chat task: context, the function from a document to its messages, generation arguments, number
            of the document, task, split.
        conversation (`list[dict]`):
            Result of that function, in the form of chat templates. It is changed where reasoning is asked for.
        style (`str`):
            `direct`, or `cot` to ask for reasoning.

    Raises:
        PromptError: If the question has sound, or a part of a video, which this model is not given.
    """
    context, _, generation, doc_id, task, _ = arguments
    for message in conversation:
        for part in message["content"]:
            _check_part(part, task)
    if style == "cot":
        _request_reasoning(conversation)
    return HarnessQuestion(task, doc_id, context, generation or {}, conversation)


def decode_videos(
    conversation: list[dict[str, Any]], processor: ProcessorMixin, max_frames: int
) -> list[dict[str, Any]]:
    """Put clips in the place of paths.

    Args:
        conversation (`list[dict]`):
            Messages whose videos are paths.
        processor ([`~transformers.ProcessorMixin`]):
            Says how videos are sampled; see `load_clip`.
        max_frames (`int`):
            Most frames of a video.

    Raises:
        VideoReadError: If no frame of a file can be decoded.
    """

    def decode(part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] != "video":
            return part
        return {**part, "video": load_clip(part["video"], processor, max_frames=max_frames, strict=False)}

    return [{**message, "content": [decode(part) for part in message["content"]]} for message in conversation]


def _check_part(part: Mapping[str, Any], task: str) -> None:
    if part["type"] == "audio":
        raise PromptError(f"The task {task} asks about sound, which this model does not hear. Choose another task.")
    if "video_start" in part or "video_end" in part:
        raise PromptError(
            f"The task {task} asks about a part of {part['video']}, but whole videos are read. Cut the video, or choose "
            "another task."
        )


def _request_reasoning(conversation: list[dict[str, Any]]) -> None:
    """End the last turn of the user with the request to think aloud."""
    turn = [message for message in conversation if message["role"] == "user"][-1]
    if turn["content"] and turn["content"][-1]["type"] == "text":
        turn["content"][-1]["text"] += REASONING_REQUEST
    else:
        turn["content"].append({"type": "text", "text": REASONING_REQUEST.strip()})
