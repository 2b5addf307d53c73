"""The prompt record: read and written with configuration and processor, and compared between the two."""

import copy
import json

import pytest
from tests.tiny import QWEN_CHAT_TEMPLATE, tiny_processor, tiny_storm
from transformers import AutoProcessor

from storm_hf.errors import ConfigurationError
from storm_hf.model import PromptRecord, StormConfig, add_latent_tokens
from storm_hf.model.processing_storm import (
    LATENT_TOKENS,
    MAX_FRAMES,
    find_differences,
    find_misfit,
    frame_sampling,
    thinking_switches,
    write_record,
    written_latents,
)


LETTERS = PromptRecord(3, "letters", ("options",), num_frames=6)
HEAD = "<|im_start|>assistant\n"
# Templates by how they think aloud: what they write after the header with and without.
ALOUD = {
    "qwen3_5": "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- else %}{{- '<think>\\n' }}{%- endif %}",
    "glm": "{{- '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}",
    "kimi": "{%- if thinking is defined and thinking is false -%}<think></think>{%- else -%}<think>{%- endif -%}",
    "asked for": "{% if enable_thinking %}<think>\n{% endif %}",
}
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' %}"
    "{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QUESTION = [{"role": "user", "content": [{"type": "text", "text": "Where?"}]}]


def processor_with(template=QWEN_CHAT_TEMPLATE):
    processor = tiny_processor()
    processor.chat_template = template
    return processor


def render(processor, **template):
    return processor.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True, **template)


def block(num_latents):
    start, latent, end = LATENT_TOKENS
    return start + latent * num_latents + end


def config_of(processor, num_latents=3, **settings):
    ids = processor.tokenizer.convert_tokens_to_ids(list(LATENT_TOKENS))
    names = ("latent_start_token_id", "latent_token_id", "latent_end_token_id")
    return StormConfig(
        vlm_config=tiny_storm("qwen2_5_vl").config.vlm_config,
        num_latents=num_latents,
        **{**dict(zip(names, ids, strict=True)), **settings},
    )


@pytest.fixture
def pair():
    """A processor and a configuration that agree, as a run leaves them."""
    processor = add_latent_tokens(tiny_processor(), 8)
    processor.video_processor.do_sample_frames, processor.video_processor.num_frames = True, 6
    config = config_of(processor, 8)
    write_record(LETTERS, config, processor)
    return processor, config


@pytest.mark.parametrize("template", ALOUD)
def test_templates_do_not_think_aloud_unless_asked(template):
    stock = processor_with(QWEN_CHAT_TEMPLATE.replace(HEAD + "{% endif %}", HEAD + ALOUD[template] + "{% endif %}"))
    expected = {thinks: render(stock, enable_thinking=thinks, thinking=thinks) for thinks in (False, True)}
    assert expected[True] != expected[False]
    processor = add_latent_tokens(copy.deepcopy(stock), 2)
    assert render(processor) == expected[False] + block(2)
    assert render(processor, enable_thinking=None, thinking=None) == expected[False] + block(2)
    assert render(processor, enable_thinking=True, thinking=True) == expected[True] + block(2)
    once = processor.chat_template
    assert add_latent_tokens(processor, 2).chat_template == once


@pytest.mark.parametrize("template", [QWEN_CHAT_TEMPLATE, SMOLVLM_TEMPLATE, f"\n {QWEN_CHAT_TEMPLATE}"])
def test_other_templates_are_kept_as_they_are(template):
    stock = render(processor_with(template))
    processor = add_latent_tokens(processor_with(template), 2)
    assert processor.chat_template.startswith(template)
    assert render(processor) == stock + block(2)


@pytest.mark.parametrize("space", ["", "\n", " \n  "])
def test_space_before_a_template_that_thinks_aloud_is_kept(space):
    template = space + QWEN_CHAT_TEMPLATE.replace(HEAD, HEAD + ALOUD["glm"])
    expected = render(processor_with(template), enable_thinking=False)
    assert render(add_latent_tokens(processor_with(template), 2)) == expected + block(2)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{% if enable_thinking %}", ["enable_thinking"]),
        ("{% if thinking is false %}", ["thinking"]),
        ("{{ message.thinking }}{{ message['thinking'] }}", []),
        (QWEN_CHAT_TEMPLATE, []),
    ],
)
def test_switches_of_thinking_are_variables(template, names):
    assert thinking_switches(template) == names


