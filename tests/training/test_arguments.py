"""Trainers take what TRL's take: a name for a model, no processor, and a sentence for what they cannot use."""

import inspect

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import PeftModel
from tests.tiny import tiny_processor, tiny_storm, tiny_tokenizer
from tests.training.tiny_training import QUIET, logged
from tests.training.tiny_videos import load_tiny, write_thoughts
from torch.utils.data import TensorDataset
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig, set_seed
from trl import SFTConfig, SFTTrainer

from storm_hf import StormAlignConfig, StormAlignTrainer, StormAnswerConfig, StormAnswerTrainer, storm_processor
from storm_hf.errors import ConfigurationError
from storm_hf.model import StormForConditionalGeneration
from storm_hf.training.arguments import refuse_arguments
from storm_hf.training.loading import StormModelConfig, load_rows, load_storm


# `peft/peft_model.py` of PEFT 0.21.2 reads a name that transformers deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

STAGES = {"align": (StormAlignTrainer, StormAlignConfig), "answer": (StormAnswerTrainer, StormAnswerConfig)}
PROMPT = [{"role": "user", "content": [{"type": "text", "text": "Which cup?"}]}]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"))))["train"]


@pytest.fixture
def train(rows, tmp_path):
    """Train a stage for two steps; `settings` are those of its configuration."""

    def run(stage, settings=None, **given):
        trainer_class, config_class = STAGES[stage]
        rank = {"whitening_rank": 4} if stage == "align" else {}
        args = config_class(str(tmp_path / "run"), **{**QUIET, "max_steps": 2, **rank, **(settings or {})})
        trainer = trainer_class(**{"args": args, "train_dataset": rows, **given})
        trainer.train()
        return trainer

    return run


@pytest.mark.parametrize("trainer", [StormAlignTrainer, StormAnswerTrainer])
def test_parameters_begin_like_those_of_trl(trainer):
    expected = list(inspect.signature(SFTTrainer.__init__).parameters)
    parameters = inspect.signature(trainer.__init__).parameters
    assert list(parameters)[: len(expected)] == expected
    assert all(
        parameter.annotation is not inspect.Parameter.empty for name, parameter in parameters.items() if name != "self"
    )
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("source", ["plain", "storm", "adapter"])
def test_model_by_its_name_trains_as_the_scripts_train_it(stage, source, qwen_checkpoint, train, tmp_path):
    name = {"plain": lambda: qwen_checkpoint, "storm": saved_storm, "adapter": saved_adapter}[source]
    name = str(name() if source == "plain" else name(qwen_checkpoint, tmp_path))
    by_name = train(stage, {"num_latents": 3}, model=name)
    set_seed(by_name.args.seed)
    model, processor = load_storm(StormModelConfig(model_name_or_path=name), 3)
    by_script = train(stage, {"num_latents": 3}, model=model, processing_class=processor)
    assert logged(by_name, "loss") == logged(by_script, "loss")
    assert by_name.model.dtype == torch.float32


def saved_storm(checkpoint, folder):
    model, processor = load_tiny(checkpoint, 3)
    model.save_pretrained(folder / "storm")
    processor.save_pretrained(folder / "storm")
    return folder / "storm"


def saved_adapter(checkpoint, folder):
    from storm_hf.training.peft import default_lora

    model, processor = load_tiny(checkpoint, 3)
    trainer = StormAnswerTrainer(
        model=model,
        args=StormAnswerConfig(str(folder / "adapter"), **{**QUIET, "max_steps": 1}),
        train_dataset=load_rows(str(write_thoughts(folder / "rows", 2)))["train"],
        processing_class=processor,
        peft_config=default_lora(model, r=2),
    )
    trainer.train()
    trainer.save_model()
    return folder / "adapter"


def test_adapter_by_its_name_goes_on_where_that_is_asked_for(qwen_checkpoint, train, tmp_path):
    name = str(saved_adapter(qwen_checkpoint, tmp_path))
    trainer = train("answer", {"model_init_kwargs": {"use_peft": True}}, model=name)
    assert isinstance(trainer.model, PeftModel)


def test_model_by_its_name_takes_the_options_of_the_scripts(qwen_checkpoint, train):
    options = {"latent_projector": "mlp", "num_frames": 2, "attn_implementation": "eager"}
    trainer = train("answer", {"model_init_kwargs": options}, model=str(qwen_checkpoint))
    assert trainer.model.config.latent_projector == "mlp"
    assert trainer.processing_class.video_processor.num_frames == 2
    with pytest.raises(ConfigurationError, match="`model_init_kwargs` takes .* got device_map"):
        train("answer", {"model_init_kwargs": {"device_map": "auto"}}, model=str(qwen_checkpoint))


