"""The card of a data set has its own numbers, and says nothing that is not known."""

from collections import Counter

import pytest
from huggingface_hub import DatasetCard

from storm_hf.hub.dataset_card import Published, dataset_card


MANIFEST = {
    "num_rows": {"train": 1200, "test": 10},
    "num_rejected": {"20_prompts": {"no prompt": 2}, "30_thought_videos": {"unreadable": 31}},
    "feature_shape": [4, 2048],
    "encoder": "Qwen/Qwen2.5-VL-3B-Instruct",
    "encoder_revision": "0123abcd",
    "settings": {"num_latents": 8, "rank": 64},
}
LEAST = {**MANIFEST, "num_rejected": {}, "encoder": "/home/somebody/tiny", "settings": {}}


def published(has_videos=True, licenses=("CC0-1.0",)):
    counts = Counter(dict.fromkeys(licenses, 1210 // len(licenses)))
    files = [
        f"{folder}/{split}-00000-of-00001.parquet" for folder in ("data", "videos") for split in ("train", "test")
    ]
    files.remove("videos/test-00000-of-00001.parquet")
    return Published(
        sources=Counter({"street": 1210}),
        licenses=counts,
        withheld=Counter() if has_videos else counts,
        thought_licenses=counts,
        generators=Counter({("wan", "abc"): 1210}),
        num_bytes=Counter({"data": 1_234_567, "videos": 2_000_000 if has_videos else 0}),
        files=dict.fromkeys(files if has_videos else files[:2], "0"),
    )


@pytest.mark.parametrize("manifest", [MANIFEST, LEAST], ids=["everything", "least"])
@pytest.mark.parametrize("has_videos", [True, False])
def test_card_has_no_placeholder(manifest, has_videos, tmp_path):
    path = tmp_path / "README.md"
    dataset_card("me/thoughts", manifest, published(has_videos)).save(path)
    card = DatasetCard.load(path)
    for placeholder in ("None", "{{", "}}", "{%", "More Information", "[More", "nan", "/home"):
        assert placeholder not in str(card), placeholder
    assert None not in card.data.to_dict().values()


def test_numbers_are_the_runs_own():
    content = dataset_card("me/thoughts", MANIFEST, published()).content
    lines = [
        "| train | 1,200 |",
        "| street | 1,210 |",
        "| wan | abc | 1,210 |",
        "| 30_thought_videos | unreadable | 31 |",
    ]
    assert [line for line in lines if line not in content] == []
    assert "The features are 1.2 MB, the videos 2.0 MB." in content
    assert "--model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct" in content


def test_tables_have_no_blank_lines_within():
    content = dataset_card("me/thoughts", MANIFEST, published()).content
    assert "| train | 1,200 |\n| test | 10 |\n\n" in content
    assert "| 20_prompts | no prompt | 2 |\n| 30_thought_videos | unreadable | 31 |\n\n## Load it" in content


def test_configurations_name_the_files_that_are_there():
    features, videos = dataset_card("me/thoughts", MANIFEST, published()).data.configs
    assert features["default"] is True
    assert [each["split"] for each in features["data_files"]] == ["train", "test"]
    assert videos["data_files"] == [{"split": "train", "path": "videos/train-*.parquet"}]


@pytest.mark.parametrize(
    ("licenses", "named"), [(("CC0-1.0",), "cc0-1.0"), (("CC0-1.0", "MIT"), "other"), (("unknown",), None)]
)
def test_licence_is_the_one_of_all_rows(licenses, named):
    assert dataset_card("me/thoughts", MANIFEST, published(licenses=licenses)).data.to_dict().get("license") == named
