# /// script
# dependencies = ["storm-hf[train]"]
# ///
"""Stage II: train on answers only, with the gradient through the model's own rollout.

    accelerate launch trainers/answer.py --config trainers/recipes/worlds_tiny_answer.yaml
    storm answer --config worlds_tiny_answer    # the same, with the recipe by its name

--model_name_or_path is what Stage I saved. With --num_latents 0 this is plain supervised fine-tuning, the control that answers
directly; it also takes a plain checkpoint. The same command goes on from the newest checkpoint that was written to its end;
--resume_from_checkpoint false --overwrite_output_dir begins anew.
"""

from transformers import set_seed
from trl import ScriptArguments, TrlParser

from storm_hf import (
    StormAnswerConfig,
    StormAnswerTrainer,
    StormModelConfig,
    load_rows,
    load_storm,
    peft_config,
    pick_split,
)


def main(script_args: ScriptArguments, training_args: StormAnswerConfig, model_args: StormModelConfig) -> None:
    """Load, train, save."""
    dataset = load_rows(script_args.dataset_name, script_args.dataset_config)
    train_rows, eval_rows = pick_split(dataset, script_args.dataset_train_split), None
    if training_args.eval_strategy != "no":
        eval_rows = pick_split(dataset, script_args.dataset_test_split, "dataset_test_split")
    set_seed(training_args.seed)  # a plain checkpoint gets a new projector
    model, processor = load_storm(model_args, training_args.num_latents)

    trainer = StormAnswerTrainer(
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
    main(*TrlParser((ScriptArguments, StormAnswerConfig, StormModelConfig)).parse_args_and_config())
