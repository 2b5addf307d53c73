"""A run writes how it asked, and refuses a processor that cannot ask so."""

import logging

import pytest
from datasets import Dataset, IterableDataset
from tests.tiny import QWEN_CHAT_TEMPLATE
from tests.training.tiny_training import QUIET
from tests.training.tiny_videos import load_tiny, write_thoughts
from transformers import AutoProcessor

from storm_hf import StormAlignConfig, StormAlignTrainer, StormAnswerConfig, StormAnswerTrainer
from storm_hf.errors import ConfigurationError, DatasetError, PromptError
from storm_hf.evaluation import load_checkpoint
from storm_hf.inputs.features import cache_video_features
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model import PromptRecord
from storm_hf.model.processing_storm import find_differences, find_misfit, written_latents
from storm_hf.training.arguments import question_forms
from storm_hf.training.loading import load_rows


STAGES = {"align": (StormAlignTrainer, StormAlignConfig), "answer": (StormAnswerTrainer, StormAnswerConfig)}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"))))["train"]


@pytest.fixture
def pair(qwen_checkpoint):
    return load_tiny(qwen_checkpoint, 4)


def trainer_of(stage, model, processor, rows, folder, **settings):
    trainer, config = STAGES[stage]
    of_stage = {"whitening_rank": 4} if stage == "align" else {}
    args = config(str(folder), **{**QUIET, "max_steps": 1, **of_stage, **settings})
    return trainer(model=model, args=args, train_dataset=rows, processing_class=processor)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("settings", "record"),
    [
        ({}, PromptRecord(4, "words", ("options",), num_frames=2)),
        ({"num_latents": 3}, PromptRecord(3, "words", ("options",), num_frames=2)),
        ({"question_style": "letters"}, PromptRecord(4, "letters", ("options",), num_frames=2)),
        ({"question_style": "none"}, PromptRecord(4, "none", ("open",), num_frames=2)),
    ],
)
def test_run_saves_how_it_asked(stage, settings, record, pair, rows, tmp_path):
    model, processor = pair
    sampler = processor.video_processor
    sampler.do_sample_frames, sampler.num_frames, sampler.fps = True, 2, None
    trainer_of(stage, model, processor, rows, tmp_path, **settings).save_model()
    loaded, asks = load_checkpoint(str(tmp_path))
    assert loaded.config.prompt_record == record
    assert find_differences(asks, loaded.config) == []
    assert PromptEncoder(asks, loaded.config, loaded.config.num_latents).question_style == record.question_style


def test_next_stage_goes_on_as_the_first_one_asked(pair, rows, tmp_path, caplog):
    trainer_of("align", *pair, rows, tmp_path, question_style="letters")
    trainer = trainer_of("answer", *pair, rows, tmp_path)
    assert trainer.data_collator.prompts.question_style == "letters"
    assert pair[0].config.prompt_record.question_style == "letters"
    trainer_of("answer", *pair, rows, tmp_path, question_style="words")
    assert "trained with question_style 'letters' and goes on with 'words'" in caplog.text


def test_direct_answers_keep_the_length_of_the_model(pair, rows, tmp_path):
    trainer_of("answer", *pair, rows, tmp_path, num_latents=0, question_style="letters")
    record = PromptRecord(4, "letters", ("options",), max_frames=32, has_latents=False)
    assert pair[0].config.prompt_record == record
    assert written_latents(pair[1]) == 4


@pytest.mark.parametrize(
    ("runs", "caveats"),
    [((0,), 1), ((4,), 0), ((0, 4), 0), ((4, 0), 0)],
    ids=["direct", "latents", "then latents", "then direct"],
)
def test_latents_that_no_run_trained_are_a_warning(runs, caveats, pair, rows, tmp_path, caplog):
    for num_latents in runs:
        trainer_of("answer", *pair, rows, tmp_path, num_latents=num_latents).save_model()
    model, processor = load_checkpoint(str(tmp_path))
    assert find_differences(processor, model.config) == []
    logging.Logger.warning_once.cache_clear()
    PromptEncoder(processor, model.config, 0)([rows[0]])
    assert "never trained" not in caplog.text
    for _ in range(2):
        PromptEncoder(processor, model.config, 4)([rows[0]])
    assert caplog.text.count("never trained") == caveats


@pytest.mark.parametrize("stage", STAGES)
def test_processor_of_the_backbone_gets_its_latent_tokens(stage, pair, rows, tmp_path, qwen_checkpoint):
    plain = AutoProcessor.from_pretrained(qwen_checkpoint)
    trainer = trainer_of(stage, pair[0], plain, rows, tmp_path)
    assert find_misfit(plain, pair[0].config) is None
    block = trainer.data_collator([rows[0]])["input_ids"][0].tolist()
    assert block.count(pair[0].config.latent_token_id) == 4


