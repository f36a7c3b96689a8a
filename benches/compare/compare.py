"""Parallax beside PyTorch (CPU) and beside burn (wgpu, llvmpipe) in one run: a product, a convolution, a residual block, and
training steps of CIFAR-stem ResNets with Adam, on made-up numbers.

usage: FOLDER/bin/python benches/compare/compare.py [--only operations|steps|memory] [--rounds 5] [--threads 2]

FOLDER is what install.sh made. The programs take turns, so that all see the same machine. Builds Parallax first; prints one
table in Markdown.
"""

import argparse
import contextlib
import datetime
import platform
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

LAYERS = {"resnet18": ("basic", [2, 2, 2, 2]), "resnet50": ("bottleneck", [3, 4, 6, 3])}
# Multiply-adds of an image's forward pass; a step is counted as three forward passes.
STEP_FLOPS = {"resnet18": 6 * 0.557e9, "resnet50": 6 * 1.298e9}
OPERATIONS = {
    "product": ("product of 512 x 512 x 512", 1, 2 * 512**3),
    "convolution": ("3x3 convolution, 64 channels, 32x32, batch 16", 16, 16 * 2 * 64 * 64 * 9 * 32**2),
    "block": ("residual block of the same, forward and backward", 16, 16 * 12 * 64 * 64 * 9 * 32**2),
}


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


class TorchStep:
    """A training step."""

    def __init__(self, arch, batch, channels_last):
        torch.manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = network(arch).to(memory_format=layout)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.x = torch.randn(batch, 3, 32, 32).to(memory_format=layout)
        self.y = torch.arange(batch) % 10

    def run(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        loss.item()


class TorchOperation:
    """One of OPERATIONS."""

    def __init__(self, name, batch, channels_last):
        torch.manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.name = name
        if name == "product":
            self.a, self.b = torch.randn(512, 512), torch.randn(512, 512)
            return
        self.x = torch.randn(batch, 64, 32, 32).to(memory_format=layout)
        if name == "block":
            self.x.requires_grad_()
            self.block = Block("basic", 64, 64, 1).to(memory_format=layout)
        else:
            self.w = torch.randn(64, 64, 3, 3).to(memory_format=layout)

    def run(self):
        if self.name == "product":
            return self.a @ self.b
        if self.name == "convolution":
            return nn.functional.conv2d(self.x, self.w, padding=1)
        self.x.grad = None
        self.block.zero_grad(set_to_none=True)
        self.block(self.x).sum().backward()
        return self.x.grad


def timed_here(work, repetitions):
    """Seconds of each repetition of a PyTorch work after the first."""
    work.run()
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        work.run()
        seconds.append(time.perf_counter() - started)
    return seconds


def timed_there(command):
    """Seconds that a program prints, one a line."""
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]


