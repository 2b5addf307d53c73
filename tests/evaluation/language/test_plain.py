"""Plain text is read, and plain prompts are answered, by the backbone itself: any padding, any batch, no latents."""

import math

import pytest
import torch
from tests.tiny import enlarge_weights, tiny_processor, tiny_tokenizer
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2Config, Qwen2ForCausalLM, set_seed

from storm_hf.errors import DatasetError
from storm_hf.evaluation.language import answer_plainly, perplexity
from storm_hf.model import StormForConditionalGeneration, add_latent_tokens


TEXTS = ["The ball rolls left.", "Is it here?", "A cup hides the red ball, and the ball is in the second cup.", "No."]
PROMPTS = ["Where is the ball?", "Hi", "Is the red ball in the first cup or in the second cup now?"]


class Letters:
    """A tokenizer of letters, for models without one of their own."""

    def encode(self, text, **_):
        return [5 + ord(letter) % 80 for letter in text]


@pytest.fixture(scope="module")
def storm_and_processor(qwen_checkpoint):
    model = StormForConditionalGeneration.from_backbone(str(qwen_checkpoint), num_latents=3)
    return model.eval(), add_latent_tokens(AutoProcessor.from_pretrained(qwen_checkpoint), 3)


@pytest.fixture(scope="module")
def plain(qwen_checkpoint):
    model = AutoModelForImageTextToText.from_pretrained(qwen_checkpoint)
    return model.eval(), AutoProcessor.from_pretrained(qwen_checkpoint)


def perplexity_by_hand(model, tokenizer, texts):
    losses = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text, split_special_tokens=True)])
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits.log_softmax(dim=-1)
        losses += [-float(log_probs[0, place, ids[0, place + 1]]) for place in range(ids.shape[1] - 1)]
    return math.exp(sum(losses) / len(losses))


def test_perplexity_weighs_every_token_equally(storm_and_processor):
    model, processor = storm_and_processor
    expected = perplexity_by_hand(model, processor.tokenizer, TEXTS)
    assert perplexity(model, processor, TEXTS) == pytest.approx(expected, rel=1e-5)


def test_perplexity_depends_neither_on_batches_nor_on_the_order(storm_and_processor):
    one = perplexity(*storm_and_processor, TEXTS, batch_size=1)
    assert perplexity(*storm_and_processor, TEXTS, batch_size=3) == pytest.approx(one, rel=1e-5)
    assert perplexity(*storm_and_processor, TEXTS[::-1]) == pytest.approx(one, rel=1e-5)


def test_perplexity_is_the_same_whatever_side_the_tokenizer_pads(storm_and_processor):
    model, processor = storm_and_processor
    tokenizer = tiny_tokenizer()
    sides = {}
    for tokenizer.padding_side in ("left", "right"):
        sides[tokenizer.padding_side] = perplexity(model, tokenizer, TEXTS)
    assert sides["left"] == sides["right"] == perplexity(model, processor, TEXTS)


def test_storm_reads_plain_text_exactly_as_its_backbone_does(storm_and_processor, plain):
    assert perplexity(*storm_and_processor, TEXTS) == perplexity(*plain, TEXTS)


def test_perplexity_of_every_backbone_is_that_of_single_texts(storm):
    expected = perplexity_by_hand(storm, Letters(), TEXTS)
    assert perplexity(storm, Letters(), TEXTS) == pytest.approx(expected, rel=1e-4)


def test_perplexity_of_a_plain_language_model_is_measured_too():
    tokenizer = tiny_tokenizer()
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes)).eval()
    enlarge_weights(model)
    assert perplexity(model, tokenizer, TEXTS) == pytest.approx(perplexity_by_hand(model, tokenizer, TEXTS), rel=1e-5)


def test_long_text_is_cut_into_windows(storm_and_processor):
    model, processor = storm_and_processor
    ids = processor.tokenizer.encode(TEXTS[2])
    decoded = [processor.tokenizer.decode(ids[start : start + 6]) for start in range(0, len(ids), 6)]
    windows = [text for text in decoded if len(processor.tokenizer.encode(text)) > 1]
    found = perplexity(model, processor, [TEXTS[2]], max_length=6)
    assert found == pytest.approx(perplexity(model, processor, windows), rel=1e-5)
    assert found != pytest.approx(perplexity(model, processor, [TEXTS[2]]), rel=1e-3)


def test_control_tokens_in_a_text_are_text(storm_and_processor):
    assert math.isfinite(perplexity(*storm_and_processor, ["Here is <|latent_start|><|latent|> and <|video_pad|>."]))


@pytest.mark.parametrize("texts", [[], [""]])
def test_texts_without_anything_to_predict_are_refused(storm_and_processor, texts):
    with pytest.raises(DatasetError, match="Expected texts of two tokens or more, got"):
        perplexity(*storm_and_processor, texts)


def test_answers_of_a_batch_are_those_of_single_prompts(storm_and_processor):
    together = answer_plainly(*storm_and_processor, PROMPTS, 12)
    assert together == [answer_plainly(*storm_and_processor, [prompt], 12)[0] for prompt in PROMPTS]
    assert together == answer_plainly(*storm_and_processor, PROMPTS, 12, batch_size=2)
    assert len(set(together)) == len(PROMPTS)


def test_storm_answers_plain_prompts_exactly_as_its_backbone_does(storm_and_processor, plain):
    assert answer_plainly(*storm_and_processor, PROMPTS, 12) == answer_plainly(*plain, PROMPTS, 12)


def test_answers_do_not_depend_on_the_latents(storm_and_processor, plain):
    model, processor = storm_and_processor
    longer = add_latent_tokens(tiny_processor(), 7)
    with torch.no_grad():
        model.model.latent_projector.layers[1].weight.mul_(-5)
    assert answer_plainly(model, longer, PROMPTS, 12) == answer_plainly(*plain, PROMPTS, 12)


def test_batches_are_counted(storm_and_processor):
    counted = []
    answer_plainly(*storm_and_processor, PROMPTS, 2, batch_size=2, on_batch=counted.append)
    assert counted == [2, 1]


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_in_the_mode_it_came_in(storm_and_processor, training):
    model, processor = storm_and_processor
    model.train(training)
    perplexity(model, processor, TEXTS)
    answer_plainly(model, processor, PROMPTS, 1)
    assert model.training is training
    model.eval()
