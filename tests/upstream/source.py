"""The common tests of the installed transformers, laid out so that they run outside its repository."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import transformers


PACKAGE = "transformers_tests"  # relative imports only, so the package may have any name but that of our own tests
_HERE = Path(__file__).parent


def lay_out(folder: Path, *, source: Path | None = None) -> Path:
    """Write the common tests, what stands in for the missing files, and our testers.

    Args:
        folder (`Path`):
            An empty folder.
        source (`Path`, *optional*):
            The source distribution of transformers. By default that of the installed version is downloaded.

    Returns:
        `Path`: The folder.
    """
    package = folder / PACKAGE
    with tarfile.open(source or _download(folder)) as archive:
        tests = [member for member in archive.getmembers() if member.name.split("/")[1:2] == ["tests"]]
        archive.extractall(folder, members=tests, filter="data")
    shutil.move(next(folder.glob("transformers-*/tests")), package)
    shutil.copytree(_HERE / "stubs" / "tests", package, dirs_exist_ok=True)
    shutil.copytree(_HERE / "stubs" / "utils", folder / "utils")
    for tester in (_HERE / "testers").glob("*.py"):
        target = package / "models" / "storm" / f"test_{tester.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tester, target)
    for inner in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (inner / "__init__.py").touch()
    return folder


def _download(folder: Path) -> Path:
    """Without its dependencies, and without building it."""
    wish = f"transformers=={transformers.__version__}"
    options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--quiet", f"--dest={folder}"]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, wish], check=True)
    return next(folder.glob("transformers-*.tar.gz"))