def test_record_stays_with_model_and_processor(pair, tmp_path):
    processor, config = pair
    processor.save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.chat_template == processor.chat_template
    assert StormConfig.from_pretrained(tmp_path).prompt_record == LETTERS
    assert find_differences(loaded, StormConfig.from_pretrained(tmp_path)) == []
    assert json.loads((tmp_path / "config.json").read_text())["storm_prompt"] == {
        "question_style": "letters",
        "question_forms": ["options"],
        "thinking": False,
        "num_frames": 6,
    }


def test_another_length_keeps_the_record_of_a_template(pair):
    processor, _ = pair
    before = processor.chat_template
    assert written_latents(add_latent_tokens(processor, 5)) == 5
    assert '"question_style": "letters"' in processor.chat_template
    assert add_latent_tokens(processor, 3).chat_template == before


def test_checkpoint_without_a_record_is_asked_in_words():
    processor = add_latent_tokens(tiny_processor(), 3)
    config = config_of(processor)
    assert config.prompt_record == PromptRecord(3)
    assert find_misfit(processor, config) is None
    assert find_differences(processor, config) == []


def test_record_of_a_later_version_is_read_as_far_as_it_is_known():
    saved = {"question_style": "letters", "tone": "kind", "num_frames": None}
    assert PromptRecord.from_dict(4, saved) == PromptRecord(4, "letters")


@pytest.mark.parametrize(
    ("saved", "message"),
    [({"question_style": "songs"}, "must be words, letters or none"), ({"question_forms": ["rhymed"]}, "rhymed")],
)
def test_what_is_no_record_is_refused(saved, message):
    with pytest.raises(ConfigurationError, match=message):
        StormConfig(vlm_config=tiny_storm("qwen2_5_vl").config.vlm_config, storm_prompt=saved)


def plain_template(processor, config):
    processor.chat_template = QWEN_CHAT_TEMPLATE


def other_ids(processor, config):
    config.latent_token_id, config.latent_end_token_id = config.latent_end_token_id, config.latent_token_id


@pytest.mark.parametrize(
    ("change", "message"), [(plain_template, "writes no latent block"), (other_ids, "have the ids")]
)
def test_processor_that_cannot_write_the_prompts_is_told(change, message, pair):
    change(*pair)
    assert message in find_misfit(*pair)
    assert "add_latent_tokens(processor, 3)" in find_misfit(*pair)


def test_processor_without_latent_tokens_is_told(pair):
    assert "(None, None, None)" in find_misfit(tiny_processor(), pair[1])


def test_model_of_direct_answers_needs_no_block(pair):
    processor, config = pair
    config.num_latents = 0
    plain_template(processor, config)
    assert find_misfit(processor, config) is None


def set_length(processor, config):
    add_latent_tokens(processor, 8)


def set_style(processor, config):
    config.storm_prompt = {**config.storm_prompt, "question_style": "words"}


def set_frames(processor, config):
    processor.video_processor.num_frames = 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_length, "writes 8 latents, but the model has num_latents=3"),
        (set_style, "question_style is 'letters', but the model was trained with 'words'"),
        (set_frames, "reads frames by {'num_frames': 16}, but the model was trained with {'num_frames': 6}"),
    ],
)
def test_each_difference_is_told_in_a_sentence(change, message, pair):
    change(*pair)
    [difference] = find_differences(*pair)
    assert message in difference


@pytest.mark.parametrize(
    ("settings", "sampling"),
    [
        ({"do_sample_frames": False, "num_frames": 8, "fps": 2}, {"max_frames": MAX_FRAMES}),
        ({"do_sample_frames": True, "num_frames": 8, "fps": None}, {"num_frames": 8}),
        (
            {"do_sample_frames": True, "fps": 2, "min_frames": 4, "max_frames": 768},
            {"fps": 2, "min_frames": 4, "max_frames": 768},
        ),
        (
            {"do_sample_frames": True, "fps": 2, "min_frames": None, "max_frames": None},
            {"fps": 2, "max_frames": MAX_FRAMES},
        ),
        ({"do_sample_frames": True}, {"max_frames": MAX_FRAMES}),
    ],
)
def test_sampling_of_frames_is_read_off_the_video_processor(settings, sampling):
    video_processor = type("Sampler", (), {"num_frames": None, "fps": None, **settings})
    assert frame_sampling(video_processor) == sampling
