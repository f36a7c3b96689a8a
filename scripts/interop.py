#!/usr/bin/env python3
"""Compares Parallax with the real torchvision, in both directions.

    interop.py --parallax target/release/parallax

Needs torch, torchvision, safetensors and Pillow. Features of torchvision's ResNets, stored in the
ways of other programs, must agree with PyTorch's, and an export must load into torchvision's
networks as it is. Prints one line per check, and exits with 1 if one fails.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

MEAN = torch.tensor([0.4914, 0.4822, 0.4465])
STD = torch.tensor([0.2023, 0.1994, 0.2010])
SIDE = 64
# Of a feature, against the largest one.
TOLERANCE = 1e-4
FAILED = []


def check(name, passed, detail=""):
    print(f"{'ok    ' if passed else 'FAILED'} {name} {detail}")
    if not passed:
        FAILED.append(name)


def images(root):
    """Four images of noise in each split, as files and as the tensor that a network sees."""
    random = np.random.default_rng(0)
    pixels = []
    for split in ("train", "test"):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for i in range(2):
                image = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(image).save(root / split / label / f"{i}.png")
                if split == "test":
                    pixels.append(torch.from_numpy(image).permute(2, 0, 1) / 255)
    return (torch.stack(pixels) - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)


def network(name, small_stem=False):
    """A network of torchvision with running statistics that are not those of its start."""
    torch.manual_seed(1)
    model = getattr(torchvision.models, name)()
    if small_stem:
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = torch.nn.Identity()
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, SIDE, SIDE))
    return model.eval()


def features(model, x):
    fc, model.fc = model.fc, torch.nn.Identity()
    with torch.no_grad():
        y = model(x)
    model.fc = fc
    return y


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parallax", type=Path, required=True, help="the program")
    program = parser.parse_args().parallax.resolve()
    place = tempfile.TemporaryDirectory()
    root = Path(place.name)
    x = images(root / "images")

    def run(*words):
        words = [str(program), *map(str, words)]
        return subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)

    def embedded(file):
        done = run("embed", "--encoder", file, "--data", "folder", "--data-dir", "images",
                   "--device", "cpu", "--out", "features", "--force")  # fmt: skip
        if done.returncode:
            print(done.stderr.strip())
            return None
        return load_file(root / "features")["features"]

    def agrees(name, tensors, expected, tolerance=TOLERANCE):
        save_file({key: value.contiguous() for key, value in tensors.items()}, root / "weights")
        found = embedded("weights")
        error = float("inf")
        if found is not None:
            error = float((found - expected).abs().max() / expected.abs().max())
        check(name, error <= tolerance, f"largest difference {error:.1e}")

    names = [("resnet18", False), ("resnet34", False), ("resnet50", False), ("resnet18", True)]
    types = [(torch.float64, TOLERANCE), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)]
    for name, small in names:
        model = network(name, small)
        expected = features(model, x)
        state = model.state_dict()
        label = f"{name} with {'the small' if small else 'its own'} stem"
        agrees(label, state, expected)
        parts = list(model.children())
        wrapped = {"encoder": model, "head": torch.nn.Linear(4, 4)}
        for way, module in (
            ("DataParallel", torch.nn.DataParallel(torch.nn.ModuleDict(wrapped))),
            ("nn.Sequential", torch.nn.Sequential(*parts)),
            ("backbone", torch.nn.ModuleDict({"backbone": torch.nn.Sequential(*parts[:-1])})),
        ):
            agrees(f"{label}, {way}", module.state_dict(), expected)
        for dtype, tolerance in types:
            cast = {
                key: value.to(dtype) if value.is_floating_point() else value
                for key, value in state.items()
            }
            agrees(f"{label}, {dtype}", cast, expected, tolerance)

        save_file(state, root / "theirs")
        run("weights", "import", "theirs", "--out", "ours", "--force")
        done = run("weights", "export", "ours", "--out", "exported", "--force")
        check(f"{label}, export", done.returncode == 0, done.stderr.strip())
        loaded = network(name, small)
        loaded.load_state_dict(load_file(root / "exported"))
        check(f"{label}, load_state_dict", torch.equal(features(loaded, x), expected))

    torch.save(model.state_dict(), root / "new.pth")
    old = {"state_dict": model.state_dict()}
    torch.save(old, root / "old.pth", _use_new_zipfile_serialization=False)
    for file in ("new.pth", "old.pth"):
        done = run("weights", "info", file)
        named = done.returncode == 1 and "a PyTorch file" in done.stderr
        check(f"{file} is recognised", named, "" if named else done.stderr.strip())
        line = done.stderr.split("python3 -c ")[-1].strip().strip('"')
        subprocess.run([sys.executable, "-c", line], cwd=root, check=True)
        found = embedded(Path(file).with_suffix(".safetensors"))
        check(f"{file} is converted by the line that is printed", found is not None)
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
