"""Python code in processes of its own that need not import, each for itself, what takes ten seconds.

A server imports the packages that storm_hf stands on, and forks a child for each piece of code. The child has its own folder, arguments
and output, and imports storm_hf as a fresh interpreter does.
"""

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import Any


PRELOADED = (
    *("av", "datasets", "peft", "torch", "transformers.modeling_utils", "transformers.trainer"),
    *("transformers.models.auto.modeling_auto", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"),
    *("trl.trainer.grpo_trainer", "trl.trainer.sft_trainer"),
)


class WarmPython:
    """Runs code and scripts in children of a server, one after the other."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(self, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run code as `python -c` does."""
        return self._ask(code=code, argv=["-c"], folder=str(folder))

    def run_script(self, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script in its folder."""
        return self._ask(script=str(script), argv=[script.name, *arguments], folder=str(script.parent))

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.communicate()

    def _ask(self, **request: Any) -> subprocess.CompletedProcess[str]:
        if self._server is None:
            command = [sys.executable, "-m", "tests.warm"]
            self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder, name)) for name in ("stdout", "stderr")}
            print(json.dumps({**request, **files}), file=self._server.stdin, flush=True)
            code = int(self._server.stdout.readline())
            texts = {name: Path(file).read_text() for name, file in files.items()}
        return subprocess.CompletedProcess(request["argv"], code, **texts)


def serve() -> None:
    """Answer each line of the input, a request, with the exit code of its child."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            os._exit(_run(**json.loads(line)))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(
    argv: list[str], folder: str, stdout: str, stderr: str, code: str | None = None, script: str | None = None
) -> int:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # not the requests
    for number, name in ((1, stdout), (2, stderr)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    sys.argv, sys.path[0] = argv, "" if script is None else folder
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        if script is None:
            exec(compile(code or "", "<string>", "exec"), main.__dict__)
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    serve()
