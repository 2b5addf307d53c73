#!/usr/bin/env bash
# What a user gets today: an environment as pip resolves it, without constraints, in which the tests that a new version breaks run.
# tools/latest.sh [FOLDER [TEST ...]], by default .venv-latest. The last line is the verdict.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${1:-.venv-latest}
python=$venv/bin/python
tests=("${@:2}")
say() { printf '[latest] %s\n' "$*"; }

# Made anew each time: an environment of last week says nothing of today.
say "creating $venv as pip resolves it today"
"${PYTHON:-python3}" -m venv --clear "$venv"
"$python" -m pip install -qq --no-compile --disable-pip-version-check '.[train,demo]' pytest pytest-xdist
tools/compile.sh "$venv"
"$python" tools/repair_torchvision.py >/dev/null

versions=$("$python" - <<'END'
from importlib.metadata import version

packages = ("torch", "torchvision", "transformers", "trl", "peft", "datasets", "accelerate", "huggingface_hub", "av")
print(", ".join(f"{name} {version(name)}" for name in packages))
END
)
say "$versions"

# A warning of a version to come is not a fault of today, so warnings are only shown.
if OMP_NUM_THREADS=1 "$python" -m pytest -q -o filterwarnings=default --disable-warnings "${tests[@]}"; then
    say "passed with $versions"
else
    say "FAILED with $versions"
    exit 1
fi
