# /// script
# dependencies = ["storm-hf[train]"]
# ///
"""Stage I: align the latents of a video-language model with thought videos.

    accelerate launch trainers/align.py --config trainers/recipes/worlds_tiny_align.yaml
    storm align --config worlds_tiny_align    # the same, with the recipe by its name

Every argument of the recipe can be given on the command line instead: --model_name_or_path takes a plain checkpoint or a
STORM, --dataset_name what a builder of `datasets_builders/` wrote. The same command goes on from the newest checkpoint that was
written to its end; --resume_from_checkpoint false --overwrite_output_dir begins anew.
"""

from transformers import set_seed
from trl import ScriptArguments, TrlParser

from storm_hf import (
    StormAlignConfig,
    StormAlignTrainer,
    StormModelConfig,
    load_rows,
    load_storm,
    peft_config,
    pick_split,
)


def main(script_args: ScriptArguments, training_args: StormAlignConfig, model_args: StormModelConfig) -> None:
    """Load, align, save."""
    dataset = load_rows(script_args.dataset_name, script_args.dataset_config)
    train_rows, eval_rows = pick_split(dataset, script_args.dataset_train_split), None
    if training_args.eval_strategy != "no":
        eval_rows = pick_split(dataset, script_args.dataset_test_split, "dataset_test_split")
    set_seed(training_args.seed)  # a plain checkpoint gets a new projector
    model, processor = load_storm(model_args, training_args.num_latents)

    trainer = StormAlignTrainer(
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
    main(*TrlParser((ScriptArguments, StormAlignConfig, StormModelConfig)).parse_args_and_config())
