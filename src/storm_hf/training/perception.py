"""Rows that teach a random backbone to see: every clip is described in words.

A pretrained backbone sees already. A random one, as small enough for two processor cores, must learn it before its vision tower
can be frozen and make targets of thought videos; so it learns to describe both kinds of video.
"""

from datasets import Dataset, Features, List, Value

from storm_hf.errors import DatasetError


CAPTION_QUESTION = "Describe the clip."
CAPTION_OF = {"video": "clip_caption", "thought_video": "thought_caption"}


def caption_rows(dataset: Dataset) -> Dataset:
    """Ask for the caption of each question clip and of each thought video.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows of a world, with the columns `video`, `clip_caption`, `thought_video` and `thought_caption`. A video that is
            missing in a row is left out.

    Returns:
        [`~datasets.Dataset`]: Rows with `video`, `question`, `options` (none) and `answer`, question clips first.
        [`StormAnswerTrainer`] trains on them with `num_latents=0` and `freeze_vision=False`.

    Raises:
        DatasetError: If a column is missing, or a video has no caption.
    """
    pairs = [pair for video, caption in CAPTION_OF.items() for pair in _captioned(dataset, video, caption)]
    columns = {
        "video": [video for video, _ in pairs],
        "question": [CAPTION_QUESTION] * len(pairs),
        "options": [None] * len(pairs),
        "answer": [caption for _, caption in pairs],
    }
    text = Value("string")
    return Dataset.from_dict(
        columns, features=Features({"video": text, "question": text, "options": List(text), "answer": text})
    )


def _captioned(dataset: Dataset, video: str, caption: str) -> list[tuple[str, str]]:
    if missing := sorted({video, caption} - set(dataset.column_names)):
        raise DatasetError(
            f"Expected a data set with captions of its videos, but {' and '.join(missing)} is missing from "
            f"{sorted(dataset.column_names)}. Build one of a world: `storm build shuffle_tiny`."
        )
    pairs = [(path, text) for path, text in zip(dataset[video], dataset[caption], strict=True) if path is not None]
    if not all(text for _, text in pairs):
        raise DatasetError(
            f"Expected a caption for every video of the column `{video}`, but some rows of `{caption}` are empty. Leave "
            "those rows out."
        )
    return pairs