@pytest.mark.parametrize("stage", STAGES)
def test_processor_of_another_vocabulary_is_refused(stage, pair, rows, tmp_path, qwen_checkpoint):
    other = AutoProcessor.from_pretrained(qwen_checkpoint)
    other.tokenizer.add_tokens(["<|more|>"], special_tokens=True)
    with pytest.raises(ConfigurationError, match="latent tokens"):
        trainer_of(stage, pair[0], other, rows, tmp_path)


def test_template_of_trl_gets_the_block_back(pair, rows, tmp_path):
    file = tmp_path / "stock.jinja"
    file.write_text(QWEN_CHAT_TEMPLATE + "{# another #}")
    trainer = trainer_of("answer", *pair, rows, tmp_path, chat_template_path=str(file))
    assert "another" in pair[1].chat_template
    assert trainer.data_collator([rows[0]])["input_ids"][0].tolist().count(pair[0].config.latent_token_id) == 4


def test_template_that_loses_its_block_ends_the_run(pair, rows, tmp_path):
    trainer = trainer_of("answer", *pair, rows, tmp_path)
    pair[1].chat_template = QWEN_CHAT_TEMPLATE
    with pytest.raises(PromptError, match="chat template writes no latent block"):
        trainer.train()


def test_prompts_of_another_length_are_refused(pair, rows):
    model, processor = pair
    processor.chat_template = processor.chat_template.replace("range(num_latents)", "range(num_latents - 1)")
    with pytest.raises(PromptError, match=r"latent"):
        PromptEncoder(processor, model.config, 4)([rows[0]])


@pytest.mark.parametrize(("cached", "asked"), [("words", "letters"), ("letters", "words"), (None, "letters")])
def test_cached_prompts_of_another_style_are_refused(cached, asked, pair, rows):
    own = {} if cached is None else {"question_style": cached}
    features = cache_video_features(rows.select(range(2)), *pair, **own)
    with pytest.raises(DatasetError, match=f"The row 'row-0': .*question_style '{cached or 'words'}', but '{asked}'"):
        PromptEncoder(pair[1], pair[0].config, 4, asked)([features[0]])
    same = PromptEncoder(pair[1], pair[0].config, 4, cached or "words")
    assert same([features[0]])["input_ids"].tolist() == same([rows[0]])["input_ids"].tolist()


@pytest.mark.parametrize("num_latents", [0, 2, 4])
def test_cached_prompts_serve_any_length(num_latents, pair, rows):
    features = cache_video_features(rows.select(range(1)), *pair)
    encode = PromptEncoder(pair[1], pair[0].config, num_latents)
    assert encode([features[0]])["input_ids"].tolist() == encode([rows[0]])["input_ids"].tolist()


@pytest.mark.parametrize("store", [Dataset.from_list, list])
@pytest.mark.parametrize(
    ("options", "style", "forms"),
    [
        ([["a", "b"], ["a", "b"]], "words", ("options",)),
        ([["a", "b"], []], "letters", ("options", "open")),
        ([["a", "b"], None], "words", ("options", "open")),
        ([None, []], "words", ("open",)),
        ([["a", "b"], None], "none", ("open",)),
    ],
)
def test_forms_are_read_off_the_rows(options, style, forms, store):
    assert question_forms(store([{"question": "?", "options": each} for each in options]), style) == forms


@pytest.mark.parametrize("style", ["words", "none"])
@pytest.mark.parametrize(
    ("styles", "forms"),
    [(["words", "none", "letters"], ("options", "open")), (["words", "letters"], ("options",)), (["none"], ("open",))],
)
def test_complete_questions_say_in_which_form_they_are(styles, forms, style):
    rows = [{"question": "?", "options": [], "choice_style": each} for each in styles]
    assert question_forms(Dataset.from_list(rows), style) == question_forms(rows, style) == forms


@pytest.mark.parametrize(
    ("rows", "forms"),
    [
        (Dataset.from_list([{"question": "?"}]), ("open",)),
        (Dataset.from_list([{"prompt": "?"}]), ()),
        (Dataset.from_list([{"number": 1}]), ()),
        (IterableDataset.from_generator(lambda: iter([{"question": "?"}])), ()),
    ],
)
def test_forms_that_nobody_can_know_stay_unknown(rows, forms):
    assert question_forms(rows, "words") == forms


@pytest.mark.parametrize(
    ("written", "asked", "is_told"), [(2, None, True), (2, 2, False), (0, None, True), (4, None, False)]
)
def test_generation_tells_once_of_another_length(written, asked, is_told, pair, rows, caplog):
    model, processor = pair
    logging.Logger.warning_once.cache_clear()
    inputs = PromptEncoder(processor, model.config, written)([rows[0]])
    with caplog.at_level(logging.WARNING):
        logging.getLogger("transformers").propagate = True
        for _ in range(2):
            model.generate(**inputs, num_latents=asked, max_new_tokens=1)
    assert caplog.text.count("latents, but the model has num_latents=4") == is_told
