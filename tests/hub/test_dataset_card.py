"""The card of a data set has its own numbers, and says nothing that is not known."""

from collections import Counter

import pytest
from huggingface_hub import DatasetCard
from tests.hub.metadata import metadata_problems

from storm_hf.errors import DatasetError
from storm_hf.hub.card_metadata import check_card
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


@pytest.mark.parametrize(
    ("sources", "sentences"),
    [
        ({"rendered_chain": 1210}, ["A written chain of thought was drawn as text"]),
        (
            {"evidence": 10, "simulator": 1200},
            ["moments of the clip itself that its annotations name", "A simulator drew"],
        ),
    ],
)
def test_card_says_how_the_thought_videos_were_made(sources, sentences):
    content = dataset_card("me/thoughts", {**MANIFEST, "thoughts": {"source": sources}}, published()).content
    made = content.partition("## How the thought videos were made\n\n")[2].partition("\n\n## Licences\n\n")[0]
    assert len(made.splitlines()) == len(sentences)
    assert all(sentence in made for sentence in sentences)
    assert "How the thought videos" not in dataset_card("me/thoughts", MANIFEST, published()).content


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


MARKUP = "CC0 | 9 |\n\n# Injected\n\n<img src=x onerror=alert(1)> [click](javascript:x) `code` **loud**\n---\nlicense: mit\n---\n"


@pytest.mark.parametrize("place", ["licenses", "sources", "generators", "reasons", "encoder"])
def test_words_of_others_write_no_markup_and_no_metadata(place):
    manifest, counts = {**MANIFEST}, published()
    if place == "reasons":
        manifest["num_rejected"] = {MARKUP: {MARKUP: 3}}
    elif place == "encoder":
        manifest |= {"encoder": MARKUP, "encoder_revision": MARKUP}
    else:
        setattr(counts, place, Counter({(MARKUP, MARKUP) if place == "generators" else MARKUP: 1210}))
    card = dataset_card("me/thoughts", manifest, counts)
    plain = dataset_card("me/thoughts", MANIFEST, published()).content
    lines, told = card.content.splitlines(), [line for line in card.content.splitlines() if "Injected" in line]
    assert told
    assert not [line for line in lines if line.startswith("# Injected")]
    assert card.content.count("\n#") == plain.count("\n#")
    for line in told:
        if place == "encoder":
            assert line.count("`") % 2 == 0  # stays within its code
        else:
            assert not any(
                each in line for each in ("<img", " # Injected", "alert(1)", " [click]", " `code`", " **loud**")
            )
            assert line.replace("\\|", "").count("|") in (3, 4)
    assert card.data.to_dict().get("license") != "mit"


@pytest.mark.parametrize("num_rows", [0, 10**3, 10**5, 10**6, 10**7, 10**13])
def test_metadata_is_what_the_hub_takes_at_any_size(num_rows):
    text = str(dataset_card("me/thoughts", {**MANIFEST, "num_rows": {"train": num_rows + 1}}, published()))
    check_card(text, "dataset")
    assert metadata_problems(text, "dataset") == []


@pytest.mark.parametrize("num_rows", [{}, {"train": 0}, {"a b": 1}, {"x\n# y": 1}])
def test_splits_without_rows_or_with_strange_names_are_refused(num_rows):
    with pytest.raises(DatasetError, match="splits with rows and plain names"):
        dataset_card("me/thoughts", {**MANIFEST, "num_rows": num_rows}, published())
