# /// script
# dependencies = ["storm-hf[train]"]
# ///
"""Before Stage I, for a random backbone only: learn to see, by describing question clips and thought videos.

    accelerate launch trainers/base.py --config trainers/recipes/worlds_tiny_base.yaml

A pretrained backbone sees already and goes to Stage I at once. Here the vision tower trains too, there are no latents, and the
rows need captions (`clip_caption`, `thought_caption`), as those of a world have.
"""

from transformers import set_seed
from trl import ScriptArguments, TrlParser

from storm_hf import (
    StormAnswerConfig,
    StormAnswerTrainer,
    StormModelConfig,
    caption_rows,
    load_rows,
    load_storm,
    pick_split,
)


def main(script_args: ScriptArguments, training_args: StormAnswerConfig, model_args: StormModelConfig) -> None:
    """Load, train, save."""
    dataset = load_rows(script_args.dataset_name, script_args.dataset_config)
    train_rows = pick_split(dataset, script_args.dataset_train_split)
    set_seed(training_args.seed)
    model, processor = load_storm(model_args, training_args.num_latents)

    trainer = StormAnswerTrainer(
        model=model,
        args=training_args,
        train_dataset=caption_rows(train_rows),
        processing_class=processor,
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)

    trainer.save_model()
    trainer.end()


if __name__ == "__main__":
    parser = TrlParser((ScriptArguments, StormAnswerConfig, StormModelConfig))
    parser.set_defaults(num_latents=0, freeze_vision=False)
    main(*parser.parse_args_and_config())
