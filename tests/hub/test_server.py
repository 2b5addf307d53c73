"""The loopback Hub answers real clients as the Hub does."""

from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


# The client uploads in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "me/some"


@pytest.fixture
def repo(api):
    api.create_repo(REPO, repo_type="dataset", private=True)
    files = {"README.md": b"hello", "data/a.parquet": b"large" * 10}
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    api.create_commit(REPO, operations, commit_message="two files", repo_type="dataset")
    return REPO


def test_small_and_large_files_come_back(api, repo, tmp_path):
    for name, content in {"README.md": b"hello", "data/a.parquet": b"large" * 10}.items():
        path = api.hf_hub_download(repo, name, repo_type="dataset", cache_dir=tmp_path)
        assert Path(path).read_bytes() == content
    infos = api.list_repo_tree(repo, repo_type="dataset", recursive=True)
    assert sorted(info.path for info in infos) == ["README.md", "data", "data/a.parquet"]


def test_what_is_missing_is_a_typed_error(api, repo, tmp_path):
    download = {"repo_type": "dataset", "cache_dir": tmp_path}
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("me/nothing")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "nothing.txt", **download)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, "README.md", revision="nothing", **download)


def test_private_repository_is_not_there_without_token(api, url, repo):
    stranger = HfApi(endpoint=url, token=False)
    with pytest.raises(RepositoryNotFoundError):
        stranger.dataset_info(repo)
    api.update_repo_settings(repo, private=False, repo_type="dataset")
    assert stranger.dataset_info(repo).private is False


def test_branch_and_tag_keep_their_commit(api, repo):
    api.create_branch(repo, branch="other", repo_type="dataset")
    api.create_tag(repo, tag="v1", repo_type="dataset")
    api.create_commit(repo, [CommitOperationDelete("README.md")], commit_message="one less", repo_type="dataset")
    files = {
        name: set(api.list_repo_files(repo, repo_type="dataset", revision=name)) for name in ("main", "other", "v1")
    }
    assert files == {"main": {"data/a.parquet"}, **dict.fromkeys(("other", "v1"), {"README.md", "data/a.parquet"})}
    assert [tag.name for tag in api.list_repo_refs(repo, repo_type="dataset").tags] == ["v1"]


def test_range_is_a_part(repo, url):
    headers = {"Range": "bytes=5-9", "Authorization": "Bearer hf_test"}
    answer = httpx2.get(f"{url}/datasets/{repo}/resolve/main/data/a.parquet", headers=headers)
    assert answer.status_code == 206
    assert answer.content == b"large"
    assert answer.headers["Content-Range"] == "bytes 5-9/50"
    assert answer.headers["ETag"]


def test_upload_is_cut_in_the_middle_and_refused_until_the_switch_is_off(api, repo, store):
    store.bytes_until_cut = 10
    upload = {"path_or_fileobj": b"new" * 10, "path_in_repo": "b.parquet", "repo_id": repo, "repo_type": "dataset"}
    with pytest.raises((HfHubHTTPError, RuntimeError)):
        api.upload_file(**upload)
    assert not store.repositories["dataset", repo].files().get("b.parquet")
    store.bytes_until_cut = None
    api.upload_file(**upload)
    assert store.read(repo, "b.parquet") == b"new" * 10
