"""Pretrains one encoder by SimCLR or RotNet with PyTorch and torchvision and with Parallax, and
compares what both learn: losses, and accuracies of nearest neighbours.

usage: FOLDER/bin/python benches/compare/simclr_torch.py --parallax PROGRAM --data-dir DIR
           --out RUNS [--method simclr|rotnet] [--seeds 3] [--steps 500] [--only torch|parallax]

FOLDER is what install.sh made, and DIR has CIFAR-10's binary files. The settings are the defaults
of `parallax simclr` and `parallax rotnet` for a CIFAR-stem ResNet-18 of a quarter of the width and
batches of 128. Each program draws its own random numbers, so the runs are compared as samples over
seeds: two equal programs of three seeds each differ by more than two standard errors in about one
row of nine. The programs take turns. Every finished run is a file in RUNS and is not run again; a
run of PyTorch that was interrupted starts again. Prints a table in Markdown and draws the loss
curves to RUNS/METHOD-STEPS.svg.
"""

import argparse
import copy
import json
import math
import os
import statistics
import subprocess
import time
from pathlib import Path

# Threads that spin while they wait slow each other down on a machine with other work. Read when
# torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import matplotlib  # noqa: E402

matplotlib.use("svg")

import numpy  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from matplotlib import pyplot  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torchvision.models import resnet  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

BATCH = 128
# A quarter of ResNet-18's channels in each stage.
STAGES = [16, 32, 64, 128]
FEATURES = STAGES[-1]
# Steps whose losses are compared, each as the mean of WINDOW steps that end there.
STEPS = [1, 10, 50, 100, 200, 350, 500]
WINDOW = 10
NAMES = {"parallax": "Parallax", "torch": "PyTorch"}
# Blue and vermilion of Okabe and Ito's palette, told apart by the colour-blind.
LOOKS = {"parallax": ("#0072B2", "-"), "torch": ("#D55E00", "--")}

NORMALIZE = v2.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
SIMCLR_VIEW = v2.Compose([
    v2.RandomResizedCrop(32, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), antialias=True),
    v2.RandomHorizontalFlip(0.5),
    v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
    v2.RandomGrayscale(0.2),
])
ROTNET_VIEW = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(0.5)])


def read(folder, names):
    """Pixels [N, 3, 32, 32] as bytes, and labels [N]."""
    nested = folder / "cifar-10-batches-bin"
    root = nested if nested.exists() else folder
    records = numpy.concatenate([numpy.fromfile(root / name, numpy.uint8) for name in names])
    records = torch.from_numpy(records.reshape(-1, 3073))
    return records[:, 1:].reshape(-1, 3, 32, 32).contiguous(), records[:, 0].long()


class Data:
    """CIFAR-10."""

    def __init__(self, folder):
        self.train, self.train_labels = read(folder, [f"data_batch_{i}.bin" for i in range(1, 6)])
        self.test, self.test_labels = read(folder, ["test_batch.bin"])


def floats(pixels):
    """Bytes as floats in [0, 1]."""
    return v2.functional.to_dtype(pixels, torch.float32, scale=True)


def encoder():
    """torchvision's ResNet-18 without classifier, with a 3x3 stem and without its max-pool."""
    network = resnet.ResNet(resnet.BasicBlock, [2, 2, 2, 2])
    network.inplanes = STAGES[0]
    network.conv1 = nn.Conv2d(3, STAGES[0], 3, 1, 1, bias=False)
    network.bn1 = nn.BatchNorm2d(STAGES[0])
    network.maxpool = nn.Identity()
    for number, planes in enumerate(STAGES):
        stride = 2 if number else 1
        layer = network._make_layer(resnet.BasicBlock, planes, 2, stride)
        setattr(network, f"layer{number + 1}", layer)
    network.fc = nn.Identity()
    # As torchvision's ResNet starts: batch norms are at 1 and 0 already.
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    # A layout that PyTorch computes faster on a CPU.
    return network.to(memory_format=torch.channels_last)


class SimClr(nn.Module):
    """Both views of each image in one forward pass, a projector, and NT-Xent of temperature 0.5."""

    def __init__(self):
        super().__init__()
        self.encoder = encoder()
        layers = [nn.Linear(FEATURES, FEATURES), nn.ReLU(), nn.Linear(FEATURES, 128)]
        self.projector = nn.Sequential(*layers)

    def optimizer(self):
        return torch.optim.Adam(self.parameters(), 1e-3, weight_decay=1e-6)

    def loss(self, images):
        views = torch.stack([SIMCLR_VIEW(image) for _ in range(2) for image in images])
        z = functional.normalize(self.projector(self.encoder(NORMALIZE(views))))
        itself = torch.eye(len(z), dtype=torch.bool)
        similarities = (z @ z.T / 0.5).masked_fill(itself, -math.inf)
        return functional.cross_entropy(similarities, torch.arange(len(z)).roll(len(images)))


