#!/usr/bin/env bash
# Compiles the packages of an environment on all cores: tools/compile.sh FOLDER. pip would do it on one, for longer than it installs.
set -euo pipefail

packages=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Packages carry templates and files of older Pythons, which do not compile; pip passes over them too.
"$1/bin/python" -m compileall -qq -j 0 "$packages" || true
