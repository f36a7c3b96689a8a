#!/usr/bin/env bash
# Installs PyTorch for the CPU into a folder of its own, with the package index that pip is configured for.
# usage: benches/compare/install.sh FOLDER
set -euo pipefail
folder="${1:?usage: benches/compare/install.sh FOLDER}"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy torch
"$folder/bin/python" -c 'import torch; print("PyTorch", torch.__version__)'
