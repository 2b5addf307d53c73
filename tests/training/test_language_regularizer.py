"""Plain rows beside the rows of a stage: weighted, drawn alike however a run is cut, and held to the model before."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tests.tiny import tiny_storm, tiny_tokenizer
from tests.training.processes import finish_together, meet, start
from tests.training.tiny_training import NUM_LATENTS, STAGES, logged, plain_rows, tiny_trainer
from tests.training.tiny_videos import load_tiny
from torch.testing import assert_close

from storm_hf import StormAlignConfig, record_language
from storm_hf.errors import ConfigurationError
from storm_hf.training.language_loss import language_kl, stack_language, supervised_logits
from storm_hf.training.language_regularizer import RECORD_FILE, LanguageRegularizer


# `peft/peft_model.py` of PEFT 0.21.2 reads a name that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

KEPT = {"keep_language": 2.0, "language_weight": 0.5, "language_batch_size": 2}


def keeping_trainer(stage, folder, rows=None, **settings):
    rows = plain_rows() if rows is None else rows
    return tiny_trainer(stage, "qwen2_5_vl", folder, language_dataset=rows, **{**KEPT, **settings})


def plain_logits(model):
    rows = [plain_rows().with_format("torch")[position] for position in range(7)]
    with torch.no_grad():
        return supervised_logits(model.eval(), stack_language(rows, model.device))[0]


@pytest.mark.parametrize("stage", STAGES)
def test_divergence_and_its_gradient_are_zero_at_the_first_step(stage, tmp_path):
    trainers = [
        tiny_trainer(stage, "qwen2_5_vl", tmp_path / "without"),
        keeping_trainer(stage, tmp_path / "with", keep_language=5.0, language_weight=0.0),
    ]
    for trainer in trainers:
        trainer.train()
    without, kept = trainers
    assert logged(kept, "language_kl")[0] == pytest.approx(0, abs=1e-6)
    assert logged(kept, "language_kl")[1] > 1e-4
    for name in ("loss", "grad_norm"):
        assert logged(kept, name)[0] == pytest.approx(logged(without, name)[0], rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_loss_is_that_of_the_stage_and_the_weighted_losses_of_plain_rows(stage, tmp_path):
    without = tiny_trainer(stage, "qwen2_5_vl", tmp_path / "without", max_steps=1)
    kept = keeping_trainer(stage, tmp_path / "with", max_steps=1)
    for trainer in (without, kept):
        trainer.train()
    expected = logged(without, "loss")[0] + 0.5 * logged(kept, "language_loss")[0]
    assert logged(kept, "loss")[0] == pytest.approx(expected, rel=1e-5)
    for name in ("answer_loss", "align_loss", "latent_cosine", "latent_retrieval", "mean_token_accuracy"):
        assert logged(kept, name)[:1] == logged(without, name)[:1], name


@pytest.mark.parametrize("stage", STAGES)
def test_evaluation_knows_no_plain_rows(stage, tmp_path):
    trainers = [tiny_trainer(stage, "qwen2_5_vl", tmp_path / "without"), keeping_trainer(stage, tmp_path / "with")]
    losses = [trainer.evaluate(trainer.train_dataset)["eval_loss"] for trainer in trainers]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("adapter", "rate"), [(None, 3e-3), (LoraConfig(r=4), 3e-2)], ids=["whole", "LoRA"])
def test_plain_predictions_move_less(stage, adapter, rate, tmp_path):
    before = plain_logits(tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS)).softmax(dim=-1)
    kept = {"language_dataset": plain_rows(), "keep_language": 20.0, "language_batch_size": 7}
    moved = []
    for name, settings in {"without": {}, "with": kept}.items():
        settings = {"max_steps": 15, "learning_rate": rate, "peft_config": adapter, **settings}
        trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path / name, **settings)
        trainer.train()
        moved.append((plain_logits(trainer.model).softmax(dim=-1) - before).abs().mean())
    assert moved[1] < 0.7 * moved[0]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_accumulated_batches_equal_one_batch(stage, batch_size, tmp_path):
    runs = []
    for size in (4, batch_size):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        runs.append(keeping_trainer(stage, tmp_path / str(size), num_rows=8, language_batch_size=size, **settings))
        runs[-1].train()
    whole, accumulated = runs
    assert_close(logged(accumulated, "loss"), logged(whole, "loss"), rtol=1e-5, atol=1e-5)
    assert_close(logged(accumulated, "grad_norm"), logged(whole, "grad_norm"), rtol=1e-4, atol=1e-5)


def train_as_rank(rank, stage, folder):
    """One of two processes that train together, each on half of the rows."""
    meet(rank, 2, folder / "meeting-point")
    trainer = keeping_trainer(stage, folder, num_rows=8, language_batch_size=1)
    trainer.train()
    if rank == 0:
        names = ("loss", "grad_norm")
        (folder / "log.json").write_text(json.dumps({name: logged(trainer, name) for name in names}))
    trainer.end()


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one(stage, tmp_path):
    assert finish_together([start(train_as_rank, rank, stage, tmp_path) for rank in (0, 1)]) == [0, 0]
    alone = keeping_trainer(stage, tmp_path / "alone", num_rows=8, per_device_train_batch_size=4)
    alone.train()
    together = json.loads((tmp_path / "log.json").read_text())
    assert_close(together["loss"], logged(alone, "loss"), rtol=1e-5, atol=1e-5)
    assert_close(together["grad_norm"], logged(alone, "grad_norm"), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Folders of runs that were stopped after the first of two steps, by stage; not to be written to."""
    folders = {stage: tmp_path_factory.mktemp(stage) for stage in STAGES}
    for stage, folder in folders.items():
        keeping_trainer(stage, folder, max_steps=1, save_strategy="steps", save_steps=1).train()
    return folders


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_run_equals_the_uninterrupted_one(stage, begun, tmp_path):
    whole, resumed = keeping_trainer(stage, tmp_path), keeping_trainer(stage, begun[stage])
    whole.train()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 2
    weights = resumed.model.state_dict()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    assert logged(resumed, "language_kl") == logged(whole, "language_kl")


