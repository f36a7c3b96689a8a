#!/usr/bin/env python3
"""Compares Parallax with the Python programs that it exchanges files with, in both directions.

    interop.py --parallax target/release/parallax

Needs the packages of scripts/interop-requirements.txt, which scripts/interop.sh installs. Prints
one line per check, and exits with 1 if one fails.
"""
import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PACKAGES = "torch torchvision timm onnx onnxruntime scikit-learn numpy safetensors pillow"
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
STD = torch.tensor([0.2023, 0.1994, 0.2010]).view(3, 1, 1)
SIDE = 64
# Largest difference of features, relative to the largest feature.
TOLERANCE = 1e-4
HALF_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
# Two different optimisers of the same loss, in points of accuracy.
LINEAR_TOLERANCE = 3.0


class Checks:
    """The table: what was compared, the figure, and its limit."""

    def __init__(self):
        self.failed = []
        self.count = 0

    def add(self, what, figure, limit):
        """Takes a figure that must not be above its limit. A NaN is above."""
        passed = figure <= limit
        self.count += 1
        if not passed:
            self.failed.append(what)
        result = "ok" if passed else "FAILED"
        print(f"{what:<66} {figure:>9.2g} {limit:>9.2g}  {result}", flush=True)

    def holds(self, what, is_true, reason=""):
        self.add(what, 0 if is_true else 1, 0)
        if not is_true and reason:
            print(f"    {reason}")


def images(root):
    """Writes four images of noise per split, and returns those of the test set, from 0 to 1."""
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
    return torch.stack(pixels)


def network(name, stem_padding=None, make=None):
    """Returns a network whose running statistics are not those of a new one."""
    torch.manual_seed(1)
    model = (make or getattr(torchvision.models, name))()
    if stem_padding is not None:
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, stem_padding, bias=False)
        model.maxpool = torch.nn.Identity()
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, SIDE, SIDE))
    return model.eval()


def features(model, x):
    fc, model.fc = model.fc, torch.nn.Identity()
    with torch.no_grad():
        y = model((x - MEAN) / STD)
    model.fc = fc
    return y


def difference(found, expected):
    """Returns the largest difference relative to the largest expected value."""
    if found is None or found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max())


class Program:
    """Parallax, run in a folder of its own."""

    def __init__(self, path, root):
        self.path, self.root = str(path.resolve()), root

    def run(self, *words):
        words = [self.path, *map(str, words)]
        return subprocess.run(words, cwd=self.root, capture_output=True, text=True, check=False)

    def must(self, *words):
        done = self.run(*words)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, words))}: {done.stderr.strip()}")

    def embed(self, file):
        """Returns the features of the test images, or None if the program fails."""
        done = self.run("embed", "--encoder", file, "--data", "folder", "--data-dir", "images",
                        "--device", "cpu", "--out", "features", "--force")  # fmt: skip
        if done.returncode:
            print(f"    {done.stderr.strip()}")
            return None
        return load_file(self.root / "features")["features"]


