"""Make `import torchvision` work where a CUDA build of it lies beside a CPU build of torch, and leave it alone elsewhere.

PyPI has one torchvision wheel for Linux, and it is linked to CUDA. Beside a CPU build of torch its operators do not load,
`import torchvision` raises, and every image and video processor of transformers with it.

Run it with the interpreter of the environment to repair:

    .venv/bin/python tools/repair_torchvision.py
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


SHIM = Path(__file__).with_name("torchvision_operators.py")
MODULE = "_torchvision_operators"


def import_error(package: str) -> str | None:
    """Return why a package cannot be imported in a new interpreter, in its own last line, or None where it can."""
    child = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, text=True)
    return None if child.returncode == 0 else (child.stderr.strip().splitlines() or ["no message"])[-1]


def torch_is_cpu_build() -> bool:
    """Tell whether torch was built without CUDA."""
    code = "import torch; raise SystemExit(torch.version.cuda is not None)"
    return subprocess.run([sys.executable, "-c", code]).returncode == 0


def install_shim(site_packages: Path) -> None:
    """Have every interpreter that uses `site_packages` declare the missing operators."""
    shutil.copyfile(SHIM, site_packages / f"{MODULE}.py")
    (site_packages / f"{MODULE}.pth").write_text(f"import {MODULE}\n")


def repair(site_packages: Path) -> str:
    """Repair torchvision if it is broken in the way this file knows.

    Args:
        site_packages (`Path`):
            Folder of the running environment that the shim is written to.

    Returns:
        `str`: One line that says what was found and done.

    Raises:
        SystemExit: If torchvision is broken in another way.
    """
    repaired_before = (site_packages / f"{MODULE}.pth").exists()
    error = import_error("torchvision")
    if error is None and not repaired_before:
        return "torchvision is healthy; nothing to repair"
    if error is not None and not torch_is_cpu_build():
        raise SystemExit(
            f"torchvision does not match this build of torch. Install the one that does. It said: {error}"
        )
    install_shim(site_packages)
    if error := import_error("torchvision"):
        raise SystemExit(f"torchvision does not import, and not for lack of CUDA: {error}")
    return "torchvision was built for CUDA and torch was not; its two missing operators are declared at import"


if __name__ == "__main__":
    print(repair(Path(sysconfig.get_path("purelib"))))
