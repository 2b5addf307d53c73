"""Rows as trainers read them: half-precision arrays as such, in half the bytes, with the same results."""

import numpy as np
import pytest
import torch
from datasets import Array2D, Dataset, Features, List, Value
from tests.tiny import GRID_KINDS, tiny_storm
from tests.training.tiny_training import NUM_LATENTS, TinyCollator

from storm_hf.training.samplers import with_arrays


@pytest.fixture(scope="module")
def rows():
    features = Features(
        {
            "half": Array2D((None, 3), "float16"),
            "single": Array2D((None, 3), "float32"),
            "ids": List(Value("int32")),
            "text": Value("string"),
            "nothing": Value("string"),
        }
    )
    draws = np.random.default_rng(0)
    row = {
        "half": draws.standard_normal((2, 3)).astype(np.float16),
        "single": draws.standard_normal((2, 3)).astype(np.float32),
        "ids": [70_001, 2],
        "text": "left",
        "nothing": None,
    }
    return Dataset.from_list([row, row], features=features)


def test_half_precision_arrays_are_handed_out_as_arrays_and_all_else_as_before(rows):
    plain, read = rows[0], with_arrays(rows)[0]
    assert isinstance(plain["half"], list)
    assert isinstance(read["half"], np.ndarray)
    assert read["half"].dtype == np.float16
    assert read["half"].tolist() == plain["half"]
    for name in ("single", "ids", "text", "nothing"):
        assert read[name] == plain[name]
        assert type(read[name]) is type(plain[name])


def test_rows_that_need_no_arrays_or_have_a_format_stay_as_they_are(rows):
    formatted = rows.with_format("numpy")
    plain = rows.remove_columns("half")
    assert with_arrays(formatted) is formatted
    assert with_arrays(plain) is plain
    assert with_arrays([1, 2]) == [1, 2]


@pytest.mark.parametrize("kind", GRID_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_in_half_precision_give_what_the_same_numbers_in_single_give(kind, dtype):
    model = tiny_storm(kind, num_latents=NUM_LATENTS).to(dtype)
    batch = TinyCollator(kind)([{"number": 1}, {"number": 2}])
    pixels = batch.pop("pixel_values_videos").to(dtype)
    features = model.encode_video(pixel_values_videos=pixels, video_grid_thw=batch["video_grid_thw"])
    halves = {name: value.half() for name, value in features.items()}
    outputs = [
        model(**batch, **{name: value.to(as_type) for name, value in halves.items()})
        for as_type in (torch.half, torch.float)
    ]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert torch.equal(outputs[0].latents, outputs[1].latents)