def session(path):
    """Checks a model by the definition of ONNX, and loads it."""
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def weights_from_elsewhere(checks, program, x):
    """torchvision, timm, lightly and solo-learn to Parallax, and back to torchvision and ONNX."""

    def agrees(what, tensors, expected, tolerance=TOLERANCE):
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        save_file(tensors, program.root / "weights")
        checks.add(f"in: {what}", difference(program.embed("weights"), expected), tolerance)

    names = [(f"resnet{n}", None) for n in (18, 34, 50)] + [("resnet18", 1)]
    for name, padding in names:
        model = network(name, padding)
        expected = features(model, x)
        state = model.state_dict()
        label = name if padding is None else f"{name}, small stem"
        agrees(f"torchvision {label}", state, expected)
        parts = list(model.children())
        head, projector = torch.nn.Linear(4, 4), torch.nn.Sequential(torch.nn.Linear(4, 4))
        wrapped = torch.nn.ModuleDict({"encoder": model, "head": head})
        backbone = torch.nn.Sequential(*parts[:-1])
        lightly = {"backbone": backbone, "projection_head": projector}
        solo = {"backbone": model, "projector": projector, "classifier": head}
        for way, module in (
            ("DataParallel", torch.nn.DataParallel(wrapped)),
            ("nn.Sequential", torch.nn.Sequential(*parts)),
            ("lightly's names", torch.nn.ModuleDict(lightly)),
            ("solo-learn's names", torch.nn.ModuleDict(solo)),
        ):
            agrees(f"{way}, {label}", module.state_dict(), expected)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            cast = {
                key: value.to(dtype) if value.is_floating_point() else value
                for key, value in state.items()
            }
            agrees(f"{dtype}, {label}", cast, expected, HALF_TOLERANCE.get(dtype, TOLERANCE))

        save_file(state, program.root / "theirs")
        program.must("weights", "import", "theirs", "--out", "ours", "--force")
        program.must("weights", "export", "ours", "--out", "exported", "--force")
        loaded = network(name, padding)
        loaded.load_state_dict(load_file(program.root / "exported"), strict=True)
        what = f"out: torchvision load_state_dict(strict=True), {label}"
        checks.add(what, difference(features(loaded, x), expected), 0)

        program.must("weights", "export", "ours", "--out", "model.onnx", "--force")
        run = session(program.root / "model.onnx").run
        found = torch.from_numpy(run(["features"], {"images": x.numpy()})[0])
        embedded = program.embed("ours")
        checks.add(f"out: ONNX Runtime, {label}", difference(found, embedded), TOLERANCE)
        other = torch.rand(1, 3, SIDE + 17, SIDE - 9)
        found = torch.from_numpy(run(["features"], {"images": other.numpy()})[0])
        what = f"out: ONNX Runtime, {label}, another size"
        checks.add(what, difference(found, features(model, other)), TOLERANCE)

    for name in ("resnet18", "resnet34", "resnet50"):
        model = network(name, make=lambda name=name: timm.create_model(name))
        agrees(f"timm {name}", model.state_dict(), features(model, x))

    # solo-learn's stem for CIFAR pads by 2, which its files do not state.
    model = network("resnet18", stem_padding=2)
    backbone = torch.nn.ModuleDict({"backbone": model})
    save_file(backbone.state_dict(), program.root / "theirs")
    program.must("weights", "import", "theirs", "--out", "ours", "--stem-padding", "2", "--force")
    found = difference(program.embed("ours"), features(model, x))
    checks.add("in: solo-learn for CIFAR, --stem-padding 2", found, TOLERANCE)

    torch.save(model.state_dict(), program.root / "new.pth")
    old = {"state_dict": model.state_dict()}
    torch.save(old, program.root / "old.pth", _use_new_zipfile_serialization=False)
    for file in ("new.pth", "old.pth"):
        done = program.run("weights", "info", file)
        named = done.returncode == 1 and "a PyTorch file" in done.stderr
        checks.holds(f"in: {file} is recognised", named, done.stderr.strip())
        line = done.stderr.split("python3 -c ")[-1].strip().strip('"')
        subprocess.run([sys.executable, "-c", line], cwd=program.root, check=True)
        found = program.embed(Path(file).with_suffix(".safetensors"))
        checks.holds(f"in: {file} is converted by the printed line", found is not None)


def own_classifier(checks, program, x):
    """A classifier that Parallax trained, in torchvision and in ONNX Runtime."""
    program.must("supervised", "--data", "folder", "--data-dir", "images", "--device", "cpu",
                 "--width", 1, "--batch-size", 4, "--steps", 3, "--out", "run")  # fmt: skip
    file = "run/model.safetensors"
    program.must("weights", "export", file, "--out", "classifier")
    model = torchvision.models.resnet18(num_classes=2)
    model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = torch.nn.Identity()
    model.load_state_dict(load_file(program.root / "classifier"), strict=True)
    model.eval()
    embedded = program.embed(file)
    found = difference(features(model, x), embedded)
    checks.add("out: torchvision, features of an own classifier", found, TOLERANCE)
    program.must("weights", "export", file, "--out", "classifier.onnx")
    loaded = session(program.root / "classifier.onnx")
    outputs = loaded.run(["features", "logits"], {"images": x.numpy()})
    found, logits = map(torch.from_numpy, outputs)
    what = "out: ONNX Runtime, features of an own classifier"
    checks.add(what, difference(found, embedded), TOLERANCE)
    with torch.no_grad():
        expected = model((x - MEAN) / STD)
    what = "out: ONNX Runtime and torchvision, logits"
    checks.add(what, difference(logits, expected), TOLERANCE)
    about = loaded.get_modelmeta().custom_metadata_map
    classes = json.loads(about["class_names"])
    checks.holds("out: the ONNX model names its classes", classes == ["a", "b"], str(about))


