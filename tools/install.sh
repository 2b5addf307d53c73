#!/usr/bin/env bash
# Makes the environment that `make demo` and `make test` run in: tools/install.sh [FOLDER [EXTRA ...]], by default .venv
# The order matters: torch first, so that everything else settles for the build that this machine gets.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${1:-.venv}
extras=demo,dev$(printf ',%s' "${@:2}")
python=${PYTHON:-python3}
constraints=${CONSTRAINTS:-constraints.txt}

say() { printf '[install] %s\n' "$*"; }

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        say "Python 3.11 or newer is needed; $python is $("$python" --version 2>/dev/null || echo not there)." \
            "Name another one: make PYTHON=python3.12"
        exit 1
    }
    say "creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

pip_install() {
    "$venv/bin/python" -m pip install -qq --no-compile --disable-pip-version-check --constraint "$constraints" "$@"
}

say "1 of 3: PyTorch (large; a minute or two)"
pip_install torch
say "2 of 3: transformers, TRL, the test tools and storm-hf itself (about two minutes)"
pip_install --editable ".[${extras%,}]"
tools/compile.sh "$venv"
say "3 of 3: $("$venv/bin/python" tools/repair_torchvision.py)"
