#!/usr/bin/env bash
# What takes too long for every change: published checkpoints load with the oldest and the newest transformers that we support.
# tools/weekly.sh [FOLDER]; each environment is made in FOLDER, by default .venv-weekly. Needs a package index, no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=$(realpath -m "${1:-.venv-weekly}")
runner=.venv/bin/python
say() { printf '[weekly] %s\n' "$*"; }

oldest=$(sed -n 's/.*"transformers>=\([0-9.]*\).*/\1/p' pyproject.toml | head -1)

make_environment() { # NAME REQUIREMENT: with the extra that opens adapters, and a transformers that may lie beyond our range
    local python=$folder/$1/bin/python
    [ -x "$python" ] || ${PYTHON:-python3} -m venv "$folder/$1"
    "$python" -m pip install -qq --disable-pip-version-check --upgrade torch
    "$python" -m pip install -qq --disable-pip-version-check --upgrade ".[train]"
    "$python" -m pip install -qq --disable-pip-version-check --upgrade --no-deps "$2"
    "$python" tools/repair_torchvision.py
    say "$1: transformers $("$python" -c 'import importlib.metadata as m; print(m.version("transformers"))')"
}

make_environment oldest "transformers==$oldest.*"
make_environment newest "transformers>=$oldest,<6"
for name in oldest newest; do
    LOADING_PYTHON=$folder/$name/bin/python OMP_NUM_THREADS=1 "$runner" -m pytest -q tests/loading
done
say "every class loads in every environment, with both"
