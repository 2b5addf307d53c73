"""Chat message types and the `ChatModel` protocol.

Axes: H height, W width of an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image


_MAX_IMAGE_SIDE_PX = 768  # what chat models look at in one tile; more only costs time


@dataclass(frozen=True, eq=False)
class Message:
    """User turn of a chat.

    Args:
        text (`str`):
            The words.
        images (`tuple[np.ndarray, ...]`, *optional*, defaults to `()`):
            Pictures shown before the words, each of shape `(height, width, 3)`, RGB, `uint8`.
    """

    text: str
    images: tuple[np.ndarray, ...] = ()


class ChatModel(Protocol):
    """Answers a conversation."""

    @property
    def name(self) -> str:
        """Its name, as recorded."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings that determine its answers besides its name, JSON-serializable."""
        ...

    @property
    def version(self) -> str | None:
        """Version of the model, as exactly as is known: a commit, or a hash of its files."""
        ...

    def complete(self, messages: Sequence[Message]) -> str:
        """Say what comes next, without its thinking. It may be empty.

        Raises:
            DatasetError: If the answer is cut off.
            ServerError: If there is none to be had.
        """
        ...


def small_image(pixels: np.ndarray) -> Image.Image:
    """A picture, made smaller if it is larger than chat models look at."""
    image = Image.fromarray(pixels)
    image.thumbnail((_MAX_IMAGE_SIDE_PX, _MAX_IMAGE_SIDE_PX))
    return image


def without_thinking(text: str) -> str:
    """Final answer of a completion, without its reasoning."""
    return text.rpartition("</think>")[2].strip()
