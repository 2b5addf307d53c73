"""What goes on is shown on a terminal alone, and never on stdout."""

import os
import pty
import subprocess
import sys

import pytest

from storm_hf.cli import main


WAITING = "import time\nfrom storm_hf.cli.output import waiting\nwith waiting('Loading storm'):\n    time.sleep(0.3)\nprint('done')"
COUNTING = (
    "import time\nfrom storm_hf.cli.output import progress_bar\n"
    "with progress_bar('Counting', 2) as count_up:\n    count_up()\n    time.sleep(0.3)\n    count_up()\nprint('done')"
)


@pytest.mark.parametrize(("code", "title"), [(WAITING, "Loading storm"), (COUNTING, "Counting")])
def test_progress_is_shown_on_a_terminal(code, title):
    terminal, child = pty.openpty()
    run = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=child,
        text=True,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(child)
    assert title in os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert run.stdout == "done\n"


@pytest.mark.parametrize("code", [WAITING, COUNTING])
def test_progress_is_not_written_to_a_file(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")


def test_remark_of_a_library_at_its_import_is_silenced_but_no_error():
    code = (
        "import logging\nfrom storm_hf.cli.output import silence_imports\nsilence_imports()\n"
        "log = logging.getLogger('bitsandbytes.backends.cpu.ops')\nlog.warning('no kernel')\nlog.error('broken')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "broken\n")


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_command_ends_as_ever_where_a_stream_is_closed(name, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["storm", "diagnose", "--model", "absent", "--dataset", str(tmp_path)])
    monkeypatch.setattr(sys, name, None)  # as Python has it after `2>&-`
    with pytest.raises(SystemExit) as ended:
        main()
    getattr(sys, name).close()
    assert ended.value.code == 2
