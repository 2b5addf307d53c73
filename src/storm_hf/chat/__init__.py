"""Chat models that write prompts and mark answers: behind a server that speaks OpenAI's protocol, or in this process."""

from storm_hf.chat.local import PipelineChat
from storm_hf.chat.message import ChatModel, Message
from storm_hf.chat.served import ServedChat


__all__ = ["ChatModel", "Message", "PipelineChat", "ServedChat"]
