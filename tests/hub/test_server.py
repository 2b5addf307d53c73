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


@pytest.fixture(params=["model", "dataset", "space"])
def kind(request):
    return request.param


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


def test_each_kind_of_repository_is_made_written_read_and_removed(api, kind, tmp_path):
    options = {"space_sdk": "gradio"} if kind == "space" else {}
    url = api.create_repo(REPO, repo_type=kind, private=True, **options)
    assert url.repo_id == REPO
    api.upload_file(path_or_fileobj=b"hello", path_in_repo="app.py", repo_id=REPO, repo_type=kind)
    path = api.hf_hub_download(REPO, "app.py", repo_type=kind, cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"hello"
    assert getattr(api.repo_info(REPO, repo_type=kind), "sdk", None) == ("gradio" if kind == "space" else None)
    titles = [commit.title for commit in api.list_repo_commits(REPO, repo_type=kind)]
    assert titles == ["Upload app.py with huggingface_hub", "initial commit"]
    api.delete_repo(REPO, repo_type=kind)
    assert not api.repo_exists(REPO, repo_type=kind)


def test_one_name_can_be_of_every_kind(api):
    for kind in ("model", "dataset", "space"):
        api.create_repo(REPO, repo_type=kind, private=True, space_sdk="static" if kind == "space" else None)
    api.upload_file(path_or_fileobj=b"hello", path_in_repo="a.txt", repo_id=REPO)
    assert not api.file_exists(REPO, "a.txt", repo_type="dataset")


def test_token_says_who_and_a_wrong_one_is_401(api, url):
    assert api.whoami()["name"] == "me"
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(endpoint=url, token="hf_wrong").whoami()
    assert caught.value.response.status_code == 401


def status_of(call, *args, **options):
    with pytest.raises(HfHubHTTPError) as caught:
        call(*args, **options)
    return caught.value.response.status_code


def test_errors_have_the_codes_of_the_hub(api, url, repo, store):
    commit = {"repo_id": repo, "repo_type": "dataset", "commit_message": "one more"}
    operations = [CommitOperationAdd("b.txt", b"b")]
    stranger, store.readers = HfApi(endpoint=url, token="hf_wrong"), {"hf_reader"}
    store.tokens.add("hf_reader")
    reader = HfApi(endpoint=url, token="hf_reader")
    assert status_of(stranger.create_repo, "me/other") == 401
    assert status_of(reader.create_commit, operations=operations, **commit) == 403
    assert status_of(api.create_repo, repo, repo_type="dataset") == 409
    api.create_tag(repo, tag="v1", repo_type="dataset")
    assert status_of(api.create_tag, repo, tag="v1", repo_type="dataset") == 409
    first = api.list_repo_commits(repo, repo_type="dataset")[-1].commit_id
    assert status_of(api.create_commit, operations=operations, parent_commit=first, **commit) == 412
    assert reader.dataset_info(repo).id == repo
    assert "b.txt" not in store.repositories["dataset", repo].files()


@pytest.mark.parametrize("failures", [{"PUT /lfs/": [503]}, {"PUT /lfs/": [429], "GET /datasets/": [429]}])
def test_client_tries_again_where_the_server_is_busy(api, repo, store, tmp_path, failures):
    store.failures = failures
    upload = {"path_or_fileobj": b"new" * 10, "path_in_repo": "b.parquet", "repo_id": repo, "repo_type": "dataset"}
    api.upload_file(**upload)
    path = api.hf_hub_download(repo, "b.parquet", repo_type="dataset", cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"new" * 10
    assert not any(failures.values())