def test_resumed_run_keeps_the_record_of_the_model_that_it_began_with(begun, tmp_path):
    whole = keeping_trainer("answer", tmp_path)
    whole.train()
    other = tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS, seed=5)
    resumed = keeping_trainer("answer", begun["answer"], model=other)
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "language_kl") == logged(whole, "language_kl")


def test_new_run_in_the_same_folder_records_its_own_model(begun, tmp_path):
    shutil.copytree(begun["answer"], tmp_path, dirs_exist_ok=True)
    other = tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS, seed=5)
    trainer = keeping_trainer("answer", tmp_path, model=other, overwrite_output_dir=True)
    trainer.train()
    assert logged(trainer, "language_kl")[0] == pytest.approx(0, abs=1e-6)


def test_record_of_other_rows_is_replaced_with_a_warning(begun, tmp_path, caplog):
    shutil.copytree(begun["answer"], tmp_path, dirs_exist_ok=True)
    trainer = keeping_trainer("answer", tmp_path, rows=plain_rows(5))
    trainer.begin_run(is_resumed=True)
    assert "holds a record of other plain rows" in caplog.text
    assert len(trainer._language.rows) == 5


def test_recorded_rows_hold_the_model_to_the_one_that_was_recorded(tmp_path):
    original = tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS, seed=5)
    rows = record_language(original, tiny_tokenizer(), plain_rows(), top_k=8)
    trainer = keeping_trainer("answer", tmp_path, rows=rows, max_steps=1)
    trainer.train()
    assert logged(trainer, "language_kl")[0] > 0.01
    assert not (tmp_path / RECORD_FILE).exists()


