"""`/v1/chat/completions` for a model that thinks in latents: the handler of transformers, with our door to prompts.

Prompts are encoded where training and evaluation encode theirs, so text of a user never makes a control token, and a video
comes with its timestamps. What follows, generation on one thread, streaming and the form of the answers, is that of
transformers.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from transformers import GenerationConfig, ProcessorMixin
from transformers.cli.serving.chat_completion import ChatCompletionHandler, TransformersCompletionCreateParamsStreaming
from transformers.cli.serving.utils import GenerateManager, GenerationState

from storm_hf.errors import RequestError
from storm_hf.evaluation.replacement import Replacement, feed, replace_latents
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.serving.media import MediaDoor
from storm_hf.serving.request import LatentWish, read_messages, read_wish
from storm_hf.training.prompts import PromptEncoder


if TYPE_CHECKING:
    from fastapi.responses import JSONResponse, StreamingResponse

NUM_LATENTS_HEADER = "X-Storm-Num-Latents"


class StormCompletionParams(TransformersCompletionCreateParamsStreaming, total=False):  # type: ignore[call-arg]
    """What a request may hold: the fields of OpenAI, those of transformers, and ours."""

    num_latents: int
    latents: str
    donor_messages: list[dict[str, Any]]


@dataclass
class ServedModel:
    """The one model of a server, in the form that the handlers of transformers ask for.

    Args:
        name (`str`):
            What clients call it.
        model ([`StormForConditionalGeneration`]):
            The model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
    """

    name: str
    model: StormForConditionalGeneration
    processor: ProcessorMixin

    @property
    def force_model(self) -> str:
        """The only name that requests may use."""
        return self.name

    def process_model_name(self, name: str) -> str:
        """No revisions: what is loaded is served."""
        return name

    def load_model_and_processor(
        self, *args: Any, **kwargs: Any
    ) -> tuple[StormForConditionalGeneration, ProcessorMixin]:
        """The model is loaded already."""
        return self.model, self.processor


class StormChatHandler(ChatCompletionHandler):
    """Answers chat completions.

    Args:
        served ([`ServedModel`]):
            The model.
        door ([`MediaDoor`]):
            What may come in.
        max_new_tokens (`int`, *optional*, defaults to `1024`):
            Longest answer that a request may ask for.
    """

    _valid_params_class = StormCompletionParams

    def __init__(self, served: ServedModel, door: MediaDoor, max_new_tokens: int = 1024) -> None:
        super().__init__(served, GenerationState())
        self.served, self.door, self.max_new_tokens = served, door, max_new_tokens

    async def handle_request(self, body: dict[str, Any], request_id: str) -> "StreamingResponse | JSONResponse":
        """Answer, at once or as a stream.

        Raises:
            RequestError: If the request asks for something that this server does not do, or brings something that may not
                come in.
            VideoReadError: If there is no picture to be had from a video.
        """
        self._validate_request(body)
        name, model, processor = self._resolve_model(body)
        config = model.config
        wish = read_wish(body, default=config.num_latents, most=config.max_num_latents)
        settings = self._build_generation_config(body, model.generation_config)
        manager = self.generation_state.get_manager(name)
        inputs = await asyncio.to_thread(self._encode, body.get("messages"), wish.num_latents)
        inputs |= await self._intervention(wish, inputs, manager)
        answer = self._streaming if body.get("stream") else self._non_streaming
        response = answer(request_id, model, processor, name, inputs, settings, gen_manager=manager)
        response = await response if asyncio.iscoroutine(response) else response
        response.headers[NUM_LATENTS_HEADER] = str(wish.num_latents)
        return response

    def _validate_request(self, body: dict[str, Any]) -> None:
        super()._validate_request(body)
        if body.get("tools"):
            raise RequestError("This server calls no tools. Leave `tools` out.", status=422)

    def _encode(self, messages: Any, num_latents: int) -> dict[str, Any]:
        """A conversation as inputs of the model, on its device."""
        decoded = read_messages(messages, self.served.processor, self.door)
        encode = PromptEncoder(self.served.processor, self.served.model.config, num_latents)
        try:
            inputs = encode([{"prompt": decoded}])
        except ValueError as error:  # as of a video processor about a picture 200 times as wide as high
            raise RequestError(f"The model cannot take these messages: {error}") from error
        window = getattr(self.served.model.config.get_text_config(), "max_position_embeddings", None)
        if window and (num_tokens := inputs["input_ids"].shape[1]) > window:
            raise RequestError(
                f"The messages make {num_tokens} tokens, but this model reads {window}. Send less.", status=413
            )
        return {name: value.to(self.served.model.device) for name, value in inputs.items()}

    async def _intervention(
        self, wish: LatentWish, inputs: dict[str, Any], manager: GenerateManager
    ) -> dict[str, Any]:
        """What stands in the place of the model's own latents, made on the thread that runs the model."""
        if wish.latents in ("own", "none"):
            return {}
        if wish.latents == "alone":
            return {"latent_bottleneck": True}
        thinking = (
            inputs if wish.donor is None else await asyncio.to_thread(self._encode, wish.donor, wish.num_latents)
        )
        latents = await manager.async_submit(self._think, thinking)
        if wish.latents != "swap":
            latents = replace_latents(cast(Replacement, wish.latents), latents)
        return {"latent_intervention": feed(latents[None])(range(1))}

    def _think(self, inputs: dict[str, Any]) -> Any:
        """The latents (K, D) of a conversation."""
        output: Any = self.served.model.generate(
            **inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_latents=True
        )
        return output.latents[0].float().cpu().numpy()

    def _build_generation_config(
        self, body: dict[str, Any], model_generation_config: GenerationConfig, use_cb: bool = False
    ) -> GenerationConfig:
        config = super()._build_generation_config(body, model_generation_config, use_cb=use_cb)
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        if asked is not None and not 1 <= asked <= self.max_new_tokens:
            raise RequestError(
                f"Expected an answer of 1 to {self.max_new_tokens} tokens but {asked} were asked for.", status=422
            )
        config.max_new_tokens = min(config.max_new_tokens, self.max_new_tokens)
        return config
