"""Training steps of CIFAR-stem ResNets, Parallax beside PyTorch, in one run: forward, backward and Adam on made-up images.

usage: FOLDER/bin/python benches/compare/compare.py [--batch 32] [--rounds 5] [--threads 2]

FOLDER is what install.sh made. The two programs take turns, so that both see the same machine. Builds Parallax first.
"""

import argparse
import datetime
import platform
import statistics
import subprocess
import time

import torch
from torch import nn

LAYERS = {"resnet18": ("basic", [2, 2, 2, 2]), "resnet50": ("bottleneck", [3, 4, 6, 3])}


class Block(nn.Module):
    """A residual block as torchvision builds it."""

    def __init__(self, kind, inputs, planes, stride):
        super().__init__()
        expansion = 1 if kind == "basic" else 4
        if kind == "basic":
            convs = [(inputs, planes, 3, stride), (planes, planes, 3, 1)]
        else:
            convs = [(inputs, planes, 1, 1), (planes, planes, 3, stride), (planes, planes * 4, 1, 1)]
        parts = []
        for number, (i, o, kernel, step) in enumerate(convs):
            parts += [nn.Conv2d(i, o, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(o)]
            if number + 1 < len(convs):
                parts.append(nn.ReLU(inplace=True))
        self.body = nn.Sequential(*parts)
        outputs = planes * expansion
        self.down = None
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.down is None else self.down(x)
        return torch.relu(self.body(x) + shortcut)


def network(arch):
    kind, counts = LAYERS[arch]
    expansion = 1 if kind == "basic" else 4
    parts = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    width = 64
    for stage, count in enumerate(counts):
        for block in range(count):
            planes = 64 << stage
            parts.append(Block(kind, width, planes, 2 if stage and not block else 1))
            width = planes * expansion
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Torch:
    def __init__(self, arch, batch, channels_last):
        torch.manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = network(arch).to(memory_format=layout)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.x = torch.randn(batch, 3, 32, 32).to(memory_format=layout)
        self.y = torch.arange(batch) % 10

    def step(self):
        started = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        loss.item()
        return time.perf_counter() - started


def parallax(arch, batch, steps):
    command = ["target/release/examples/supervised_step", arch, str(batch), str(steps), "cpu"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps a round, after one that is not counted")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    subprocess.run(["cargo", "build", "--release", "--quiet", "--example", "supervised_step"], check=True)
    print(f"{datetime.date.today()}, PyTorch {torch.__version__}, {options.threads} threads, batch {options.batch}, "
          f"{platform.machine()}, CPU capability {torch.backends.cpu.get_cpu_capability()}")
    print("images/s, median (smallest to largest) of the rounds' medians")
    for arch in LAYERS:
        rivals = {
            "PyTorch": Torch(arch, options.batch, False),
            "PyTorch, channels_last": Torch(arch, options.batch, True),
        }
        times = {name: [] for name in ["Parallax", *rivals]}
        for _ in range(options.rounds):
            times["Parallax"].append(statistics.median(parallax(arch, options.batch, options.steps)))
            for name, rival in rivals.items():
                rival.step()
                times[name].append(statistics.median(rival.step() for _ in range(options.steps)))
        rates = {name: sorted(options.batch / t for t in values) for name, values in times.items()}
        best = max(statistics.median(rates[name]) for name in rivals)
        for name, values in rates.items():
            middle = statistics.median(values)
            print(f"{arch:9} {name:23} {middle:6.1f} ({values[0]:.1f} to {values[-1]:.1f})  "
                  f"{middle / best:.2f} of PyTorch's best")


if __name__ == "__main__":
    main()
