#!/usr/bin/env bash
# Installs PyTorch and torchvision, with the package index that pip is configured for, and burn's side of the comparison
# (benches/compare/burn, built here) into a folder of their own.
# usage: benches/compare/install.sh FOLDER
set -euo pipefail
folder="${1:?usage: benches/compare/install.sh FOLDER}"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy torch torchvision matplotlib
"$folder/bin/python" -c 'import torch; print("PyTorch", torch.__version__)'
cargo install --quiet --locked --path "$(dirname "${BASH_SOURCE[0]}")/burn" --root "$folder" \
  --target-dir "$folder/burn-build"
