"""Names of the interventions on latents, the same in every command, request, record and table."""

from collections.abc import Sequence
from enum import StrEnum

from storm_hf.errors import ConfigurationError


class InterventionKind(StrEnum):
    """Intervention on the latents of a rollout, before each is fed back.

    Attributes:
        own: The model's own latents.
        zero: Zeros.
        noise_per_question: Normal numbers with mean and spread of the latents of the same question.
        noise_per_dataset: Normal numbers with mean and spread of the latents of all questions.
        mean_over_steps: Mean over the steps of the same question, the same at every step.
        mean_over_questions: Mean over the questions, step by step, the same for every question.
        first: First latent of the same question, at every step.
        donor: Latents of another clip with another answer to the same question.
        shuffled: Latents of another question, whatever its answer.
        markers_only: Start and end token with no latent between them.
        no_latents: No latent block at all (K = 0).
        latents_only: Own latents, and the answer is written without the clip.
        oracle: Target trajectory of the question.
    """

    own = "own"
    zero = "zero"
    noise_per_question = "noise_per_question"
    noise_per_dataset = "noise_per_dataset"
    mean_over_steps = "mean_over_steps"
    mean_over_questions = "mean_over_questions"
    first = "first"
    donor = "donor"
    shuffled = "shuffled"
    markers_only = "markers_only"
    no_latents = "no_latents"
    latents_only = "latents_only"
    oracle = "oracle"

    @property
    def label(self) -> str:
        """Name of the intervention for tables and charts."""
        return _LABELS[self]

    @property
    def phrase(self) -> str:
        """The label inside a sentence."""
        return self.label[0].lower() + self.label[1:]


_LABELS = {
    InterventionKind.own: "Its own latents",
    InterventionKind.zero: "Zeros",
    InterventionKind.noise_per_question: "Noise of its latents' size",
    InterventionKind.noise_per_dataset: "Noise of all latents' size",
    InterventionKind.mean_over_steps: "The mean latent over its steps",
    InterventionKind.mean_over_questions: "The mean latent over all questions",
    InterventionKind.first: "The first latent in every step",
    InterventionKind.donor: "Latents of a clip with another answer",
    InterventionKind.shuffled: "Any other clip's latents",
    InterventionKind.markers_only: "Start and end tokens, nothing between",
    InterventionKind.no_latents: "No latents at all (K = 0)",
    InterventionKind.latents_only: "Its own latents, without the clip",
    InterventionKind.oracle: "The true thoughts",
}

# What can be done to a single question, without a data set or another clip.
OF_ONE_QUESTION = (
    InterventionKind.zero,
    InterventionKind.noise_per_question,
    InterventionKind.mean_over_steps,
    InterventionKind.no_latents,
    InterventionKind.latents_only,
)
CONTENT_FREE = (
    InterventionKind.zero,
    InterventionKind.noise_per_dataset,
    InterventionKind.mean_over_questions,
    InterventionKind.markers_only,
    InterventionKind.no_latents,
)

_RENAMED = {
    "mean": (InterventionKind.mean_over_steps, InterventionKind.mean_over_questions),
    "noise": (InterventionKind.noise_per_question, InterventionKind.noise_per_dataset),
    "none": (InterventionKind.no_latents,),
    "skipped": (InterventionKind.no_latents,),
    "alone": (InterventionKind.latents_only,),
    "without_clip": (InterventionKind.latents_only,),
    "swap": (InterventionKind.donor,),
    "other": (InterventionKind.donor,),
    "first_repeated": (InterventionKind.first,),
}


def read_kind(name: object, known: Sequence[InterventionKind] = tuple(InterventionKind)) -> InterventionKind:
    """Read the name of an intervention.

    Args:
        name (`str`):
            The name. One of an earlier version is refused with its new name.
        known (`Sequence[InterventionKind]`, *optional*):
            Interventions that can be made here, by default all.

    Raises:
        ConfigurationError: If there is no such intervention here.
    """
    if name in known:
        return InterventionKind(str(name))
    renamed = _RENAMED.get(str(name), ())
    now = " and ".join(f"`{kind}` ({kind.phrase})" for kind in renamed)
    hint = f" `{name}` has become {now}." if renamed else ""
    raise ConfigurationError(f"Expected one of {', '.join(known)} but got {name!r}.{hint}")
