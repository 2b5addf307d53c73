"""Words of the steps, read from the states that latents are made from."""

import math

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import KINDS
from tests.training.tiny_training import WordsCollator, logged, tiny_trainer
from tests.training.tiny_videos import load_tiny, write_thoughts

from storm_hf import StormAlignConfig, StormAlignTrainer
from storm_hf.align.step_words import StepWords, read_step_words
from storm_hf.errors import ConfigurationError, DatasetError
from storm_hf.evaluation import ClipQuestion, read_clip, read_latent_words
from storm_hf.training.loading import load_rows


def letters(text, add_special_tokens):
    """A tokenizer whose tokens are letters; the space before a step is its own."""
    assert (text[0], add_special_tokens) == (" ", False)
    return {"input_ids": [ord(letter) for letter in text[1:]]}


@pytest.mark.parametrize(
    ("num_latents", "expected"),
    [
        (1, ["a b c d"]),
        (2, ["a b", "c d"]),
        (3, ["a b", "b c", "c d"]),
        (4, ["a", "b", "c", "d"]),
        (6, ["a", "a b", "b", "c", "c d", "d"]),
    ],
)
def test_each_latent_stands_for_its_stretch_of_the_chain(num_latents, expected):
    (words,) = StepWords(letters, num_latents)([{"chain_of_thought": "a\nb\nc\nd"}])
    assert [{chr(token) for token in step if token >= 0} for step in words.tolist()] == [
        set(step) for step in expected
    ]


def test_words_count_once_and_shorter_steps_are_padded():
    (words,) = StepWords(letters, 2)([{"chain_of_thought": "noon\nat"}])
    assert words.tolist() == [[ord("n"), ord("o")], [ord("a"), ord("t")]]
    (words,) = StepWords(letters, 2)([{"chain_of_thought": "noon\na"}])
    assert words[1].tolist() == [ord("a"), -100]


@pytest.mark.parametrize("row", [{}, {"chain_of_thought": None}, {"chain_of_thought": " "}])
def test_row_without_a_chain_is_refused(row):
    with pytest.raises(DatasetError, match="reads the column `chain_of_thought`, got a row without one"):
        StepWords(letters, 2)([row])


def test_loss_is_the_cross_entropy_to_even_shares_of_the_words():
    words = torch.tensor([[[3, 5, -100], [1, -100, -100]]])
    even = read_step_words(torch.zeros(1, 2, 8), words)
    assert even.loss.item() == pytest.approx(math.log(8))
    logits = torch.full((1, 2, 8), -30.0)
    logits[0, 0, [3, 5]] = logits[0, 1, 1] = 0.0
    known = read_step_words(logits, words)
    assert known.loss.item() == pytest.approx(math.log(2) / 2)
    assert known.recall == 1
    logits[0, 0, 3], logits[0, 0, 4] = -30, 0.0
    assert read_step_words(logits, words).recall == pytest.approx((1 / 2 + 1) / 2)


def words_trainer(kind, folder, **config):
    trainer = tiny_trainer("align", kind, folder, **{"step_words_weight": 0.5, **config})
    trainer.data_collator = WordsCollator(kind, with_targets=True)
    return trainer