@pytest.mark.parametrize("stage", STAGES)
def test_processor_is_loaded_by_the_name_of_the_model(stage, qwen_checkpoint, train):
    given, _ = load_tiny(qwen_checkpoint, 3)
    without = train(stage, model=given)
    model, processor = load_tiny(qwen_checkpoint, 3)
    assert logged(without, "loss") == logged(train(stage, model=model, processing_class=processor), "loss")


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL's own default
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"model": lambda path: tiny_storm("qwen2_5_vl")},
            "Expected `processing_class`, since no processor was found",
        ),
        ({"model": lambda path: AutoModelForImageTextToText.from_pretrained(path)}, "Expected `model` to be a STORM"),
        ({"processing_class": lambda path: tiny_tokenizer()}, "Expected `processing_class` to be a processor"),
        ({"args": lambda path: SFTConfig("unused", use_cpu=True, bf16=False)}, "Expected `args` to be a Storm"),
        ({"formatting_func": lambda path: str}, "`formatting_func` is not used"),
        ({"quantization_config": lambda path: BitsAndBytesConfig()}, "`quantization_config` is not used"),
        ({"train_dataset": lambda path: None}, "Expected `train_dataset`, got none"),
        ({"train_dataset": lambda path: Dataset.from_list([])}, "got a `train_dataset` without any"),
        (
            {"train_dataset": lambda path: DatasetDict(dev=Dataset.from_list([{"a": 1}]))},
            r"rows of one split as `train_dataset`, got the splits dev. Take one of them, such as `dataset\['dev'\]`",
        ),
        ({"train_dataset": lambda path: "data/mine"}, "got a str. `load_rows\\(name\\)` gives the splits"),
        ({"train_dataset": lambda path: [{"a": 1}]}, "got a list. .* `Dataset.from_list\\(rows\\)` makes one"),
        ({"train_dataset": lambda path: TensorDataset(torch.ones(1))}, "got a TensorDataset. .* makes one of rows"),
    ],
)
def test_what_a_trainer_cannot_use_is_refused_in_a_sentence(stage, given, message, qwen_checkpoint, rows, tmp_path):
    trainer_class, config_class = STAGES[stage]
    usual = {"model": lambda path: load_tiny(path, 3)[0], "args": lambda path: config_class(str(tmp_path), **QUIET)}
    arguments = {name: make(qwen_checkpoint) for name, make in (usual | given).items()}
    with pytest.raises(ConfigurationError, match=message):
        trainer_class(**{"train_dataset": rows} | arguments)


def test_several_gpus_in_one_process_are_refused(tmp_path):
    args = StormAnswerConfig(str(tmp_path), **QUIET)
    args._n_gpu = 2
    with pytest.raises(ConfigurationError, match="sees 2 GPUs.*accelerate launch"):
        refuse_arguments(args, StormAnswerConfig)


# --- one K -----------------------------------------------------------------------------------------------------------


def placeholders(processor):
    return processor.apply_chat_template(PROMPT, add_generation_prompt=True, tokenize=False).count("<|latent|>")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("asked", "of_processor", "expected"), [(2, 4, 2), (None, 7, 4), (None, 4, 4)])
def test_model_and_processor_agree_on_the_number_of_latents(
    stage, asked, of_processor, expected, qwen_checkpoint, train
):
    model, _ = load_tiny(qwen_checkpoint, 4)
    processor = storm_processor(qwen_checkpoint, of_processor)
    trainer = train(stage, {"num_latents": asked}, model=model, processing_class=processor)
    trainer.save_model()
    saved = StormForConditionalGeneration.from_pretrained(trainer.args.output_dir)
    assert (model.config.num_latents, saved.config.num_latents) == (expected, expected)
    assert placeholders(processor) == placeholders(AutoProcessor.from_pretrained(trainer.args.output_dir)) == expected


def test_direct_answers_leave_the_number_of_latents_as_it_is(qwen_checkpoint, train):
    model, processor = load_tiny(qwen_checkpoint, 4)
    train("answer", {"num_latents": 0}, model=model, processing_class=processor)
    assert (model.config.num_latents, placeholders(processor)) == (4, 4)


@pytest.mark.parametrize("settings", [{}, {"chat_template_path": "stock"}])
def test_template_without_a_latent_block_gets_one(settings, qwen_checkpoint, train, tmp_path):
    model, processor = load_tiny(qwen_checkpoint, 3)
    stock = AutoProcessor.from_pretrained(qwen_checkpoint)
    if settings:
        (tmp_path / "stock.jinja").write_text(stock.chat_template)
        settings = {"chat_template_path": str(tmp_path / "stock.jinja")}
    else:
        processor = stock
    made = []
    model.model.latent_projector.register_forward_hook(lambda *_: made.append(1))
    train("answer", settings, model=model, processing_class=processor)
    assert len(made) == 2 * 3
    assert placeholders(processor) == 3


def test_processor_with_other_latent_tokens_is_refused(qwen_checkpoint, train):
    model, processor = load_tiny(qwen_checkpoint, 3)
    other = tiny_processor()
    other.tokenizer.add_tokens(["one more"])
    with pytest.raises(ConfigurationError, match="Expected a processor whose latent tokens have the ids"):
        train("answer", model=model, processing_class=other)
