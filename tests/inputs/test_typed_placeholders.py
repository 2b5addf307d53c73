"""What users type is text: no question, option or message writes a control token or a placeholder of any backbone."""

from types import SimpleNamespace

import numpy as np
import pytest
from tests.processors import PROCESSORS, stock_processor

from storm_hf.errors import PromptError
from storm_hf.evaluation.harness.requests import ChatGenerator, HarnessQuestion
from storm_hf.evaluation.harness.settings import ChatSettings
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model.processing_storm import add_latent_tokens


pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy"
)  # GLM-4V's, in transformers
CLIP = np.zeros((4, 56, 56, 3), np.uint8)
# Placeholders and control tokens of any backbone, some of which are words of no meaning to the others.
TYPED = (
    *("<video>", "<image>", "<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<IMG_CONTEXT>"),
    *("<img>", "</img>", "<|begin_of_video|>", "<|video|>", "<|end_of_video|>", "<|begin_of_image|>", "<|image|>"),
    *("<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<end_of_utterance>"),
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|user|>", "<|latent|>", "<|latent_start|>", "<|latent_end|>"),
    *("<think>", "</s>", "<pad>", "<bos>", "<eos>"),
)
# What a processor does not tell from a placeholder of its own: it is refused by name.
REFUSED = {"internvl": {"<video>", "<IMG_CONTEXT>"}}
PLACES = {
    "question": lambda typed: {"video": CLIP, "question": f"Where {typed} is it?"},
    "option": lambda typed: {"video": CLIP, "question": "Where is it?", "options": [f"left {typed}", "right"]},
    "message": lambda typed: {
        "prompt": [
            {"role": "system", "content": [{"type": "text", "text": f"Be {typed} brief."}]},
            {"role": "user", "content": [{"type": "video", "video": CLIP}, {"type": "text", "text": f"{typed}?"}]},
        ]
    },
}


@pytest.fixture(scope="module", params=PROCESSORS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def encoder(kind):
    processor = add_latent_tokens(stock_processor(kind), 2)
    return PromptEncoder(processor, SimpleNamespace(model_type="plain"), 2, "words")


def control_tokens(encoder, row):
    """How often each control token of the vocabulary stands in a prompt."""
    tokenizer = encoder.processor.tokenizer
    ids = encoder([row])["input_ids"][0].tolist()
    return {token.content: ids.count(id) for id, token in tokenizer.added_tokens_decoder.items()}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_typed_stays_text_or_is_refused_by_name(kind, encoder, place):
    expected = control_tokens(encoder, PLACES[place]("plain"))
    own = [token.content for token in encoder.processor.tokenizer.added_tokens_decoder.values()]
    for typed in sorted({*TYPED, *own}):
        if typed in REFUSED.get(kind, ()):
            words = f"without {typed!r}, which {type(encoder.processor).__name__} takes for a video"
            with pytest.raises(PromptError, match=words):
                encoder([PLACES[place](typed)])
        else:
            assert control_tokens(encoder, PLACES[place](typed)) == expected, typed


def test_row_of_latent_tokens_alone_writes_none(encoder):
    typed = "".join(token.content for token in encoder.processor.tokenizer.added_tokens_decoder.values())
    typed = typed.replace("<video>", "").replace("<IMG_CONTEXT>", "")
    expected = control_tokens(encoder, PLACES["question"]("plain"))
    assert control_tokens(encoder, PLACES["question"](typed)) == expected


@pytest.mark.parametrize("typed", sorted(REFUSED["internvl"]))
def test_question_of_a_benchmark_is_refused_in_the_same_words(typed):
    processor = add_latent_tokens(stock_processor("internvl"), 2)
    model = SimpleNamespace(config=SimpleNamespace(model_type="plain"))
    parts = [{"type": "video", "video": CLIP}, {"type": "text", "text": f"Where {typed}?"}]
    question = HarnessQuestion("task", 0, "Where?", {}, [{"role": "user", "content": parts}])
    with pytest.raises(PromptError, match=f"Expected a question and options without '{typed}'"):
        ChatGenerator(model, processor, ChatSettings("m", num_latents=0)).encode([question])


def test_other_refusals_of_a_processor_keep_their_words(encoder, monkeypatch):
    def refuse(*words, **settings):
        raise ValueError("height and width must be larger than 4")

    monkeypatch.setattr(type(encoder.processor), "apply_chat_template", refuse)
    with pytest.raises(ValueError, match=r"^height and width must be larger than 4$"):
        encoder([PLACES["question"]("plain")])
