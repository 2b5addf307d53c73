"""Reinforcement on real video files: weights, resumption, checkpoints, donors, and what TRL's trainer is told."""

import inspect
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image
from tests.reinforce.tiny_grpo import NUM_LATENTS, by_letters, tiny_grpo
from tests.training.tiny_training import logged
from tests.training.tiny_videos import load_tiny, write_thoughts
from transformers import AutoModelForImageTextToText
from trl import GRPOTrainer

from storm_hf import StormAnswerConfig, StormForConditionalGeneration, StormGRPOTrainer, load_rows
from storm_hf.checkpoints import load_checkpoint
from storm_hf.errors import CheckpointError, ConfigurationError, DatasetError, StageError
from storm_hf.inputs.features import cache_video_features
from storm_hf.reinforce.rewards import donor_answer, latent_use
from storm_hf.target_trajectory.trajectory import TargetTrajectory
from storm_hf.training.peft import default_lora


# TRL 1.16 still calls transformers' checkpointing of activations by its name of before: `disable_gradient_checkpointing`.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

ESTIMATORS = ("pathwise", "score")
HOOKS = {  # of TRL 1.16 and transformers 5.24, with their parameters
    "_get_dataloader": "dataset description batch_size sampler_fn is_training dataloader_key",
    "_get_train_sampler": "dataset",
    "_generate_and_score_completions": "inputs",
    "_get_per_token_logps_and_entropies": "model input_ids attention_mask logits_to_keep batch_size compute_entropy "
    "compute_aux_loss pixel_values image_grid_thw num_images pixel_attention_mask spatial_shapes num_tiles image_sizes "
    "token_type_ids mm_token_type_ids image_position_ids",
    "_compute_loss": "model inputs",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"))))["train"]


@pytest.fixture(scope="module")
def targets():
    features = torch.randn(64, NUM_LATENTS, 2, 32, generator=torch.Generator().manual_seed(0))
    return TargetTrajectory.fit([features], num_latents=NUM_LATENTS, rank=5)


def weights_of(trainer):
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("lora", [False, True])
def test_two_steps_change_what_is_trained_and_nothing_else(qwen_checkpoint, rows, targets, tmp_path, estimator, lora):
    model, _ = load_tiny(qwen_checkpoint, NUM_LATENTS)
    trainer = tiny_grpo(
        qwen_checkpoint,
        rows,
        tmp_path,
        model=model,
        peft_config=default_lora(model, r=4) if lora else None,
        target_trajectory=targets,
        estimator=estimator,
    )
    before, trained = weights_of(trainer), {name for name, w in trainer.model.named_parameters() if w.requires_grad}
    trainer.train()
    changed = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])}
    unread = {name for name in trained if "embed_tokens" in name and lora}
    assert changed == trained - unread
    assert any("latent_projector" in name for name in changed)
    assert not any(".visual." in name for name in changed)


@pytest.mark.parametrize("lora", [False, True])
def test_divergence_from_the_start_is_zero_at_first_and_then_not(qwen_checkpoint, rows, targets, tmp_path, lora):
    model, _ = load_tiny(qwen_checkpoint, NUM_LATENTS)
    adapter = default_lora(model, r=4) if lora else None
    settings = {
        "beta": 0.1,
        "max_steps": 3,
        "target_trajectory": targets,
        "estimator": "score" if lora else "pathwise",
    }
    trainer = tiny_grpo(qwen_checkpoint, rows, tmp_path, model=model, peft_config=adapter, **settings)
    trainer.train()
    for name in ("kl", "latent_kl"):
        first, *later = logged(trainer, name)
        assert first == pytest.approx(0, abs=1e-6)
        assert min(later) > 1e-6


def test_adapter_that_goes_on_is_compared_with_itself_and_saved_alone(qwen_checkpoint, rows, tmp_path):
    model, _ = load_tiny(qwen_checkpoint, NUM_LATENTS)
    first = tiny_grpo(
        qwen_checkpoint,
        rows,
        tmp_path / "first",
        model=model,
        peft_config=default_lora(model, r=4),
        learning_rate=1e-2,
    )
    first.train()
    second = tiny_grpo(qwen_checkpoint, rows, tmp_path / "second", model=first.model, beta=0.1, max_steps=2)
    second.train()
    assert logged(second, "kl")[0] == pytest.approx(0, abs=1e-6)
    second.save_model()
    assert not (tmp_path / "second" / "ref").exists()


