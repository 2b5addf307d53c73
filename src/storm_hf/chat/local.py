"""A chat model in this process, through a pipeline of transformers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from storm_hf.chat.message import Message, small_image, without_thinking
from storm_hf.errors import ConfigurationError
from storm_hf.pipeline.fingerprint import folder_revision


@dataclass(frozen=True)
class PipelineChat:
    """A chat model in this process, through a pipeline of transformers. It answers greedily.

    Args:
        name (`str`):
            A model on the Hub, or its folder.
        revision (`str`, *optional*):
            Its commit or branch on the Hub.
        sees_images (`bool`, *optional*, defaults to `False`):
            Whether it takes pictures; then the task is `image-text-to-text`, else `text-generation`.
        max_tokens (`int`, *optional*, defaults to `512`):
            Longest answer.
        options (`Mapping[str, Any]`, *optional*):
            More for `transformers.pipeline`: `device`, `dtype`, `device_map`.
    """

    name: str
    revision: str | None = None
    sees_images: bool = False
    max_tokens: int = 512
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def version(self) -> str | None:
        """Commit of the model on the Hub; of a folder, twelve digits of the hash of all its files."""
        if Path(self.name).is_dir():
            return folder_revision(Path(self.name))
        return getattr(self._pipeline.model.config, "_commit_hash", None) or self.revision

    @property
    def settings(self) -> Mapping[str, Any]:
        """Revision and length."""
        return {"revision": self.revision, "max_tokens": self.max_tokens}

    def complete(self, messages: Sequence[Message]) -> str:
        """Ask the model.

        Raises:
            ConfigurationError: If it is shown pictures and `sees_images` is false.
        """
        if not self.sees_images and any(message.images for message in messages):
            raise ConfigurationError(f"Expected no pictures for {self.name} but got some. Pass sees_images=True.")
        chat = [{"role": "user", "content": self._content(message)} for message in messages]
        answer = self._pipeline(chat, return_full_text=False, **self._generation)
        return without_thinking(answer[0]["generated_text"])

    @property
    def _generation(self) -> dict[str, Any]:
        """Greedy and short enough, as each of the two pipelines takes it."""
        arguments = {"max_new_tokens": self.max_tokens, "do_sample": False}
        return {"generate_kwargs": arguments} if self.sees_images else arguments

    def _content(self, message: Message) -> str | list[dict[str, Any]]:
        if not self.sees_images:
            return message.text
        images = [{"type": "image", "image": small_image(image)} for image in message.images]
        return [*images, {"type": "text", "text": message.text}]

    @cached_property
    def _pipeline(self) -> Any:
        from transformers import pipeline  # here, since a server needs none of it

        task = "image-text-to-text" if self.sees_images else "text-generation"
        return pipeline(task, model=self.name, revision=self.revision, **self.options)
