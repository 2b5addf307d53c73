import json

import pytest
from tests.thought_video.questions import numbered_clip, question
from tests.video.clips import numbers

from storm_hf.errors import DatasetError, MachineError
from storm_hf.thought_video import FolderGenerator, Rejected, file_stem


@pytest.fixture
def clip(tmp_path):
    """The clip that is asked about; the thought videos lie in the folder beside it."""
    (tmp_path / "thoughts").mkdir()
    return numbered_clip(tmp_path)


@pytest.fixture
def root(clip):
    return clip.parent / "thoughts"


def put(folder, name, count=8, **known):
    made = numbered_clip(folder, count)
    made.rename(folder / f"{name}.mp4")
    if known:
        (folder / f"{name}.json").write_text(json.dumps(known))


def take(root, asked, **settings):
    return FolderGenerator(root, **settings).generate(asked, prompt="not looked at", seed=3)


def test_clip_is_found_by_the_id(clip, root):
    put(root, "q1")
    thought = take(root, question(clip, time_seconds=1.0), license="CC0-1.0", name="a person")
    assert numbers(thought.read()) == list(range(8))
    assert (thought.fps, thought.seed, thought.license, thought.generator) == (10.0, 3, "CC0-1.0", "a person")
    assert (thought.prompt, thought.seen_until_seconds) == ("", 1.0)


@pytest.mark.parametrize("name", ["Clip_A", None])
def test_id_with_capitals_is_found_under_itself_and_under_its_stem(clip, root, name):
    put(root, name or file_stem("Clip_A"))
    assert numbers(take(root, question(clip, id="Clip_A")).read()) == list(range(8))


def test_folder_that_goes_away_is_no_fault_of_its_clips(clip, root):
    generator = FolderGenerator(root)
    root.rename(root.with_name("away"))
    with pytest.raises(MachineError, match="was there before and is gone"):
        generator.generate(question(clip), prompt="", seed=0)


def test_sidecar_says_what_is_known(clip, root):
    put(root, "q1", prompt="turn left", seed=99, generator="kling", revision="2", license="MIT", more="ignored")
    thought = take(root, question(clip))
    assert (thought.prompt, thought.seed, thought.license) == ("turn left", 99, "MIT")
    assert (thought.generator, thought.generator_revision) == ("kling", "2")


def test_mapping_says_where_clips_lie(clip, root):
    put(root, "other")
    mapping = root / "map.json"
    mapping.write_text(json.dumps({"q1": "other.mp4", "q2": "../clip.mp4"}))
    assert take(root, question(clip), mapping=mapping).path == root / "other.mp4"
    assert take(root, question(clip, id="q2"), mapping=mapping).kind == "outside"
    assert take(root, question(clip, id="other"), mapping=mapping).kind == "missing"


def test_id_is_no_way_out_of_the_folder(clip, root):
    assert take(root, question(clip, id="../clip")).kind == "missing"


@pytest.mark.parametrize(
    ("content", "kind"),
    [("{", "malformed"), ("[]", "malformed"), ('{"seed": "one"}', "malformed"), ('{"seed": true}', "malformed")],
)
def test_malformed_sidecar_rejects_its_row(clip, root, content, kind):
    put(root, "q1")
    (root / "q1.json").write_text(content)
    rejected = take(root, question(clip))
    assert isinstance(rejected, Rejected)
    assert rejected.kind == kind


def test_clip_that_is_no_video_rejects_its_row(clip, root):
    (root / "q1.mp4").write_text("<html>")
    assert take(root, question(clip)).kind == "unreadable"


def test_missing_folder_and_malformed_mapping_are_errors(clip, root):
    with pytest.raises(DatasetError, match="there is none"):
        FolderGenerator(root / "nowhere")
    (root / "map.json").write_text('{"q1": 3}')
    with pytest.raises(DatasetError, match="'q1' to the path"):
        FolderGenerator(root, mapping=root / "map.json")