@pytest.mark.parametrize("forcing", ["teacher", "rollout"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_goes_through_the_states_that_latents_are_made_from(kind, forcing, tmp_path):
    trainer = words_trainer(kind, tmp_path, forcing=forcing, align_weight=0.0)
    batch = trainer.data_collator(trainer.train_dataset.select([0, 1]).to_list())
    model = trainer.model.train()
    only_words = trainer.compute_loss(model, batch)
    trainer.args.step_words_weight = 0.0
    (only_words - trainer.compute_loss(model, batch)).backward()
    decoder = [weight.grad for weight in model.get_decoder().layers.parameters() if weight.grad is not None]
    assert sum(gradient.abs().sum() for gradient in decoder) > 0
    assert len(logged_now(trainer, "words_loss")) == 1


def logged_now(trainer, name):
    return trainer._metrics["train"][name]


def test_other_losses_are_those_of_a_run_without(tmp_path):
    """Off, nothing of it is computed; on, its loss comes on top."""
    off, on = (words_trainer("qwen2_5_vl", tmp_path, step_words_weight=weight) for weight in (0.0, 0.5))
    plain = tiny_trainer("align", "qwen2_5_vl", tmp_path)
    for trainer in (off, on, plain):
        trainer.train()
    assert logged(off, "loss") == logged(plain, "loss")
    assert logged(off, "words_loss") == []
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(off.model.state_dict()[name], weight), name
    for name in ("answer_loss", "align_loss"):
        assert logged(on, name)[0] == logged(plain, name)[0]
    assert logged(on, "loss")[0] == pytest.approx(
        logged(plain, "loss")[0] + 0.5 * logged(on, "words_loss")[0], rel=1e-4
    )


def test_one_batch_of_four_is_four_accumulated_batches_of_one(tmp_path):
    whole, parts = (
        words_trainer(
            "qwen2_5_vl", tmp_path, max_steps=1, per_device_train_batch_size=size, gradient_accumulation_steps=n
        )
        for size, n in ((4, 1), (1, 4))
    )
    for trainer in (whole, parts):
        trainer.train()
    assert logged(parts, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-4)
    assert logged(parts, "words_loss") == pytest.approx(logged(whole, "words_loss"), rel=1e-4)


def test_fewer_latents_read_the_first_words(tmp_path):
    trainer = words_trainer("qwen2_5_vl", tmp_path)
    words = trainer.data_collator(trainer.train_dataset.select([0, 1]).to_list())["step_words"]
    states = torch.randn(2, 2, trainer.model.config.hidden_size)
    loss = trainer._words_loss(trainer.model, states, words)
    expected = read_step_words(trainer.model.compute_logits(states), words[:, :2]).loss
    torch.testing.assert_close(loss, expected)
    assert (loss != read_step_words(trainer.model.compute_logits(states), words[:, -2:]).loss).all()


def test_collator_without_words_is_refused(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, step_words_weight=0.5)
    with pytest.raises(ConfigurationError, match="`step_words_weight` needs `step_words` in each batch"):
        trainer.train()


def test_states_that_are_only_near_are_refused():
    with pytest.raises(ConfigurationError, match="`step_words_weight` reads the states of a rollout"):
        StormAlignConfig("folder", step_words_weight=0.1, forcing="rollout", jacobi_sweeps=2)


def test_words_of_a_trained_model_are_read_from_its_own_latents(qwen_checkpoint, tmp_path):
    folder = write_thoughts(tmp_path / "data", num_rows=2)
    rows = load_rows(str(folder))["train"].add_column("chain_of_thought", ["left up down", "right . right . right"])
    model, processor = load_tiny(qwen_checkpoint, 3)
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
    }
    learning = {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "max_steps": 30, "logging_steps": 1}
    args = StormAlignConfig(
        str(tmp_path / "run"),
        whitening_rank=4,
        forcing="rollout",
        align_weight=0.0,
        step_words_weight=3.0,
        save_strategy="no",
        dataloader_pin_memory=False,
        **settings,
        **learning,
    )
    trainer = StormAlignTrainer(model, args, train_dataset=rows, processing_class=processor)
    trainer.train()
    assert logged(trainer, "words_recall")[-1] > 0.9 > logged(trainer, "words_recall")[0]
    question = ClipQuestion(read_clip(rows[1]["video"], processor), rows[1]["question"], tuple(rows[1]["options"]))
    answer, words = read_latent_words(trainer.model.eval(), processor, question, num_words=2)
    expected = {processor.tokenizer.decode([token]).strip() for token in processor.tokenizer(" right")["input_ids"]}
    assert len(words) == len(answer.latents) == 3
    assert all(expected & set(step) for step in words)
    assert read_latent_words(trainer.model, processor, question, num_latents=0)[1] == []
    trainer.save_model()
    assert load_file(tmp_path / "run" / "model.safetensors").keys() <= model.state_dict().keys()
