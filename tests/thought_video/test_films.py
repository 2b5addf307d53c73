import shutil

import pytest
from tests.thought_video.questions import numbered_clip

from storm_hf.errors import ConfigurationError, DatasetError
from storm_hf.thought_video import FilmRecipe, FilmSplit, SegmentSettings


@pytest.fixture
def folders(tmp_path):
    """Two films to train on, one of them in a folder, and one to test on."""
    for name, count in (("train/a.mp4", 50), ("train/more/b.avi", 51), ("test/a.mp4", 52)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        numbered_clip((tmp_path / name).parent, count).rename(tmp_path / name)
    (tmp_path / "train" / "notes.txt").write_text("no film")
    return tmp_path


def recipe(folders, count=8, **settings):
    splits = {name: FilmSplit(folder=str(folders / name), count=count) for name in ("train", "test")}
    return FilmRecipe(splits=splits, **settings)


def test_films_are_found_by_their_names_and_other_files_are_none(folders):
    found = recipe(folders).find()
    assert {split: list(films) for split, films in found.items()} == {"train": ["a", "more/b"], "test": ["a"]}


def test_questions_are_spread_over_films_and_tasks_and_name_them(folders, tmp_path):
    rows = list(recipe(folders, license="CC0-1.0").annotations("train", tmp_path, len))
    assert [row.id for row in rows[:5]] == [
        "train-order-000000-a",
        "train-next-000001-a",
        "train-order-000002-more/b",
        "train-next-000003-more/b",
        "train-order-000004-a",
    ]
    assert {row.license for row in rows} == {"CC0-1.0"}
    assert len({row.video for row in rows}) == 8
    (only,) = {row.id.split("-")[1] for row in recipe(folders, segments=SegmentSettings(tasks=("next",))).annotations("test", tmp_path, len)}  # fmt: skip
    assert only == "next"


@pytest.mark.parametrize("link", [False, True])
def test_film_of_two_splits_is_refused_under_whatever_name(folders, link):
    other = folders / "test" / "other name.mp4"
    if link:
        other.symlink_to(folders / "train" / "a.mp4")
    else:
        shutil.copy(folders / "train" / "a.mp4", other)
    with pytest.raises(DatasetError, match=r"other name.mp4 is the same film as .*train/a.mp4 of train"):
        recipe(folders).find()


def test_film_that_is_twice_in_one_split_is_no_error(folders):
    shutil.copy(folders / "train" / "a.mp4", folders / "train" / "again.mp4")
    assert list(recipe(folders).find()["train"]) == ["a", "again", "more/b"]


def test_folder_without_films_and_two_films_of_one_name_are_refused(folders):
    with pytest.raises(DatasetError, match="Expected films .* in the folder .*nowhere but found none"):
        FilmSplit(folder=str(folders / "nowhere"), count=1).find()
    shutil.copy(folders / "train" / "a.mp4", folders / "train" / "a.mkv")
    with pytest.raises(DatasetError, match="one film of the name a .* a.mkv and a.mp4"):
        recipe(folders).find()


def test_split_with_a_hyphen_is_refused(folders):
    with pytest.raises(ConfigurationError, match="without a hyphen but got my-train"):
        FilmRecipe(splits={"my-train": FilmSplit(folder=str(folders), count=1)})
