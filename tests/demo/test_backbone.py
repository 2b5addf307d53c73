import numpy as np
import pytest
from transformers import set_seed

from storm_hf.demo import demo_recipe
from storm_hf.demo.backbone import PATCH_PX, tiny_config, tiny_processor
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.inputs.wording import split_words
from storm_hf.model import StormForConditionalGeneration
from storm_hf.video import write_video
from storm_hf.worlds import WORLD_NAMES, make_world


NUM_LATENTS = 6


@pytest.fixture(params=WORLD_NAMES, scope="module")
def recipe(request):
    return demo_recipe(request.param)


@pytest.fixture(scope="module")
def world(recipe):
    return make_world(recipe.world, **recipe.knobs)


@pytest.fixture(scope="module")
def processor(recipe, world):
    return tiny_processor(world.vocabulary, NUM_LATENTS, recipe.frame_pixels)


@pytest.fixture(scope="module")
def config(processor):
    return tiny_config(processor, NUM_LATENTS)


def ids_of(processor, text):
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_every_word_of_the_world_is_one_token_alone_and_after_a_space(world, processor):
    spelled = [text for word in world.vocabulary for text in (word, f" {word}") if len(ids_of(processor, text)) != 1]
    assert spelled == []


def test_texts_of_the_world_cost_one_token_a_word(world, processor):
    episode = world.describe(0)
    for text in (episode.terse_chain, episode.chain_of_thought, episode.clip_caption, episode.thought_caption):
        assert len(ids_of(processor, text)) == len(split_words(text))


@pytest.mark.parametrize(
    "text", ["Which cup?", "naïve 球 🎈 — ½", "", "\ttab\n\nand  spaces ", "\N{COMBINING ACUTE ACCENT}\u200d\x00"]
)
def test_any_text_survives_the_round_trip(processor, text):
    assert processor.tokenizer.decode(ids_of(processor, text), clean_up_tokenization_spaces=False) == text


def test_frames_of_the_world_keep_their_aspect_and_get_the_pixels_of_the_recipe(
    recipe, world, processor, config, tmp_path
):
    episode = world.episode(0)
    clip = write_video(tmp_path / "clip.mp4", episode.clip, fps=episode.fps)
    row = {"video": str(clip), "question": episode.question, "options": list(episode.options)}
    inputs = PromptEncoder(processor, config, NUM_LATENTS)([row])
    time, height, width = inputs["video_grid_thw"][0].tolist()
    num_frames, drawn_height, drawn_width, _ = episode.clip.shape
    assert time == num_frames / 2
    assert height * width * PATCH_PX**2 == recipe.frame_pixels
    assert width / height == drawn_width / drawn_height


def test_prompt_ends_in_a_latent_block_of_the_models_ids(processor, config):
    message = [{"role": "user", "content": "where ?"}]
    text = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    block = [config.latent_start_token_id, *[config.latent_token_id] * NUM_LATENTS, config.latent_end_token_id]
    assert ids_of(processor, text)[-len(block) :] == block
    assert len({*block, config.vlm_config.video_token_id, config.vlm_config.image_token_id}) == 5


def test_model_has_fewer_than_a_million_parameters(processor, config):
    model = StormForConditionalGeneration(config)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert model.get_input_embeddings().num_embeddings == len(processor.tokenizer)


def test_weights_follow_the_seed(config):
    weights = []
    for seed in (0, 0, 1):
        set_seed(seed)
        weights.append(StormForConditionalGeneration(config).lm_head.weight.detach().numpy())
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_order_of_the_words_does_not_matter():
    one, other = (tiny_processor(words, NUM_LATENTS, 1024) for words in (["red", "cup", "red"], ["cup", "red"]))
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()


def test_rotary_base_of_a_recipe_reaches_the_backbone(processor):
    config = tiny_config(processor, NUM_LATENTS, rope_theta=4.0)
    assert config.get_text_config().rope_parameters["rope_theta"] == 4.0