class RotNet(nn.Module):
    """All four rotations of each image in one forward pass, and a linear layer that tells them."""

    def __init__(self):
        super().__init__()
        self.encoder = encoder()
        self.head = nn.Linear(FEATURES, 4)

    def optimizer(self):
        return torch.optim.SGD(
            self.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
        )

    def logits(self, images):
        """Scores [4B, 4] of the upright images, then of those turned once, twice, three times."""
        turned = torch.cat([torch.rot90(images, turns, (2, 3)) for turns in range(4)])
        return self.head(self.encoder(NORMALIZE(turned)))

    def loss(self, images):
        views = torch.stack([ROTNET_VIEW(image) for image in images])
        return functional.cross_entropy(self.logits(views), turns_of(images))


def turns_of(images):
    return torch.arange(4).repeat_interleave(len(images))


@torch.no_grad()
def rotation_accuracy(model, images):
    model.eval()
    right = 0
    for batch in floats(images).split(64):
        right += (model.logits(batch).argmax(1) == turns_of(batch)).sum().item()
    return right / (4 * len(images))


@torch.no_grad()
def knn_top1(network, data):
    """Accuracy of the votes of the 200 most similar training images, by exp(similarity / 0.5)."""
    network.eval()

    def unit_features(images):
        batches = images.split(128)
        return functional.normalize(torch.cat([network(NORMALIZE(floats(b))) for b in batches]))

    bank, right = unit_features(data.train), 0
    queries = unit_features(data.test).split(500)
    for rows, labels in zip(queries, data.test_labels.split(500)):
        similarities, found = (rows @ bank.T).topk(200)
        votes = torch.zeros(len(rows), 10, dtype=torch.float64)
        weights = (similarities.double() / 0.5).exp()
        votes.scatter_add_(1, data.train_labels[found], weights)
        right += (votes.argmax(1) == labels).sum().item()
    return right / len(data.test)


@torch.no_grad()
def set_running_statistics(network, images):
    """Running statistics of an untrained network: the mean over its first ten batches."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for batch in images[:1280].split(128):
        network(NORMALIZE(floats(batch)))


def samples(count, steps):
    """The images of each step: every epoch is shuffled anew and drops its last partial batch."""
    while True:
        for batch in torch.randperm(count).split(BATCH)[: count // BATCH]:
            if steps == 0:
                return
            steps -= 1
            yield batch


def run_torch(options, data, seed):
    torch.manual_seed(seed)
    model = {"simclr": SimClr, "rotnet": RotNet}[options.method]()
    untrained = copy.deepcopy(model.encoder)
    optimizer = model.optimizer()
    started, losses = time.perf_counter(), []
    model.train()
    for indices in samples(len(data.train), options.steps):
        loss = model.loss(floats(data.train[indices]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    result = {"losses": losses, "seconds": time.perf_counter() - started}
    if options.method == "rotnet":
        result["rotation_accuracy"] = rotation_accuracy(model, data.test)
    result["knn_top1"] = knn_top1(model.encoder, data)
    set_running_statistics(untrained, data.train)
    result["knn_top1_untrained"] = knn_top1(untrained, data)
    return result


def run_parallax(options, folder, seed):
    """Runs the program, or resumes its run in `folder`."""
    summary = folder / "summary.json"
    if not summary.exists():
        command = [options.parallax, options.method, "--arch", "resnet18", "--width", "0.25"]
        command += ["--batch-size", BATCH, "--steps", options.steps, "--seed", seed]
        command += ["--data", "cifar10", "--data-dir", options.data_dir]
        command += ["--device", "cpu", "--out", folder]
        command += ["--resume"] if (folder / "config.toml").exists() else []
        with open(f"{folder}.log", "a") as log:
            subprocess.run([str(word) for word in command], check=True, stdout=log, stderr=log)
    metrics = (folder / "metrics.jsonl").read_text().splitlines()
    found = json.loads(summary.read_text())
    kept = ["seconds", "rotation_accuracy", "knn_top1", "knn_top1_untrained"]
    result = {key: found[key] for key in kept if found.get(key) is not None}
    return {"losses": [json.loads(line)["loss"] for line in metrics], **result}


def mean_and_error(values):
    """The mean and its standard error, which one value alone does not have."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error


