"""Plain rows: text without a clip, and the record of what a model predicts on it before training.

A recorded row has four columns beside its own. Axes: S tokens, N supervised tokens, k recorded tokens of the vocabulary.

input_ids         (S)         the prompt and its completion without a latent block, or the text
labels            (S)         the same, and -100 where nothing is predicted
before_ids        (N, k)      the most probable next tokens
before_log_probs  (N, k + 1)  their log-probabilities; the last is that of all other tokens together
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets, load_dataset
from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from storm_hf.errors import DatasetError
from storm_hf.evaluation.language.plain import answer_plainly, evaluating
from storm_hf.evaluation.language.texts import read_texts
from storm_hf.inputs.collator import IGNORED_LABEL, AnswerCollator
from storm_hf.inputs.conversation import Row, as_text, is_filled, naming_row
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.training.language_loss import log_probs_with_rest, stack_language, supervised_logits
from storm_hf.training.loading import check_text, load_rows, pick_split, unreadable_rows_named


TOP_K = 64
_ENCODED = {"input_ids": List(Value("int32")), "labels": List(Value("int32"))}
_RECORDED = {"before_ids": List(List(Value("int32"))), "before_log_probs": List(List(Value("float32")))}
COLUMNS = (*_ENCODED, *_RECORDED)
_FORMS = ("prompt", "messages", "text")
_KIND_OF_FILE = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_END_TOKENS = 4  # decoding an answer and encoding it again may join so many


def load_language(name_or_path: str) -> Dataset:
    """Load plain rows.

    Args:
        name_or_path (`str`):
            A `.txt` file, whose paragraphs become rows with `text`; a `.json`, `.jsonl` or `.parquet` file; or a folder or a
            name on the Hub, of which the split `train` is taken.

    Raises:
        DatasetError: If the file is of another kind or cannot be loaded, or there is no split `train`.
    """
    path = Path(name_or_path)
    if not path.is_file():
        return pick_split(load_rows(name_or_path), "train", "language_dataset_name")
    if path.suffix == ".txt":
        return Dataset.from_dict({"text": read_texts(path)})
    if path.suffix not in _KIND_OF_FILE:
        raise DatasetError(
            f"Expected plain rows in a file of the kind .txt, {', '.join(_KIND_OF_FILE)}, got {path}. Convert it to one of them."
        )
    with unreadable_rows_named(name_or_path):
        rows = load_dataset(_KIND_OF_FILE[path.suffix], data_files=str(path), split="train")
    check_text(rows, name_or_path)
    return rows


def answers_before(
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    prompts: Sequence[str],
    max_new_tokens: int = 128,
    batch_size: int = 32,
) -> Dataset:
    """Have a model answer plain prompts before it is trained, to be trained on its own answers.

    Args:
        model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            The model before training.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        prompts (`Sequence[str]`):
            Questions and instructions, such as those of `storm_hf.evaluation.language.read_training_prompts`.
        max_new_tokens (`int`, *optional*, defaults to `128`):
            Longest answer; a longer one is cut off.
        batch_size (`int`, *optional*, defaults to `32`):
            Number of prompts that are answered together.

    Returns:
        [`~datasets.Dataset`]: Rows with `prompt`, `completion` and `is_complete`, which is False where the answer was cut off, or
        may have been: then its end is not supervised.
    """
    answers = answer_plainly(model, processor, prompts, max_new_tokens, batch_size=batch_size)
    lengths = [len(processor.tokenizer.encode(answer, add_special_tokens=False)) for answer in answers]
    is_complete = [length < max_new_tokens - _END_TOKENS for length in lengths]
    return Dataset.from_dict({"prompt": list(prompts), "completion": answers, "is_complete": is_complete})


def encode_language(processor: ProcessorMixin, config: PreTrainedConfig, rows: Dataset | Sequence[Row]) -> Dataset:
    """Tokenize plain rows, without a latent block.

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            The model's processor.
        config ([`StormConfig`]):
            Configuration of the model.
        rows ([`~datasets.Dataset`]):
            Rows with `prompt` and `completion` or with `messages`, whose answer is supervised, or with `text`, of which all
            tokens are. The end of an answer with a False `is_complete` is not supervised. Rows that are recorded stay as they are.

    Returns:
        [`~datasets.Dataset`]: The rows with `input_ids` and `labels`.

    Raises:
        DatasetError: If there are no rows, or a row has another form, a clip, or nothing to predict; the message names the row.
    """
    rows = rows if isinstance(rows, Dataset) else _as_dataset(rows)
    if len(rows) == 0:
        raise DatasetError("Expected plain rows, got none. Leave `language_dataset` out, or give rows with `text`.")
    collator = AnswerCollator(PromptEncoder(processor, config, num_latents=0))
    if is_encoded(rows):
        _check_encoding(collator, rows)
        return rows
    encoded = [_encode(collator, row, position) for position, row in enumerate(rows.with_format(None))]
    columns = {name: [row[name] for row in encoded] for name in _ENCODED}
    return _with_columns(rows, columns, _ENCODED)


def _as_dataset(rows: Sequence[Row]) -> Dataset:
    """Make a data set with the columns of all rows; `Dataset.from_list` takes those of the first."""
    names = dict.fromkeys(name for row in rows for name in row)
    return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})


def _encode(collator: AnswerCollator, row: Row, position: int) -> dict[str, list[int]]:
    prompts = collator.prompts
    if is_filled(row, "text") and not is_filled(row, "prompt") and not is_filled(row, "messages"):
        with naming_row(row, position):
            text = as_text(row["text"], "text")
        tokens = prompts.processor.tokenizer.encode(text, split_special_tokens=True)
        encoded = {"input_ids": tokens, "labels": [IGNORED_LABEL, *tokens[1:]]}
    else:
        _check_plain(prompts, row, position)
        batch = collator([row])
        encoded = {name: batch[name][0].tolist() for name in _ENCODED}
        if row.get("is_complete") is False:
            encoded["labels"][-1] = IGNORED_LABEL
    with naming_row(row, position):
        if all(label == IGNORED_LABEL for label in encoded["labels"]):
            raise DatasetError("Expected a text of two tokens or more, got a shorter one. Leave the row out.")
    return encoded


def _check_plain(prompts: PromptEncoder, row: Row, position: int) -> None:
    """Refuse a row with a clip or a picture, which belongs to the rows that are trained on with latents."""
    parts = [part for message in prompts.messages(row, position) for part in message["content"]]
    prompts.completion(row, position)
    kinds = sorted({part["type"] for part in parts} - {"text"})
    with naming_row(row, position):
        if kinds:
            raise DatasetError(
                f"Expected a plain row, of text alone, got one with {' and '.join(kinds)}. Put it into `train_dataset`."
            )


def _check_encoding(collator: AnswerCollator, rows: Dataset) -> None:
    """Compare the first row with its text, which another tokenizer or template would encode otherwise."""
    first = rows.with_format(None)[0]
    if not any(is_filled(first, name) for name in _FORMS):
        return
    if _encode(collator, first, 0)["input_ids"] != list(first["input_ids"]):
        raise DatasetError(
            "The plain rows were recorded with another tokenizer or chat template than that of the model. Record them again "
            "with `record_language(model, processor, rows)`."
        )


@torch.no_grad()
def record_language(
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    rows: Dataset | Sequence[Row],
    top_k: int = TOP_K,
    batch_size: int = 8,
) -> Dataset:
    """Record what a model predicts on plain rows, to hold a later model to it.

    Args:
        model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            The model before training. Under autocast it is recorded as autocast computes it.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        rows ([`~datasets.Dataset`]):
            Plain rows: `prompt` and `completion`, `messages`, or `text`. An earlier record is replaced.
        top_k (`int`, *optional*, defaults to `64`):
            Number of recorded tokens of the vocabulary at each position. All others are recorded as one, so that a divergence
            computed from the record is a lower bound of the exact one, and equal to it where `top_k` is the vocabulary.
        batch_size (`int`, *optional*, defaults to `8`):
            Number of rows in a forward pass.

    Returns:
        [`~datasets.Dataset`]: The rows with `input_ids`, `labels`, `before_ids` and `before_log_probs`. `to_parquet` saves them.

    Raises:
        DatasetError: If a row is no plain row.
    """
    rows = encode_language(processor, model.config, rows)
    with evaluating(model):
        columns = _predictions(model, rows, top_k, batch_size)
    return _with_columns(rows, columns, _RECORDED)


def _predictions(
    model: PreTrainedModel | PeftModel, rows: Dataset, top_k: int, batch_size: int
) -> dict[str, list[np.ndarray]]:
    encoded = rows.with_format("torch", columns=list(_ENCODED))
    order = np.argsort(
        [len(tokens) for tokens in rows.with_format(None)["input_ids"]], kind="stable"
    )  # little padding
    columns: dict[str, list[np.ndarray]] = {name: [np.empty(0)] * len(rows) for name in _RECORDED}
    for start in range(0, len(order), batch_size):
        positions = order[start : start + batch_size].tolist()
        batch = [encoded[position] for position in positions]
        logits, _ = supervised_logits(model, stack_language(batch, model.device))
        ids = logits.topk(min(top_k, logits.shape[-1])).indices
        counts = [int((row["labels"] != IGNORED_LABEL).sum()) for row in batch]
        for name, values in zip(_RECORDED, (ids, log_probs_with_rest(logits, ids)), strict=True):
            for position, part in zip(positions, values.cpu().split(counts), strict=True):
                columns[name][position] = part.numpy()
    return columns


def is_encoded(rows: Dataset) -> bool:
    """Check that plain rows have their tokens."""
    return _ENCODED.keys() <= set(rows.column_names)


def is_recorded(rows: Dataset) -> bool:
    """Check that plain rows have their tokens and what the model before predicts."""
    return is_encoded(rows) and _RECORDED.keys() <= set(rows.column_names)


def _with_columns(rows: Dataset, columns: dict[str, list], features: dict[str, List]) -> Dataset:
    rows = rows.remove_columns([name for name in features if name in rows.column_names])
    added = Dataset.from_dict(columns, features=Features(features))
    return concatenate_datasets([rows, added], axis=1) if rows.column_names else added
