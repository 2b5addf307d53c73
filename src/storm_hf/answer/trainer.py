"""Stage II: cross entropy on the answer alone, with the gradient through the model's own rollout."""

from typing import Any, ClassVar

from storm_hf.answer.config import StormAnswerConfig
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.training.collator import AnswerCollator
from storm_hf.training.prompts import PromptEncoder
from storm_hf.training.trainer import StormTrainer


class StormAnswerTrainer(StormTrainer):
    """Trains on answers only, so that the reasoning is internalized (arXiv 2605.26014, Stage II).

    The latents are rolled out by the model, and L = L_answer reaches them through the rollout's own cache. With
    `num_latents=0` this is plain supervised fine-tuning: the direct control and the text chain of thought are trained by it.

    Args:
        model ([`StormForConditionalGeneration`]):
            A model that came out of Stage I. From a model that has not, latents learn to do nothing.
        args ([`StormAnswerConfig`], *optional*):
            Configuration of the run.
        processing_class ([`~transformers.ProcessorMixin`]):
            The backbone's processor with latent tokens.
        data_collator (`Callable`, *optional*):
            By default an [`~storm_hf.training.collator.AnswerCollator`].
        train_dataset ([`~datasets.Dataset`], *optional*):
            Rows with a video, a question and an answer. Columns of thought videos are left out.
        kwargs:
            What else [`~trl.SFTTrainer`] takes: `eval_dataset`, `callbacks`, `peft_config`, ...
    """

    _name = "STORM Stage II"
    _stage = "answer"
    _tag_names: ClassVar[list[str]] = ["trl", "storm", "storm-answer"]

    def __init__(
        self,
        model: StormForConditionalGeneration,
        args: StormAnswerConfig | None = None,
        processing_class: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        **kwargs: Any,
    ) -> None:
        args = args or StormAnswerConfig("storm-answer")
        if data_collator is None:
            num_latents = model.config.num_latents if args.num_latents is None else args.num_latents
            prompts = PromptEncoder(processing_class, model.config, num_latents, args.question_style)
            data_collator = AnswerCollator(prompts)
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            data_collator=data_collator,
            train_dataset=without_thoughts(train_dataset),
            **kwargs,
        )


def without_thoughts(rows: Any) -> Any:
    """Leave out the columns that hold thought videos: this stage neither sees them nor reads them from disk.

    Args:
        rows ([`~datasets.Dataset`]):
            Rows of a storm-thoughts data set, or of any other; what has no columns stays as it is.
    """
    names = [name for name in getattr(rows, "column_names", None) or () if name.startswith("thought_")]
    return rows.remove_columns(names) if names else rows