def resident_kib(field):
    """VmRSS, the resident set of this process, or VmHWM, its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0])


def memory_here(arch, batch, channels_last):
    """Prints by how many MiB a PyTorch step raises the resident set of this process."""
    before = resident_kib("VmRSS")
    TorchStep(arch, batch, channels_last).run()
    print((resident_kib("VmHWM") - before) // 1024)


def memory(batch):
    """Prints the increase of the resident set by one step of ResNet-50, each in a process of its own."""
    print("| program | MiB |\n| --- | --- |")
    for name, channels_last in (("PyTorch, NCHW", 0), ("PyTorch, NHWC", 1)):
        command = [sys.executable, __file__, "--peak", str(channels_last), "--batch", str(batch)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"| {name} | {done.stdout.strip()} |")
    command = ["target/release/examples/supervised_step", "resnet50", str(batch), "1", "cpu"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(f"| Parallax | {done.stderr.split('resident set ')[1].split()[0]} |")


class Burn:
    """burn's program at one work, which tries its kernels once, when the first repetitions are asked for. Used in a `with`,
    which ends it: stopped, it would outlive this program."""

    def __init__(self, program, name, batch):
        self.command = [program, name, str(batch)]
        self.process = None

    def times(self, repetitions):
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            seconds = float(self.process.stdout.readline())
            print(f"burn's first {self.command[1]}: {seconds:.0f} s", file=sys.stderr)
        else:
            self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{repetitions}\n")
        self.process.stdin.flush()
        seconds = float(self.process.stdout.readline())
        # Waiting, it polls its device and takes a seventh of a core from whoever has the turn.
        self.process.send_signal(signal.SIGSTOP)
        return [seconds]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def contestants(name, batch, repetitions, burn):
    """Who does the work, by device: each gives the seconds of some repetitions."""
    is_step = name in LAYERS
    program = "target/release/examples/" + ("supervised_step" if is_step else "operations")
    make = TorchStep if is_step else TorchOperation
    plain, last = make(name, batch, False), make(name, batch, True)
    yield "CPU", {
        "Parallax": lambda: timed_there([program, name, batch, repetitions, "cpu"]),
        "PyTorch": lambda: timed_here(plain, repetitions),
        "PyTorch, channels_last": lambda: timed_here(last, repetitions),
    }
    if burn:
        with Burn(burn, name, batch) as rival:
            yield "llvmpipe", {
                "Parallax": lambda: timed_there([program, name, batch, repetitions, "llvmpipe"]),
                "burn": lambda: rival.times(repetitions),
            }


def compare(title, name, batch, flops, device, rivals, rounds):
    """Lets the rivals take turns and prints a row for each."""
    times = {rival: [] for rival in rivals}
    for _ in range(rounds):
        for rival, measure in rivals.items():
            times[rival].append(statistics.median(measure()))
    rates = {rival: sorted(1 / seconds for seconds in values) for rival, values in times.items()}
    best = max(statistics.median(values) for rival, values in rates.items() if rival != "Parallax")
    for rival, values in rates.items():
        middle = statistics.median(values)
        images = ""
        if name in LAYERS:
            low, high = values[0] * batch, values[-1] * batch
            images = f"{middle * batch:.1f} ({low:.1f} to {high:.1f})"
        gflops = f"{middle * flops / 1e9:.1f} ({values[0] * flops / 1e9:.1f} to {values[-1] * flops / 1e9:.1f})"
        ratio = f"{middle / best:.2f}" if rival == "Parallax" else ""
        print(f"| {title} | {device} | {rival} | {images} | {gflops} | {ratio} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["operations", "steps", "memory"])
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=32, help="of a training step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps a round, after one that is not counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip", nargs="*", default=["resnet18", "resnet50"], help="works that llvmpipe does not do, for their time")
    parser.add_argument("--device", choices=["cpu", "llvmpipe"], help="on one device alone")
    options = parser.parse_args()
    # These would end the program without what stands in `finally` and `with`.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:
            signal.signal(ending, lambda number, _: sys.exit(128 + number))
    torch.set_num_threads(options.threads)
    if options.peak is not None:
        return memory_here("resnet50", options.batch, options.peak)
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "--example", "supervised_step", "--example", "operations"],
        check=True,
    )
    if options.only == "memory":
        return memory(options.batch)
    burn = Path(sys.prefix) / "bin" / "burn-times"
    if not burn.exists():
        print(f"{burn} is not there: without burn and llvmpipe; benches/compare/install.sh makes it", file=sys.stderr)
        burn = None
    print(f"{datetime.date.today()}, PyTorch {torch.__version__}, burn 0.22.1, {options.threads} threads, "
          f"{platform.machine()}, CPU capability {torch.backends.cpu.get_cpu_capability()}")
    print("median (smallest to largest) of the rounds' medians; the ratio is Parallax by the best of the others\n")
    print("| what | device | program | images/s | GFLOP/s | ratio |\n| --- | --- | --- | --- | --- | --- |")
    works = []
    if options.only != "steps":
        works += [(title, name, batch, flops, 20) for name, (title, batch, flops) in OPERATIONS.items()]
    if options.only != "operations":
        works += [
            (f"training step of {name}, batch {options.batch}", name, options.batch, flops * options.batch, options.steps)
            for name, flops in STEP_FLOPS.items()
        ]
    for title, name, batch, flops, repetitions in works:
        with contextlib.closing(contestants(name, batch, repetitions, burn)) as devices:
            for device, rivals in devices:
                if options.device in (None, device.lower()) and not (device == "llvmpipe" and name in options.skip):
                    compare(title, name, batch, flops, device, rivals, options.rounds)


if __name__ == "__main__":
    main()
