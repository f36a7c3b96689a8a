"""Makes attacks.safetensors: FGSM and PGD on a small convolutional network, by PyTorch. See README.md."""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

EPS, ITERATIONS = 8 / 255, 10


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    output = parser.parse_args().output
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(11)
    # Numbers that float32 holds, computed with in float64.
    draw = lambda *shape: torch.randn(*shape, generator=generator).double()
    images = torch.rand(6, 3, 8, 8, generator=generator).double()
    noise = ((torch.rand(6, 3, 8, 8, generator=generator) * 2 - 1) * EPS).double()
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    conv, fc, bias = 0.4 * draw(8, 3, 3, 3), 0.7 * draw(5, 8), 0.1 * draw(5)
    conv, fc, bias = (x.float().double() for x in (conv, fc, bias))
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).double().view(3, 1, 1)
    std = torch.tensor([0.2023, 0.1994, 0.2010]).double().view(3, 1, 1)

    def gradient(x):
        x = x.detach().requires_grad_()
        hidden = F.relu(F.conv2d((x - mean) / std, conv, padding=1)).mean(dim=(2, 3))
        return torch.autograd.grad(F.cross_entropy(hidden @ fc.T + bias, labels), x)[0]

    def climb(x, alpha, steps):
        for _ in range(steps):
            x = x + alpha * gradient(x).sign()
            x = torch.clamp(torch.minimum(torch.maximum(x, images - EPS), images + EPS), 0, 1)
        return x

    start = torch.clamp(images + noise, 0, 1).float().double()
    tensors = {
        "images": images,
        "conv": conv,
        "fc": fc,
        "bias": bias,
        "gradient": gradient(images),
        "fgsm": climb(images, EPS, 1),
        "start": start,
        "pgd": climb(start, 2.5 * EPS / ITERATIONS, ITERATIONS),
    }
    tensors = {name: x.float().contiguous() for name, x in tensors.items()}
    tensors["labels"] = labels.to(torch.uint32)
    about = {"torch": torch.__version__, "eps": json.dumps(EPS), "iterations": json.dumps(ITERATIONS)}
    save_file(tensors, output / "attacks.safetensors", about)


if __name__ == "__main__":
    main()