def trained(*arguments, **settings):
    """A run to its end; it draws the same numbers as any other, since its trainer seeds them."""
    trainer = tiny_grpo(*arguments, **settings)
    trainer.train()
    return trainer


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_checkpointed_layers_give_the_same_losses(qwen_checkpoint, rows, tmp_path, estimator):
    plain, checkpointed = (
        trained(qwen_checkpoint, rows, tmp_path / str(is_on), gradient_checkpointing=is_on, estimator=estimator)
        for is_on in (False, True)
    )
    for name in ("loss", "grad_norm"):
        assert logged(checkpointed, name) == pytest.approx(logged(plain, name), rel=1e-4, abs=1e-6)


def test_accumulated_batches_are_one_batch(qwen_checkpoint, rows, tmp_path):
    whole = trained(qwen_checkpoint, rows, tmp_path / "whole")
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    parts = trained(qwen_checkpoint, rows, tmp_path / "parts", **split)
    assert logged(parts, "reward") == logged(whole, "reward")
    assert logged(parts, "grad_norm") == pytest.approx(logged(whole, "grad_norm"), rel=1e-4)


def test_weight_that_is_not_finite_stops_the_run_and_is_named(qwen_checkpoint, rows, tmp_path):
    """`Trainer` would log a loss of 0, and its step would break every other weight."""

    def break_a_weight(completions, trainer_state, **columns):
        if trainer_state.global_step == 1:  # between the roll-outs of the second step and their loss
            trainer.model.model.latent_projector.layers[1].weight.data[0, 0] = float("nan")
        return by_letters(completions)

    trainer = tiny_grpo(qwen_checkpoint, rows, tmp_path, rewards=break_a_weight, max_steps=3)
    with pytest.raises(
        StageError, match="got nan in step 2: the weight `model.latent_projector.layers.1.weight` is not"
    ):
        trainer.train()
    assert len(logged(trainer, "loss")) == 1
    assert all(weight.isfinite().all() for weight in trainer.model.get_decoder().parameters())


def test_model_that_would_halt_thinks_for_all_steps_and_its_head_is_frozen(qwen_checkpoint, rows, tmp_path):
    model, _ = load_tiny(qwen_checkpoint, NUM_LATENTS)
    model.add_halting_head()
    torch.nn.init.constant_(model.model.halting_head.bias, 10.0)  # after the first latent
    halting = trained(qwen_checkpoint, rows, tmp_path / "halting", model=model)
    plain = trained(qwen_checkpoint, rows, tmp_path / "plain")
    for name in ("reward", "loss", "grad_norm"):
        assert logged(halting, name) == logged(plain, name)
    assert not any(weight.requires_grad for weight in halting.model.model.halting_head.parameters())


