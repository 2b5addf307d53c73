"""The state of a checkpoint that answers belong to: a commit of the Hub, or the files of a folder."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from storm_hf.errors import CheckpointError, first_line
from storm_hf.evaluation.loading import check_place
from storm_hf.training.adapter_folder import find_adapter


_CONFIGS = ("config.json", "adapter_config.json")


def resolve_commit(name_or_path: str, revision: str | None = None) -> str | None:
    """Look up the commit that a branch, a tag or nothing stands for, so that all of a run loads the same weights.

    Args:
        name_or_path (`str`):
            A folder or a name on the Hub.
        revision (`str`, *optional*):
            Branch, tag or commit; by default the main branch.

    Returns:
        `str` or `None`: The commit, that of the cached snapshot where the Hub cannot be reached; `None` for a folder.

    Raises:
        CheckpointError: If a folder is given with a revision, there is no such folder, model or revision, or neither Hub nor
            cache knows it.
    """
    check_place(name_or_path)
    if Path(name_or_path).exists():
        if revision is not None:
            raise CheckpointError(
                f"{name_or_path} is a folder, which has no revision {revision!r}. Leave the revision out."
            )
        return None
    try:
        return HfApi().model_info(name_or_path, revision=revision).sha
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{name_or_path} has no revision {revision!r} on the Hub.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"There is no model folder {name_or_path}, and the Hub knows no model of that name, or not for this token."
        ) from error
    except (HfHubHTTPError, OSError) as error:  # no network, offline, or a server in trouble
        return _cached_commit(name_or_path, revision, first_line(error))


def describe_weights(name_or_path: str, revision: str | None = None) -> dict[str, Any]:
    """Tell one state of a checkpoint's weights from another, those of an adapter's base included.

    Args:
        name_or_path (`str`):
            A folder or a name on the Hub.
        revision (`str`, *optional*):
            The commit, of a name.

    Returns:
        `dict[str, Any]`: `weights`, see [`weights_stamp`]; of an adapter also `base_weights`.
    """
    state: dict[str, Any] = {"weights": weights_stamp(name_or_path)}
    adapter = find_adapter(name_or_path, **({} if revision is None else {"revision": revision}))
    if adapter is not None:
        state["base_weights"] = weights_stamp(adapter.base) or resolve_commit(adapter.base, adapter.revision)
    return state


def weights_stamp(name_or_path: str) -> str | None:
    """Tell one state of a folder's weights from another, so that answers of a model trained further are not taken for its own.

    Returns:
        `str` or `None`: Hash of the names, sizes and times of its files; None for a name on the Hub.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        return None
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
    stamps = [f"{file.name} {(stat := file.stat()).st_size} {stat.st_mtime_ns}" for file in files]
    return sha256("\n".join(stamps).encode()).hexdigest()[:16]


def _cached_commit(name: str, revision: str | None, problem: str) -> str:
    """The commit of the snapshot that was downloaded last for a revision."""
    for file in _CONFIGS:
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent.name
    raise CheckpointError(
        f"Expected {name} on the Hub or in the cache, but the Hub cannot be reached ({problem}), and "
        f"{revision or 'its main branch'} is not cached."
    )
