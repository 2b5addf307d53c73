"""Columns and files of a thought-video data set."""

from typing import Any

from storm_hf.inputs.wording import ASKED_COLUMNS
from storm_hf.optional import require


DATA = "data"
MANIFEST = "manifest.json"
FEATURES_COLUMN = "thought_features"
CLIP_COLUMNS = (
    "clip_source",
    "clip_license",
    "clip_file",
)  # provenance: a copy of the shards alone determines what may be published


_TOLD = ("chain_of_thought", "terse_chain", "clip_caption", "thought_caption")  # by a world


def storm_thoughts_features(
    hidden_size: int, num_cells: int, *, is_world: bool = False, has_wordings: bool = False
) -> Any:
    """Describe the columns of a storm-thoughts data set.

    Args:
        hidden_size (`int`):
            Size of the features, which is that of the backbone's embeddings.
        num_cells (`int`):
            Merged cells of a temporal patch, the same for all thought videos of a data set.
        is_world (`bool`, *optional*, defaults to `False`):
            Whether to add what a simulator knows besides: depth, states, both chains and both captions. It drew the clips too;
            other rows have the collection, licence and file of their clip.
        has_wordings (`bool`, *optional*, defaults to `False`):
            Whether to add what an [`~storm_hf.thought_video.AskedExample`] knows besides: the usual question, the choices and
            their form, the outcome, and the reasoning as a language model would write it.

    Returns:
        [`~datasets.Features`]: `thought_features` has the shape `(temporal patches, cells, hidden size)` and any number of
        temporal patches, so that K, pooling and whitening can change without encoding again.

    Raises:
        DependencyError: If `datasets` is not installed.
    """
    datasets = require("datasets")
    text, texts = datasets.Value("string"), datasets.List(datasets.Value("string"))
    columns = {
        "id": text,
        "video": text,
        "question": text,
        "options": texts,
        "answer": text,
        FEATURES_COLUMN: datasets.Array3D((None, num_cells, hidden_size), "float16"),
        "thought_fps": datasets.Value("float32"),
        "thought_source": text,
        "thought_prompt": text,
        "thought_video": text,
        "seed": datasets.Value("int64"),
        "generator": text,
        "generator_revision": text,
        "encoder": text,
        "encoder_revision": text,
        "license": text,
    }
    if not is_world:
        return datasets.Features(columns | dict.fromkeys(CLIP_COLUMNS, text))
    columns |= {"depth": datasets.Value("int32"), "states": texts, **dict.fromkeys(_TOLD, text)}
    if has_wordings:
        columns |= {name: texts if name == "choices" else text for name in ASKED_COLUMNS}
    return datasets.Features(columns)