def arrays(checks, program):
    """The files of embed in NumPy, and accuracies on them against scikit-learn's."""
    program.must("simclr", "--device", "cpu", "--width", 0.125, "--batch-size", 64, "--steps", 30,
                 "--no-knn", "--out", "pretrained")  # fmt: skip
    encoder = ["--encoder", "pretrained/encoder.safetensors", "--device", "cpu"]
    loaded = {}
    for split in ("train", "test"):
        for end in ("npz", "npy", "safetensors"):
            program.must("embed", *encoder, "--split", split, "--out", f"{split}.{end}")
        npz = np.load(program.root / f"{split}.npz", allow_pickle=False)
        npy = np.load(program.root / f"{split}.npy", allow_pickle=False)
        theirs = load_file(program.root / f"{split}.safetensors")
        same = np.array_equal(npz["features"], theirs["features"].numpy())
        checks.holds(f"out: NumPy reads the .npz file, {split}", same)
        checks.holds(f"out: NumPy reads the .npy file, {split}", np.array_equal(npy, npz["features"]))
        same = np.array_equal(npz["labels"], theirs["labels"].numpy())
        checks.holds(f"out: NumPy reads the labels, {split}", same)
        loaded[split] = (npz["features"], npz["labels"])
        about = json.loads(str(npz["about"]))
        checks.holds(f"out: the .npz file names data and split, {split}", about["split"] == split)
    program.must("embed", "--encoder", "ours", "--data", "folder", "--data-dir", "images",
                 "--device", "cpu", "--out", "folder.npz")  # fmt: skip
    folder = np.load(program.root / "folder.npz", allow_pickle=False)
    files = [f"test/{name}" for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png")]
    named = folder["files"].tolist() == files and folder["classes"].tolist() == ["a", "b"]
    checks.holds("out: NumPy reads the names of classes and files", named)

    (train, train_labels), (test, test_labels) = loaded["train"], loaded["test"]
    program.must("knn", *encoder, "--out", "knn")
    ours = json.loads((program.root / "knn/summary.json").read_text())
    temperature = ours["knn_temperature"]
    neighbours = KNeighborsClassifier(
        ours["knn_k"],
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    theirs = 100 * neighbours.fit(train, train_labels).score(test, test_labels)
    ours = 100 * ours["knn_top1"]
    print(f"    nearest neighbours: {ours:.1f} %, scikit-learn {theirs:.1f} %")
    one_image = 100 / len(test_labels)
    checks.add("accuracy: nearest neighbours, points", abs(ours - theirs), 1.001 * one_image)

    program.must("linear", *encoder, "--epochs", 100, "--out", "linear")
    ours = json.loads((program.root / "linear/summary.json").read_text())
    ours = 100 * ours["metrics"]["top1"]
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    theirs = 100 * regression.fit(train, train_labels).score(test, test_labels)
    print(f"    linear layer: {ours:.1f} %, scikit-learn {theirs:.1f} %")
    checks.add("accuracy: linear layer, points", abs(ours - theirs), LINEAR_TOLERANCE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parallax", type=Path, required=True, help="the program")
    path = parser.parse_args().parallax
    for package in PACKAGES.split():
        print(f"{package} {importlib.metadata.version(package)}")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        program = Program(path, root)
        print(program.run("--version").stdout)
        print(f"{'check':<66} {'figure':>9} {'limit':>9}  result")
        checks = Checks()
        x = images(root / "images")
        weights_from_elsewhere(checks, program, x)
        own_classifier(checks, program, x)
        arrays(checks, program)
    print(f"\n{checks.count} checks, {len(checks.failed)} failed")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
