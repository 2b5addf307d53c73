import pytest

from storm_hf.errors import PublicationError
from storm_hf.hub.refusals import check_folder, check_texts, without_folders


@pytest.mark.parametrize("text", ["/home/me/a.mp4", "see /tmp/x/y.mp4 here", r"C:\Users\me\a.mp4"])
def test_local_path_in_a_text_is_refused(text):
    with pytest.raises(PublicationError, match="paths of this machine"):
        check_texts([None, text], "the card")


@pytest.mark.parametrize(
    "text", ["left/right", "https://example.com/home/page", "either / or", "videos/tmp/a.mp4", "1/2"]
)
def test_other_slashes_are_no_path(text):
    check_texts([text], "the card")


@pytest.mark.parametrize("secret", ["hf_" + "a" * 34, "sk-" + "b" * 24, "AKIA" + "C" * 16, "ghp_" + "d" * 36])
def test_credential_is_refused_and_not_shown(secret):
    with pytest.raises(PublicationError, match="credentials") as caught:
        check_texts([f"the key is {secret}"], "the column question")
    assert secret not in str(caught.value)


def test_absolute_path_becomes_the_name_of_its_file():
    content = {"a": ["/srv/clips/1.mp4", "relative/2.mp4"], "b": {"c": "~/x/3.mp4", "d": 4}, "e": "C:\\clips\\5.mp4"}
    names = {"a": ["1.mp4", "relative/2.mp4"], "b": {"c": "3.mp4", "d": 4}, "e": "5.mp4"}
    assert without_folders(content) == names


def test_work_of_a_build_is_not_looked_at(tmp_path):
    for folder in ("work", ".locks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cache.pkl").write_text("x")
    check_folder(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "cache.pkl").write_text("x")
    with pytest.raises(PublicationError, match=r"videos/cache\.pkl"):
        check_folder(tmp_path)
