import json

import pytest
from tests.hub.seeds import PATHS, PICKLES, SECRETS, SEEDS, sow

from storm_hf.errors import PublicationError
from storm_hf.hub.contents import is_video
from storm_hf.hub.leak_checks import check_document, check_json, check_published, check_texts, without_folders


@pytest.mark.parametrize("text", ["/home/me/a.mp4", "see /tmp/x/y.mp4 here", r"C:\Users\me\a.mp4", "in ~/clips/a.mp4"])
def test_local_path_in_the_words_of_a_row_is_refused(text):
    with pytest.raises(PublicationError, match="paths of this machine"):
        check_texts([None, text], "the column question")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "left/right",
            "https://example.com/home/page",
            "either / or",
            "videos/tmp/a.mp4",
            "1/2",
            "~3 balls",
            "a: /red/",
        ),
        *("</think> /no_think", "[x](https://a.b/c)", "50 %/min", "what is ~/?"),
    ],
)
def test_other_slashes_are_no_path(text):
    check_texts([text], "the column question")
    check_document(text, "the card")


@pytest.mark.parametrize("secret", ["hf_" + "a" * 34, "sk-" + "b" * 24, "AKIA" + "C" * 16, "ghp_" + "d" * 36])
def test_credential_is_refused_and_not_shown(secret):
    with pytest.raises(PublicationError, match="credentials") as caught:
        check_texts([f"the key is {secret}"], "the column question")
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            '"eos_token": "<|endoftext|>"',
            "token = Sam3TrackerAttention(config)",
            "pad_token_id: 151643",
            "password: none",
        ),
        *("a task-oriented-dialogue-system", "commit 0123456789abcdef0123456789abcdef01234567", "https://me@host/x"),
        *('"tokenizer_class": "Qwen2TokenizerFast"', "the token is: left", "sha256:" + "0123456789abcdef" * 4),
    ],
)
def test_what_only_looks_like_a_credential_is_published(text):
    check_texts([text], "the card")


@pytest.mark.parametrize(
    ("names", "message"),
    [(SECRETS, "credentials"), (PICKLES, "pickled|looked into"), (PATHS, "paths of this machine")],
    ids=["secrets", "pickles", "paths"],
)
def test_seed_is_refused_by_its_content_whatever_its_name(names, message, tmp_path):
    sow(tmp_path)
    for name in names:
        with pytest.raises(PublicationError, match=message) as caught:
            check_published(tmp_path / name, name)
        assert name in str(caught.value)


def test_there_are_many_kinds_of_seeds():
    assert len(SEEDS) >= 60


@pytest.mark.parametrize("key", ["/home/jo/base", "file:///x"])
def test_path_in_the_name_of_a_field_is_refused(key):
    with pytest.raises(PublicationError, match="in config.json"):
        check_json({"map": {key: 1}}, "config.json")


def test_entries_of_a_vocabulary_are_no_paths(tmp_path):
    words = {
        "model": {"vocab": {"/home": 1, "/usr/local": 2}, "merges": ["/home /jo"]},
        "added_tokens": [{"content": "/tmp/"}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    check_published(tmp_path / "tokenizer.json", "tokenizer.json")


def test_absolute_path_becomes_the_name_of_its_file():
    content = {"a": ["/srv/clips/1.mp4", "relative/2.mp4"], "b": {"c": "~/x/3.mp4", "d": 4}, "e": "C:\\clips\\5.mp4"}
    names = {"a": ["1.mp4", "relative/2.mp4"], "b": {"c": "3.mp4", "d": 4}, "e": "5.mp4"}
    assert without_folders(content) == names


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        *((b"\x00\x00\x00\x18ftypmp42", True), (b"\x1a\x45\xdf\xa3", True), (b"RIFF\x00\x00\x00\x00AVI ", True)),
        *(
            (b"\x47" + bytes(187) + b"\x47" + bytes(400), True),
            (b"root:x:0:0", False),
            (b"SQLite format 3\x00", False),
        ),
        *((b"", False), (b"RIFF\x00\x00\x00\x00WAVE", False), (b"PK\x03\x04", False)),
    ],
)
def test_video_is_told_by_how_it_begins(head, expected, tmp_path):
    (tmp_path / "a.mp4").write_bytes(head)
    assert is_video(tmp_path / "a.mp4") is expected