def with_error(mean, error, digits, sign=""):
    shown = f"{mean:{sign}.{digits}f}"
    return shown if math.isnan(error) else f"{shown} ± {error:.{digits}f}"


def row(title, runs, measure, digits, compared=True):
    """A row of the table: `measure` of each run of both programs, and how they differ."""
    cells, found = [title], []
    for program in NAMES:
        values = [measure(run) for run in runs[program]]
        found.append(mean_and_error(values))
        each = ", ".join(f"{value:.{digits}f}" for value in values)
        cells += [each, with_error(*found[-1], digits)]
    (ours, our_error), (theirs, their_error) = found
    difference, error = ours - theirs, math.hypot(our_error, their_error)
    if not compared:
        cells.append("not compared")
    else:
        verdict = "yes" if abs(difference) <= 2 * error else "no"
        verdict = "one run" if math.isnan(error) else verdict
        cells.append(f"{with_error(difference, error, digits, '+')}: {verdict}")
    print(f"| {' | '.join(cells)} |")


def window_mean(losses, step):
    """The mean loss of the WINDOW steps that end with `step`, counted from 1."""
    return statistics.mean(losses[max(step - WINDOW, 0) : step])


def report(options, runs):
    sides = [f"{name}, each seed | mean ± error" for name in NAMES.values()]
    print(f"{options.method}, {options.steps} steps of {BATCH} images, "
          f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}\n")
    print(f"| quantity | {' | '.join(sides)} | difference: within two errors |")
    print("| --- | --- | --- | --- | --- | --- |")
    for key, title in [
        ("knn_top1", "nearest neighbours, %"),
        ("knn_top1_untrained", "the same, untrained, %"),
        ("rotation_accuracy", "rotation, %"),
    ]:
        if all(key in run for side in runs.values() for run in side):
            row(title, runs, lambda run, key=key: 100 * run[key], 2)
    for step in [step for step in STEPS if step <= options.steps]:
        first = max(step - WINDOW + 1, 1)
        title = f"loss, steps {first} to {step}" if step > 1 else "loss, step 1"
        row(title, runs, lambda run, step=step: window_mean(run["losses"], step), 4)
    row("seconds of training", runs, lambda run: run["seconds"], 0, compared=False)
    curves = {
        program: [
            [window_mean(run["losses"], step) for step in range(WINDOW, options.steps + 1)]
            for run in side
        ]
        for program, side in runs.items()
    }
    means = {
        program: [statistics.mean(values) for values in zip(*side)]
        for program, side in curves.items()
    }
    if options.steps >= WINDOW:
        gaps = [ours - theirs for ours, theirs in zip(means["parallax"], means["torch"])]
        at = max(range(len(gaps)), key=lambda index: abs(gaps[index]))
        print(f"\nlargest difference of the mean losses of {WINDOW} steps: {gaps[at]:+.4f} "
              f"at steps {at + 1} to {at + WINDOW}; mean difference "
              f"{statistics.mean(gaps):+.4f}")
        draw(options, curves, means)


def draw(options, curves, means):
    """Draws every seed's loss, and the mean over seeds as the thick line."""
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    steps = range(WINDOW, options.steps + 1)
    for program, (color, line) in LOOKS.items():
        for curve in curves[program]:
            axes.plot(steps, curve, color=color, linestyle=line, linewidth=0.6, alpha=0.5)
        label = f"{NAMES[program]}, mean of {len(curves[program])}"
        axes.plot(steps, means[program], color=color, linestyle=line, linewidth=2, label=label)
    axes.set(xlabel="step", ylabel=f"{options.method} loss, mean of {WINDOW} steps")
    axes.legend()
    figure.savefig(options.out / f"{options.method}-{options.steps}.svg")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parallax", type=Path, required=True, help="the program")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--method", choices=["simclr", "rotnet"], default="simclr")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each program")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--only", choices=list(NAMES), help="run one program, without the table")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    data = None
    runs = {program: [] for program in NAMES}
    for seed in range(options.seeds):
        for program in [options.only] if options.only else NAMES:
            name = f"{options.method}-{options.steps}-{program}-s{seed}"
            file = options.out / f"{name}.json"
            if not file.exists():
                if program == "parallax":
                    result = run_parallax(options, options.out / name, seed)
                else:
                    data = data or Data(options.data_dir)
                    result = run_torch(options, data, seed)
                part = file.with_suffix(".part")
                part.write_text(json.dumps(result))
                part.rename(file)
            runs[program].append(json.loads(file.read_text()))
    if not options.only:
        report(options, runs)


if __name__ == "__main__":
    main()
