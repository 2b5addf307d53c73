# /// script
# dependencies = ["storm-hf[train]"]
# ///
"""Reinforcement: reward answers, and what latents do for them.

    accelerate launch trainers/grpo.py --config trainers/recipes/worlds_tiny_grpo.yaml
    storm grpo --config worlds_tiny_grpo    # the same, with the recipe by its name

--model_name_or_path is what Stage I or II saved, and --rewards names the rewards. For a reward of your own, give a function to the
trainer as `reward_funcs`. The same command goes on from the newest checkpoint that was written to its end;
--resume_from_checkpoint false --overwrite_output_dir begins anew.
"""

from trl import ScriptArguments, TrlParser

from storm_hf import (
    StormGRPOConfig,
    StormGRPOTrainer,
    StormModelConfig,
    load_rows,
    load_storm,
    peft_config,
    pick_split,
)


def main(script_args: ScriptArguments, training_args: StormGRPOConfig, model_args: StormModelConfig) -> None:
    """Load, train, save."""
    dataset = load_rows(script_args.dataset_name, script_args.dataset_config)
    train_rows, eval_rows = pick_split(dataset, script_args.dataset_train_split), None
    if training_args.eval_strategy != "no":
        eval_rows = pick_split(dataset, script_args.dataset_test_split, "dataset_test_split")
    model, processor = load_storm(model_args, training_args.num_latents)

    trainer = StormGRPOTrainer(
        model=model,
        args=training_args,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=processor,
        peft_config=peft_config(model_args, model),
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)

    trainer.save_model()
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
    trainer.end()


if __name__ == "__main__":
    main(*TrlParser((ScriptArguments, StormGRPOConfig, StormModelConfig)).parse_args_and_config())