def test_cross_entropy_alone_needs_no_record(tmp_path):
    trainer = keeping_trainer("answer", tmp_path, keep_language=0.0)
    trainer.train()
    assert not (tmp_path / RECORD_FILE).exists()
    assert logged(trainer, "language_kl") == []
    assert len(logged(trainer, "language_loss")) == 2


@pytest.mark.parametrize("stage", STAGES)
def test_losses_are_in_float32_under_autocast_as_the_record_is(stage, tmp_path, monkeypatch):
    dtypes = []

    def observed(logits, *record):
        dtypes.extend([logits.dtype, record[1].dtype])
        return language_kl(logits, *record)

    monkeypatch.setattr("storm_hf.training.language_regularizer.language_kl", observed)
    trainer = keeping_trainer(stage, tmp_path, bf16=True)
    trainer.train()
    assert set(dtypes) == {torch.float32}
    assert logged(trainer, "language_kl")[0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_layer_checkpointing_changes_no_number(stage, tmp_path):
    runs = [keeping_trainer(stage, tmp_path / str(is_on), gradient_checkpointing=is_on) for is_on in (True, False)]
    for trainer in runs:
        trainer.train()
    for name in ("loss", "grad_norm", "language_kl"):
        assert_close(logged(runs[0], name), logged(runs[1], name), rtol=1e-5, atol=1e-6)


def draws_of(rank=0, num_processes=1, **settings):
    args = SimpleNamespace(seed=0, gradient_accumulation_steps=2, language_batch_size=2, **settings)
    accelerator = SimpleNamespace(process_index=rank, num_processes=num_processes, device=torch.device("cpu"))
    return LanguageRegularizer(plain_rows(), args, accelerator)


def test_every_row_comes_once_before_one_comes_again():
    language, drawn = draws_of(), []
    for step in range(7):
        language.begin(num_batches=2, step=step)
        drawn += language._positions.tolist()
    assert [sorted(drawn[start : start + 7]) for start in range(0, 28, 7)] == [list(range(7))] * 4
    assert drawn[:7] != drawn[7:14]


def test_rows_of_a_step_do_not_depend_on_the_steps_before():
    language, other = draws_of(), draws_of()
    for step in range(4):
        language.begin(num_batches=2, step=step)
    other.begin(num_batches=2, step=3)
    assert (language._positions == other._positions).all()


def test_rows_in_every_form_are_encoded_by_the_trainer(qwen_checkpoint, tmp_path):
    model, processor = load_tiny(qwen_checkpoint, NUM_LATENTS)
    rows = Dataset.from_list([{"text": "The ball rolls left."}, {"text": "The ball is down now."}])
    trainer = keeping_trainer("answer", tmp_path, rows=rows, model=model, processing_class=processor)
    trainer.begin_run(is_resumed=False)
    assert (tmp_path / RECORD_FILE).is_file()
    _, losses = trainer._language(model, is_accumulated=False)
    assert losses["language_kl"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ({"keep_language": 1.0}, None, "but there are none"),
        ({"language_weight": 1.0}, None, "but there are none"),
        ({}, plain_rows(), "both 0, so that it would not be used"),
        ({"keep_language": 1.0}, plain_rows().to_iterable_dataset(), "got IterableDataset"),
        ({"keep_language": 1.0}, [{"text": "One."}], "got list"),
    ],
)
def test_rows_and_weights_belong_together(settings, rows, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        tiny_trainer("answer", "qwen2_5_vl", tmp_path, language_dataset=rows, **settings)


@pytest.mark.parametrize("settings", [{"keep_language": -1.0}, {"language_weight": -0.1}, {"language_batch_size": 0}])
def test_settings_out_of_range_are_refused(settings, tmp_path):
    (name,) = settings
    with pytest.raises(ConfigurationError, match=f"`{name}` must be"):
        StormAlignConfig(str(tmp_path), **settings)
