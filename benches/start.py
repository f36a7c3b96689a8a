"""The seconds from the start of a training program to the beginning of its first step, and to its end.

usage: python3 benches/start.py [--runs 5] -- FLAGS

FLAGS are those of `parallax simclr`; the program is target/release/parallax, built before. A step's line in metrics.jsonl has
the step's seconds, and the file's time says when it was written.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def start(flags):
    """Seconds to the beginning and to the end of the first step."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = ["target/release/parallax", "simclr", "--steps", "1", "--no-knn", "--out", str(out), *flags]
        began = time.time()
        run = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if run.returncode != 0:
            sys.exit(run.stderr)
        metrics = out / "metrics.jsonl"
        step = json.loads(metrics.read_text().splitlines()[0])
        end = metrics.stat().st_mtime - began
        return end - step["seconds"], end


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("flags", nargs="*")
    options = parser.parse_args()
    runs = [start(options.flags) for _ in range(options.runs)]
    for what, seconds in zip(("to the first step", "and with it"), zip(*runs)):
        print(f"{what}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
