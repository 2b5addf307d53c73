"""What a command leaves: hashes of what is finished, in a form in which the same work has the same hash."""

import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError
from tests.trainers.killing import WEIGHTS, weights_of

from storm_hf.training.resume import newest_complete_checkpoint


Hashes = dict[str, str]
_PASSING = (".locks", "logs", "runs")  # folders that no reader looks into
_MARKERS = ("work/*/*.jsonl", "data/*.parquet", "trainer_state.json", "done/*", "arms/*/results.json", "finished.json")
_GROWING = ("fingerprint.json", "run_settings.json", "log.txt")  # files that are replaced while the work goes on


def hash_of(content: bytes) -> str:
    """Short hash of some bytes."""
    return sha256(content).hexdigest()[:16]


def files_of(folder: Path) -> Hashes:
    """Hash of every file under its final name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        names = path.relative_to(folder).parts
        if path.is_file() and not names[-1].startswith(".") and not set(_PASSING) & set(names):
            found["/".join(names)] = hash_of(path.read_bytes())
    return found


def finished_files(folder: Path) -> Hashes:
    """The same, without files that grow."""
    return {name: value for name, value in files_of(folder).items() if Path(name).name not in _GROWING}


def models_of(folder: Path) -> Hashes:
    """Hash of the weights of the final model and of each complete checkpoint, of every training below a folder."""
    found = {}
    for place in (folder, *(path for path in sorted(folder.glob("[0-9]-*")) if path.is_dir())):
        checkpoints = [path for path in place.glob("checkpoint-*") if _is_complete(path)]
        for each in (*checkpoints, place):
            if any((each / name).exists() for name in WEIGHTS):
                found[each.relative_to(folder).as_posix()] = _hash_of_weights(each)
    return found


def markers_of(folder: Path) -> dict[str, int]:
    """When each shard, checkpoint or stage was finished: none of them is to be made twice."""
    paths = (path for pattern in _MARKERS for path in folder.rglob(pattern))
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in paths if path.is_file()}


def final_models(folder: Path) -> Hashes:
    """The final models alone, with the names of the files beside them."""
    models = {name: value for name, value in models_of(folder).items() if "checkpoint-" not in name}
    beside = sorted(name for name in files_of(folder) if "checkpoint-" not in name)
    return {**models, "names of files": hash_of("\n".join(beside).encode())}


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Names that are in both and differ, or are in the first alone."""
    return [name for name, value in before.items() if after.get(name) != value]


def _is_complete(checkpoint: Path) -> bool:
    """Check a checkpoint as a run does that looks for the newest one."""
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, checkpoint.name).symlink_to(checkpoint)
        return newest_complete_checkpoint(empty) is not None


def _hash_of_weights(folder: Path) -> str:
    try:
        return hash_of(repr(sorted(weights_of(folder).items())).encode())
    except (SafetensorError, OSError) as error:
        return f"unreadable: {error}"
