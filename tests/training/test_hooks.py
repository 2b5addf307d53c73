"""Hooks of transformers and TRL: each is overridden in one place, and is what it was when the override was written."""

import inspect

import pytest
from trl import SFTTrainer

from storm_hf import StormAlignTrainer, StormAnswerTrainer


WRITTEN_AGAINST = "transformers 5.24 and TRL 1.16"
HOOKS = {  # with their parameters in these versions
    # CheckpointingTrainer
    "train": "resume_from_checkpoint trial ignore_keys_for_eval",
    "end": "",
    "_init_training_state": "max_steps num_update_steps_per_epoch num_train_epochs resume_from_checkpoint trial",
    "_run_epoch": "model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial ignore_keys_for_eval "
    "start_time resume_from_checkpoint epochs_trained steps_trained_in_current_epoch",
    "_load_from_checkpoint": "resume_from_checkpoint model",
    "_load_optimizer_and_scheduler": "checkpoint",
    "_load_best_model": "",
    "_issue_warnings_after_load": "load_result",
    "save_model": "output_dir _internal_call",
    "_save": "output_dir state_dict",
    "_save_rng_state": "output_dir",
    "create_model_card": "model_name dataset_name tags",
    "_push_from_checkpoint": "checkpoint_folder",
    "push_to_hub": "commit_message blocking token revision private kwargs",
    "_finish_current_push": "",
    # StormTrainer
    "create_optimizer": "model",
    "_get_dataloader": "dataset description batch_size sampler_fn is_training dataloader_key",
    "_get_train_sampler": "train_dataset",
    "_get_eval_sampler": "eval_dataset",
    "get_batch_samples": "epoch_iterator num_batches device",
    "_get_num_items_in_batch": "batch_samples device",
    "compute_loss": "model inputs return_outputs num_items_in_batch",
    "prediction_step": "model inputs prediction_loss_only ignore_keys",
    "training_step": "model inputs num_items_in_batch",
    "log": "logs start_time",
    "evaluate": "eval_dataset ignore_keys metric_key_prefix",
    "evaluation_loop": "dataloader description prediction_loss_only ignore_keys metric_key_prefix",
    "_save_checkpoint": "model trial",
}
TRAINERS = (StormAlignTrainer, StormAnswerTrainer)


def overriders(trainer):
    """The classes of this package by the method of TRL's trainer, or of its bases, that they override."""
    found = {}
    for cls in trainer.__mro__[: trainer.__mro__.index(SFTTrainer)]:
        for name, member in vars(cls).items():
            if inspect.isfunction(member) and not name.startswith("__") and hasattr(SFTTrainer, name):
                found.setdefault(name, []).append(cls)
    return found


def parameters(method):
    return [name for name in inspect.signature(method).parameters if name != "self"]


def passes_everything_on(method):
    return parameters(method) == ["args", "kwargs"]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainer_has_two_bases_of_ours_and_no_mixins(trainer):
    ours = trainer.__mro__[1 : trainer.__mro__.index(SFTTrainer)]
    assert [cls.__name__ for cls in ours] == ["StormTrainer", "CheckpointingTrainer"]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_each_hook_is_overridden_in_one_class(trainer):
    repeated = {name: classes for name, classes in overriders(trainer).items() if len(classes) > 1}
    assert repeated == {}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_overridden_hooks_are_those_that_are_known(trainer):
    assert overriders(trainer).keys() == HOOKS.keys()


@pytest.mark.parametrize("name", HOOKS)
def test_hook_takes_what_it_took(name):
    upstream = (vars(cls)[name] for cls in SFTTrainer.__mro__ if name in vars(cls))
    method = next(method for method in upstream if not passes_everything_on(method))
    assert parameters(method) == HOOKS[name].split(), f"{name} is not what it was in {WRITTEN_AGAINST}"


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", HOOKS)
def test_override_can_be_called_as_the_hook_is(trainer, name):
    given = {parameter: None for parameter in HOOKS[name].split()}
    inspect.signature(getattr(trainer, name)).bind(None, **given)
    if name != "_run_epoch":  # which `Trainer` calls by keyword
        inspect.signature(getattr(trainer, name)).bind(
            None, *[value for key, value in given.items() if key != "kwargs"]
        )