def test_cached_features_are_trained_on_as_pixels_are(qwen_checkpoint, rows, tmp_path):
    cached = cache_video_features(rows, *load_tiny(qwen_checkpoint, NUM_LATENTS))
    pixels, features = (
        trained(qwen_checkpoint, data, tmp_path / str(number)) for number, data in enumerate((rows, cached))
    )
    assert logged(features, "reward") == logged(pixels, "reward")
    assert logged(features, "grad_norm") == pytest.approx(logged(pixels, "grad_norm"), rel=1e-2)


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "pathwise", "beta": 0.05},
        {"estimator": "score", "donor_share": 0.5, "per_device_train_batch_size": 8},
        {"steps_per_generation": 2, "num_iterations": 2, "per_device_train_batch_size": 2},
    ],
    ids=["pathwise", "score with donors", "reused roll-outs"],
)
def test_resumed_run_is_the_uninterrupted_one_to_the_last_bit(qwen_checkpoint, rows, tmp_path, settings):
    saving = {"save_strategy": "steps", "save_steps": 4, "max_steps": 12, **settings}  # more than one epoch
    whole = tiny_grpo(qwen_checkpoint, rows.select(range(4)), tmp_path / "whole", **saving)
    whole.train()
    torch.manual_seed(123)  # whatever the generators were at
    resumed = tiny_grpo(qwen_checkpoint, rows.select(range(4)), tmp_path / "resumed", **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    assert logged(resumed, "loss") == logged(whole, "loss")
    for name, weight in weights_of(whole).items():
        assert torch.equal(weight, weights_of(resumed)[name]), name


def test_checkpoint_opens_as_every_storm_does_with_its_statistics(qwen_checkpoint, rows, targets, tmp_path):
    trainer = tiny_grpo(qwen_checkpoint, rows, tmp_path / "run", target_trajectory=targets, max_steps=1)
    trainer.train()
    trainer.save_model()
    model, processor = load_checkpoint(tmp_path / "run")
    assert isinstance(model, StormForConditionalGeneration)
    assert isinstance(AutoModelForImageTextToText.from_pretrained(tmp_path / "run"), StormForConditionalGeneration)
    for name, weight in weights_of(trainer).items():
        assert torch.equal(model.state_dict()[name], weight), name
    card = (tmp_path / "run" / "README.md").read_text()
    assert "storm-grpo" in card
    assert (
        "Reinforcement: rewarded for the answers of its own roll-outs, with noise on the latents, for 1 steps." in card
    )
    again = tiny_grpo(qwen_checkpoint, rows, tmp_path / "again", model=str(tmp_path / "run"))
    assert again.policy.subspace.rank == 5  # found beside the model
    torch.testing.assert_close(again.policy.subspace.basis, trainer.policy.subspace.basis)


def test_rewards_get_columns_and_donors_of_the_batch(qwen_checkpoint, rows, tmp_path):
    seen = []

    def look(completions, **columns):
        seen.append({"completions": completions, **columns})
        return by_letters(completions)

    trainer = tiny_grpo(
        qwen_checkpoint, rows, tmp_path, rewards=look, donor_share=0.5, per_device_train_batch_size=8, max_steps=1
    )
    trainer.train()
    (batch,) = seen
    assert batch["has_donor"] == [False, False, True, True] * 2
    assert batch["group"] == [0] * 4 + [1] * 4
    assert batch["num_latents"] == [NUM_LATENTS] * 8
    assert len(set(batch["prompts"])) == len({*batch["question"]})
    for place, donor in enumerate(batch["donor"]):
        assert (donor is not None) == batch["has_donor"][place]
        others = {batch["answer"][other] for other in range(8) if batch["group"][other] != batch["group"][place]}
        assert donor is None or donor["answer"] in others
    assert not any("latent" in completion for completion in batch["completions"])


@pytest.mark.parametrize(("reward", "expected"), [(latent_use, [False, True] * 2), (donor_answer, [False] * 4)])
def test_a_donor_of_another_question_serves_only_where_its_answer_is_not_asked_for(
    qwen_checkpoint, rows, tmp_path, reward, expected
):
    different = [{**rows[place], "question": f"Question {place}?"} for place in (0, 0, 1, 1)]
    trainer = tiny_grpo(qwen_checkpoint, rows, tmp_path, rewards=reward, num_generations=2, donor_share=0.5)
    trainer.model.train()
    trainer._replayed = {"rows": different}
    rolled = trainer._roll_out(["a"] * 4, trainer)
    assert rolled["has_donor"] == expected
    assert trainer._metrics["train"]["donor_share"] == [sum(expected) / 4]


@pytest.mark.parametrize("form", ["prompt", "question"])
def test_rows_need_no_answer_where_no_reward_reads_it(qwen_checkpoint, rows, tmp_path, form):
    part = {"type": "video", "video": rows[0]["video"], "text": None}
    content = [part, {"type": "text", "text": "Who enters?", "video": None}]
    of_form = {
        "prompt": Dataset.from_list([{"prompt": [{"role": "user", "content": content}]}] * 4),
        "question": rows.remove_columns(["answer", "options"]),
    }
    trainer = tiny_grpo(qwen_checkpoint, of_form[form], tmp_path, max_steps=1)
    trainer.train()
    assert logged(trainer, "grad_norm")[0] > 0
    with pytest.raises(DatasetError, match="Expected text or a number in `answer`, got None"):
        tiny_grpo(qwen_checkpoint, of_form[form], tmp_path, rewards=None, max_steps=1).train()


def test_rows_with_and_without_a_picture_are_one_batch(qwen_checkpoint, rows, tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (56, 56), "red").save(picture)
    clip, shown = {"type": "video", "video": rows[0]["video"]}, {"type": "image", "image": str(picture)}
    contents = [[shown, clip], [clip], [shown], []]
    of_forms = [[*content, {"type": "text", "text": "Who enters?"}] for content in contents]
    mixed = [{"prompt": [{"role": "user", "content": content}]} for content in of_forms]
    settings = {"max_steps": 1, "per_device_train_batch_size": 16}
    trainer = tiny_grpo(qwen_checkpoint, Dataset.from_list(mixed, on_mixed_types="use_json"), tmp_path, **settings)
    trainer.train()
    assert logged(trainer, "grad_norm")[0] > 0


def test_a_process_with_clips_of_one_group_has_no_donors(qwen_checkpoint, rows, tmp_path):
    trainer = tiny_grpo(qwen_checkpoint, rows, tmp_path, donor_share=0.5, per_device_train_batch_size=8)
    trainer.model.train()
    trainer._replayed = {"rows": [rows[0]] * 4}
    with pytest.raises(DatasetError, match="Expected roll-outs of two clips or more"):
        trainer._roll_out(["a"] * 4, trainer)


def test_evaluation_rolls_out_without_donors(qwen_checkpoint, rows, tmp_path):
    trainer = tiny_grpo(
        qwen_checkpoint,
        rows,
        tmp_path,
        rewards=None,
        donor_share=0.5,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        eval_dataset=rows.select(range(4)),
    )
    assert "eval_rewards/correct_answer/mean" in trainer.evaluate()


@pytest.mark.parametrize("lora", [False, True])
def test_what_a_checkpoint_generates_with_has_no_part_in_its_roll_outs(qwen_checkpoint, rows, tmp_path, lora):
    def losses(**own):
        model, _ = load_tiny(qwen_checkpoint, NUM_LATENTS)
        model.generation_config.update(**own)
        adapter = default_lora(model, r=4) if lora else None
        trainer = tiny_grpo(qwen_checkpoint, rows, tmp_path, model=model, peft_config=adapter, max_steps=1)
        trainer.train()
        assert all(getattr(model.generation_config, name) == value for name, value in own.items())
        return logged(trainer, "reward"), logged(trainer, "grad_norm")

    assert losses(num_beams=3, bad_words_ids=[[5]], no_repeat_ngram_size=1) == losses()


def test_truncated_answers_can_be_left_out(qwen_checkpoint, rows, tmp_path):
    trainer = tiny_grpo(qwen_checkpoint, rows, tmp_path, mask_truncated_completions=True, max_steps=1)
    trainer.train()  # a random model ends no answer
    assert logged(trainer, "grad_norm") == [0]


def test_wrong_arguments_are_refused(qwen_checkpoint, rows, tmp_path):
    model, processor = load_tiny(qwen_checkpoint, NUM_LATENTS)
    quiet = {"use_cpu": True, "bf16": False, "report_to": "none"}
    with pytest.raises(ConfigurationError, match="Expected `args` to be a StormGRPOConfig, got StormAnswerConfig"):
        StormGRPOTrainer(model, args=StormAnswerConfig(str(tmp_path), **quiet), train_dataset=rows)
    with pytest.raises(ConfigurationError, match="Expected `train_dataset`, got none"):
        tiny_grpo(qwen_checkpoint, None, tmp_path)
    with pytest.raises(ConfigurationError, match="got a `train_dataset` without any"):
        tiny_grpo(qwen_checkpoint, rows.select([]), tmp_path)
    with pytest.raises(DatasetError, match=r"Expected whitening.safetensors in nowhere"):
        tiny_grpo(qwen_checkpoint, rows, tmp_path, latent_subspace="nowhere")


def test_run_does_not_write_over_another(qwen_checkpoint, rows, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    tiny_grpo(qwen_checkpoint, rows, tmp_path, **saving).train()
    with pytest.raises(CheckpointError, match="holds checkpoint-1 of an earlier run"):
        tiny_grpo(qwen_checkpoint, rows, tmp_path, **saving).train()


@pytest.mark.parametrize("name", HOOKS)
def test_hook_takes_what_it_took(name):
    method = getattr(GRPOTrainer, name)
    method = inspect.unwrap(method)
    assert [each for each in inspect.signature(method).parameters if each != "self"] == HOOKS[name].split()


def test_overridden_hooks_are_those_that_are_known():
    own = {name for name, member in vars(StormGRPOTrainer).items() if inspect.isfunction(member)}
    overridden = {name for name in own if hasattr(GRPOTrainer, name) and not name.startswith("__")}
    assert overridden == {*HOOKS, "_init_training_state"}  # the last one is CheckpointingTrainer's too


def test_nothing_of_this_folder_reads_thought_videos():
    folder = Path(inspect.getfile(StormGRPOTrainer)).parent
    assert not [file.name for file in folder.glob("*.py") if "storm_hf.thought_video" in file.read_text()]
