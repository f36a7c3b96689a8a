#!/usr/bin/env python3
"""Makes the golden files of this folder with PyTorch and torchvision.

    pip install torch torchvision safetensors numpy
    python generate.py            # writes the files beside this script
    python generate.py lars schedules    # writes lars.safetensors and schedules.safetensors
    python generate.py --list     # prints every tensor and metadata entry of the files

What each file holds is written in README.md. Random numbers come from numpy's RandomState,
whose stream is frozen, and PyTorch runs on one CPU thread, so one version of PyTorch on one
kind of processor makes the same bytes every time. Every check below raises an error, so files
that were written passed all of them.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.transforms.v2 import functional as T

HERE = Path(__file__).resolve().parent
CLASSES = 10
LAST_SCALE_BY_BLOCKS = 1.6
VERSIONS = {
    "torch": torch.__version__.split("+")[0],
    "torchvision": torchvision.__version__.split("+")[0],
}
TOTAL_LIMIT = 4 * 1024 * 1024
DTYPES = {"float32": "F32", "float64": "F64", "uint32": "U32"}


# ---------------------------------------------------------------- files


def save(path, tensors, metadata):
    """Writes a safetensors file whose header is sorted, so that equal contents are equal bytes.

    `tensors`: name to numpy array or torch tensor. Metadata values other than versions are JSON.
    """
    arrays = {}
    for name, value in sorted(tensors.items()):
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{path.name}: {name} is not finite")
        little_endian = array.dtype.newbyteorder("<")
        # ascontiguousarray would make a scalar one-dimensional, reshape undoes that.
        arrays[name] = np.ascontiguousarray(array, dtype=little_endian).reshape(array.shape)

    text = {key: json.dumps(value) for key, value in metadata.items()} | VERSIONS
    header = {"__metadata__": dict(sorted(text.items()))}
    offset = 0
    # Wider elements first keeps every tensor aligned, as the safetensors library does.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    body = b"".join(arrays[name].tobytes() for name in order)
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)

    with safe_open(path, framework="numpy") as stored:
        if set(stored.keys()) != set(arrays) or stored.metadata() != text:
            raise ValueError(f"{path.name}: the safetensors library reads back something else")
        for name, array in arrays.items():
            if not np.array_equal(stored.get_tensor(name), array):
                raise ValueError(f"{path.name}: {name} reads back different")


def describe(path):
    """Prints one line for each metadata entry and tensor of a file."""
    print(f"{path.name}  {path.stat().st_size} bytes")
    with safe_open(path, framework="numpy") as stored:
        for key, value in sorted(stored.metadata().items()):
            print(f"  metadata {key} = {value}")
        for name in sorted(stored.keys()):
            part = stored.get_slice(name)
            print(f"  {part.get_dtype()} {name} {part.get_shape()}")


# ---------------------------------------------------------------- images


def smooth_images(random, count, size, noise):
    """[count, 3, size, size] float32 images in [0, 1]: a few waves a channel, and noise."""
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    images = np.zeros((count, 3, size, size))
    for image in images:
        for channel in image:
            for _ in range(3):
                fy, fx = random.uniform(-3.0, 3.0, 2) * 2.0 * math.pi / size
                phase = random.uniform(0.0, 2.0 * math.pi)
                channel += random.uniform(0.05, 0.2) * np.sin(fy * y + fx * x + phase)
            channel += random.uniform(0.3, 0.7)
    images += noise * random.standard_normal(images.shape)
    return np.clip(images, 0.0, 1.0).astype(np.float32)


def flat_regions(random, size):
    """[3, size, size] float32: black, white, greys, pure and half colours, ties, near-greys."""
    colours = [
        (0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25),
        (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.75, 0.75, 0.75),
        (1, 1, 0), (0, 1, 1), (1, 0, 1), (0.8, 0.8, 0.2),
        (0.3, 0.6, 0.6), (0.6, 0.3, 0.6), (0.502, 0.5, 0.5), None,
    ]  # fmt: skip
    image = np.zeros((3, size, size), dtype=np.float32)
    side = size // 4
    for cell, colour in enumerate(colours):
        top, left = side * (cell // 4), side * (cell % 4)
        block = image[:, top : top + side, left : left + side]
        if colour is None:
            block[...] = random.uniform(0.0, 1.0, block.shape)
        else:
            block[...] = np.array(colour, dtype=np.float32)[:, None, None]
    return image


# ---------------------------------------------------------------- ResNets


class NarrowCifarResNet(ResNet):
    """torchvision's ResNet with the CIFAR stem, each channel count multiplied by `width`."""

    def __init__(self, block, layers, width):
        self.width = width
        super().__init__(block, layers, num_classes=CLASSES)
        stem = self.channels(64)
        self.conv1 = nn.Conv2d(3, stem, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.maxpool = nn.Identity()
        self.fc = nn.Linear(self.channels(512 * block.expansion), CLASSES)

    def channels(self, full):
        return max(4, 4 * round(full * self.width / 4))

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:
            self.inplanes = self.channels(64)
        return super()._make_layer(block, self.channels(planes), blocks, stride, dilate)


def draw_parameters(random, model):
    """Name to float32 array: Kaiming fan-out convolutions, batch norms off their usual 1 and 0.

    The last batch norm of a block gets a small scale, the smaller the deeper: with scales near 1
    the narrow networks are so steep that ten steps in float32 and in float64 drift apart.
    """
    blocks = sum(isinstance(module, (BasicBlock, Bottleneck)) for module in model.modules())
    last = {
        f"{name}.{[part for part, _ in block.named_children() if part.startswith('bn')][-1]}.weight"
        for name, block in model.named_modules()
        if isinstance(block, (BasicBlock, Bottleneck))
    }
    drawn = {}
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if parameter.dim() == 4:
            fan_out = shape[0] * shape[2] * shape[3]
            value = random.standard_normal(shape) * math.sqrt(2.0 / fan_out)
        elif name == "fc.weight":
            value = random.standard_normal(shape) / math.sqrt(shape[1])
        elif name in last:
            value = random.uniform(0.5, 1.5, shape) * LAST_SCALE_BY_BLOCKS / blocks
        elif name.endswith(".weight"):
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.standard_normal(shape) * 0.1
        drawn[name] = value.astype(np.float32)
    return drawn


def leave_kinks(model, parameters, images):
    """Moves batch-norm biases a little, until no ReLU of the first step has an input near zero.

    Among a million activations some lie within float32's rounding of zero, where a ReLU's gradient
    jumps: two right implementations would then differ by several percent. One forward pass in
    float64 meets the ReLUs in order, and shifts each channel by up to 0.02 to the middle of the
    widest gap between its values. Returns the parameters and the least distance from zero.
    """
    model = load(model, parameters, torch.float64)
    reach, distances = 0.02, []

    def before_relu(norms):
        norms = iter(norms)

        def hook(_, inputs):
            bias = next(norms).bias
            shifts = torch.zeros_like(bias)
            for channel, values in enumerate(inputs[0].transpose(0, 1).flatten(1)):
                near = values[values.abs() < reach].sort().values
                ends = near.new_tensor([reach])
                near = torch.cat([-ends, near, ends])
                widest = near.diff().argmax()
                shifts[channel] = -(near[widest] + near[widest + 1]) / 2.0
            # The shift that a float32 bias can take.
            shifts = (bias + shifts).float().double() - bias
            bias += shifts
            shifted = inputs[0] + shifts[:, None, None]
            distances.append(shifted.abs().min().item())
            return shifted

        return hook

    model.relu.register_forward_pre_hook(before_relu([model.bn1]))
    for block in model.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            norms = [module for name, module in block.named_children() if name.startswith("bn")]
            block.relu.register_forward_pre_hook(before_relu(norms))
    with torch.no_grad():
        model(torch.from_numpy(images).double())
    moved = {name: value.detach().float().numpy() for name, value in model.named_parameters()}
    return moved, min(distances)


def load(model, parameters, dtype):
    """The same model with the drawn parameters, in `dtype` and training mode."""
    model = model().to(dtype).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(parameters[name]))
    return model


def one_step(model, parameters, images, labels, dtype):
    """Forward and backward in training mode, then a forward in evaluation mode."""
    model = load(model, parameters, dtype)
    images = torch.from_numpy(images).to(dtype).requires_grad_()
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    found = {"logits": logits, "loss": loss, "grad_input": images.grad}
    for name, parameter in model.named_parameters():
        found[f"grad.{name}"] = parameter.grad
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            found[f"running.{name}"] = buffer.clone()
    model.eval()
    with torch.no_grad():
        found["logits_eval"] = model(images)
    return {name: value.detach() for name, value in found.items()}


def train(model, parameters, images, labels, dtype, optimizer, steps=10):
    """Losses of `steps` steps on one batch, each taken before its update."""
    model = load(model, parameters, dtype)
    optimizer = optimizer(model.parameters())
    images = torch.from_numpy(images).to(dtype)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses, dtype=np.float64)


def resnet(path, block, layers, width, seed, batch, settings):
    def model():
        return NarrowCifarResNet(block, layers, width)

    random = np.random.RandomState(seed)
    images = (smooth_images(random, batch, 32, noise=0.1) - np.float32(0.5)) / np.float32(0.25)
    labels = torch.from_numpy(random.randint(0, CLASSES, batch))
    parameters = draw_parameters(random, model())
    parameters, distance = leave_kinks(model, parameters, images)

    exact = one_step(model, parameters, images, labels, torch.float64)
    single = one_step(model, parameters, images, labels, torch.float32)
    deviations = {}
    for name, value in exact.items():
        norm = value.norm().item()
        if norm < 1e-6:
            raise ValueError(f"{path.name}: {name} is dead, its norm is {norm}")
        deviations[name] = (single[name].double() - value).norm().item() / norm
    print(f"{path.name}: every input of a ReLU is at least {distance:.2e} from zero")
    print("  relative norm deviation of torch's float32 from float64")
    for name, deviation in sorted(deviations.items(), key=lambda item: -item[1]):
        print(f"  {deviation:.2e} {name}")
        if deviation > 1e-5:
            raise ValueError(f"{path.name}: {name} is ill-conditioned: {deviation}")

    tensors = {"input": images, "labels": labels.numpy().astype(np.uint32)}
    tensors |= {f"param.{name}": value for name, value in parameters.items()}
    tensors |= {name: value.float() for name, value in exact.items() if name != "loss"}
    tensors["loss"] = exact["loss"]

    def adam(parameters):
        return torch.optim.Adam(
            parameters,
            lr=settings["adam_lr"],
            betas=settings["adam_betas"],
            eps=settings["adam_eps"],
            weight_decay=settings["adam_weight_decay"],
        )

    def sgd(parameters):
        return torch.optim.SGD(
            parameters,
            lr=settings["sgd_lr"],
            momentum=settings["sgd_momentum"],
            weight_decay=settings["sgd_weight_decay"],
            nesterov=True,
        )

    for name, optimizer in {"adam": adam, "sgd": sgd}.items():
        losses = train(model, parameters, images, labels, torch.float64, optimizer)
        single = train(model, parameters, images, labels, torch.float32, optimizer)
        tensors[f"{name}_losses_f64"], tensors[f"{name}_losses_f32"] = losses, single
        if min(losses.min(), single.min()) <= 0.1:
            raise ValueError(f"{path.name}: a loss of {name} fell to {losses.min()}")
        # Another right implementation rounds elsewhere: so do starts that are one rounding apart.
        drifts = [np.abs(single / losses - 1.0).max()]
        for _ in range(8):
            start = {
                key: (value * (1.0 + 2.0**-24 * random.choice([-1.0, 1.0], value.shape)))
                for key, value in parameters.items()
            }
            start = {key: value.astype(np.float32) for key, value in start.items()}
            nearby = train(model, start, images, labels, torch.float32, optimizer)
            drifts.append(np.abs(nearby / losses - 1.0).max())
        for suffix, values in {"f32": single, "f64": losses}.items():
            print(f"  {name}_losses_{suffix}", " ".join(f"{loss:.7f}" for loss in values))
        print(
            f"  {name}: largest relative deviation of a float32 loss from float64 {drifts[0]:.1e},",
            f"from starts one rounding away {max(drifts[1:]):.1e}",
        )
        # A fifth of the 1e-3 that the tests allow.
        if max(drifts) > 2e-4:
            raise ValueError(f"{path.name}: the losses of {name} are ill-conditioned: {drifts}")

    save(path, tensors, settings | {"width": width, "bn_eps": 1e-5, "bn_momentum": 0.1})


# ---------------------------------------------------------------- NT-Xent


def nt_xent(z, temperature):
    """SimCLR's loss (Chen et al. 2020, equation 1); rows i and i + N of `z` [2N, D] are a pair."""
    rows = z.shape[0]
    similarity = F.normalize(z, dim=1)
    similarity = similarity @ similarity.T / temperature
    similarity = similarity.masked_fill(torch.eye(rows, dtype=torch.bool), -math.inf)
    positives = torch.arange(rows).roll(rows // 2)
    return F.cross_entropy(similarity, positives)


def nt_xent_by_loops(z, temperature):
    """The same loss written as the paper's sums, to check the one above."""
    rows = len(z)
    similarity = [
        [float(a @ b / np.sqrt((a @ a) * (b @ b))) / temperature for b in z] for a in z
    ]
    total = 0.0
    for i in range(rows):
        others = sum(math.exp(similarity[i][k]) for k in range(rows) if k != i)
        total -= math.log(math.exp(similarity[i][(i + rows // 2) % rows]) / others)
    return total / rows


def ntxent(path):
    random = np.random.RandomState(3)
    tensors, temperatures = {}, {}
    for case, (rows, columns, temperature) in enumerate([(24, 16, 0.5), (64, 32, 0.1)]):
        first = random.standard_normal((rows // 2, columns))
        second = first + 0.7 * random.standard_normal((rows // 2, columns))
        z = np.concatenate([first, second]) * random.uniform(0.3, 3.0, (rows, 1))
        z = z.astype(np.float32)
        exact = torch.from_numpy(z).double().requires_grad_()
        loss = nt_xent(exact, temperature)
        loss.backward()
        if abs(loss.item() - nt_xent_by_loops(z.astype(np.float64), temperature)) > 1e-12:
            raise ValueError(f"{path.name}: the two forms of the loss disagree")
        single = torch.from_numpy(z).requires_grad_()
        nt_xent(single, temperature).backward()
        apart = ((single.grad - exact.grad).norm() / exact.grad.norm()).item()
        print(f"{path.name}: case {case} loss {loss.item():.10f}, float32 gradient {apart:.2e}")
        tensors[f"case{case}.z"] = z
        tensors[f"case{case}.loss"] = loss
        tensors[f"case{case}.grad"] = exact.grad.float()
        temperatures[f"case{case}.temperature"] = temperature
    save(path, tensors, temperatures)


# ---------------------------------------------------------------- transforms

COLOUR = {
    "brightness": (T.adjust_brightness, [0.3, 1.7]),
    "contrast": (T.adjust_contrast, [0.3, 1.7]),
    "saturation": (T.adjust_saturation, [0.0, 0.4, 1.8]),
    "hue": (T.adjust_hue, [-0.2, 0.1, 0.5]),
}
CHAIN_FACTORS = {"brightness": 1.3, "contrast": 0.7, "saturation": 1.4, "hue": 0.1}
CHAINS = [
    ["brightness", "contrast", "saturation", "hue"],
    ["hue", "contrast", "brightness", "saturation"],
]
# [top, left, height, width]: whole, small (upsampled), odd, one pixel wide, one pixel high.
CROPS_32 = [[0, 0, 32, 32], [5, 9, 10, 13], [3, 1, 17, 29], [4, 20, 25, 1], [31, 0, 1, 32]]
# Whole (downsampled by 3), small (upsampled), tall, wide, and a scale that is no whole number.
CROPS_96 = [[0, 0, 96, 96], [40, 37, 20, 24], [10, 3, 80, 21], [60, 2, 9, 93], [7, 11, 67, 85]]
# [top, left] in the image padded with 4 zeros on each side.
PAD_CROPS = [[0, 0], [8, 8], [3, 6]]
# Kernel size and standard deviation: SimCLR's range at 32 and 96 pixels, and the largest kernel.
BLURS = [(3, 0.1), (3, 2.0), (9, 0.7), (9, 2.0), (31, 5.0)]
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def transforms(path):
    random = np.random.RandomState(4)
    images = {
        "smooth": torch.from_numpy(smooth_images(random, 1, 32, noise=0.08)[0]),
        "flat": torch.from_numpy(flat_regions(random, 32)),
        "large": torch.from_numpy(smooth_images(random, 1, 96, noise=0.08)[0]),
    }
    tensors = {f"image.{name}": image for name, image in images.items()}
    metadata = {"chain.factors": CHAIN_FACTORS, "normalize.mean": MEAN, "normalize.std": STD}
    largest = 0.0

    def store(name, transform, image, parameters=None):
        """Keeps torchvision's float32 result, and asks its float64 result to be the same."""
        nonlocal largest
        result = transform(images[image])
        apart = (result.double() - transform(images[image].double())).abs().max().item()
        if apart > 1e-5:
            raise ValueError(f"{path.name}: {name} is ill-conditioned: {apart}")
        largest = max(largest, apart)
        tensors[name] = result
        if parameters is not None:
            metadata[name] = parameters

    for image in ["smooth", "flat"]:
        for kind, (adjust, factors) in COLOUR.items():
            for case, factor in enumerate(factors):
                store(
                    f"{kind}.{case}.{image}",
                    lambda x, adjust=adjust, factor=factor: adjust(x, factor),
                    image,
                )
                metadata[f"{kind}.{case}.factor"] = factor
        store(f"grayscale.{image}", lambda x: T.rgb_to_grayscale(x, num_output_channels=3), image)
        for case, order in enumerate(CHAINS):

            def chain(x, order=order):
                for kind in order:
                    x = COLOUR[kind][0](x, CHAIN_FACTORS[kind])
                return x

            store(f"chain.{case}.{image}", chain, image)
            metadata[f"chain.{case}.order"] = order
        for case, (kernel, sigma) in enumerate(BLURS):
            store(
                f"blur.{case}.{image}",
                lambda x, kernel=kernel, sigma=sigma: T.gaussian_blur(x, [kernel] * 2, [sigma] * 2),
                image,
            )
            metadata[f"blur.{case}.kernel"] = kernel
            metadata[f"blur.{case}.sigma"] = sigma

    store("flip.smooth", T.horizontal_flip, "smooth")
    store("normalize.smooth", lambda x: T.normalize(x, MEAN, STD), "smooth")
    for turns in range(4):
        store(f"rot90.{turns}.smooth", lambda x, k=turns: torch.rot90(x, k, (1, 2)), "smooth")
    for case, (top, left) in enumerate(PAD_CROPS):
        store(
            f"pad_crop.{case}.smooth",
            lambda x, top=top, left=left: T.crop(T.pad(x, [4]), top, left, 32, 32),
            "smooth",
        )
        metadata[f"pad_crop.{case}.offset"] = [top, left]
    for size, image, boxes in [(32, "smooth", CROPS_32), (96, "large", CROPS_96)]:
        for case, box in enumerate(boxes):
            store(
                f"crop{size}.{case}.{image}",
                lambda x, box=box: T.resized_crop(
                    x, *box, [32, 32], interpolation=T.InterpolationMode.BILINEAR, antialias=True
                ),
                image,
            )
            metadata[f"crop{size}.{case}.box"] = box
    print(f"{path.name}: float32 from float64, largest absolute deviation {largest:.2e}")
    save(path, tensors, metadata)


# ---------------------------------------------------------------- optimizers


def optimizers(path):
    random = np.random.RandomState(5)
    length, steps = 16, 5
    start = random.standard_normal(length).astype(np.float32)
    gradients = random.standard_normal((steps, length))
    gradients *= 10.0 ** random.uniform(-3.0, 1.0, length)
    gradients = gradients.astype(np.float32)
    # An element at rest, and two whose gradient is always or at first exactly zero.
    start[0] = 0.0
    gradients[:, :2] = 0.0
    gradients[:3, 2] = 0.0

    settings = {
        "adam_lr": 0.01,
        "adam_weight_decay": 0.05,
        "adam_betas": [0.9, 0.999],
        "adam_eps": 1e-8,
        "sgd_lr": 0.05,
        "sgd_momentum": 0.9,
        "sgd_weight_decay": 0.01,
    }

    def adam(parameters):
        return torch.optim.Adam(
            parameters,
            lr=settings["adam_lr"],
            betas=settings["adam_betas"],
            eps=settings["adam_eps"],
            weight_decay=settings["adam_weight_decay"],
        )

    def sgd(nesterov):
        return lambda parameters: torch.optim.SGD(
            parameters,
            lr=settings["sgd_lr"],
            momentum=settings["sgd_momentum"],
            weight_decay=settings["sgd_weight_decay"],
            nesterov=nesterov,
        )

    tensors = {"initial": start, "gradients": gradients}
    for name, make in {"adam": adam, "sgd_nesterov": sgd(True), "sgd_momentum": sgd(False)}.items():
        for suffix, dtype in {"f32": torch.float32, "f64": torch.float64}.items():
            parameter = torch.from_numpy(start).to(dtype, copy=True).requires_grad_()
            optimizer = make([parameter])
            path_taken = []
            for gradient in gradients:
                parameter.grad = torch.from_numpy(gradient).to(dtype, copy=True)
                optimizer.step()
                path_taken.append(parameter.detach().clone())
            tensors[f"{name}.params_{suffix}"] = torch.stack(path_taken)
        apart = (tensors[f"{name}.params_f32"] - tensors[f"{name}.params_f64"]).abs().max().item()
        print(f"{path.name}: {name} float32 from float64, largest absolute deviation {apart:.2e}")
    save(path, tensors, settings)


# ---------------------------------------------------------------- LARS


class Lars:
    """LARS as SimCLR uses it: SGD with momentum, whose gradient of each weight is first rescaled.

    You, Gitman and Ginsburg 2017, equation 6: a weight w with gradient g has the rate
    trust |w| / (|g| + decay |w|) beside the learning rate. Tensors of one dimension (biases, scales
    and shifts of batch norms) have neither rate nor decay.
    """

    def __init__(self, parameters, settings):
        self.parameters = list(parameters)
        self.settings = settings
        self.sgd = torch.optim.SGD(
            self.parameters, lr=settings["lars_lr"], momentum=settings["lars_momentum"]
        )

    def zero_grad(self):
        self.sgd.zero_grad()

    @torch.no_grad()
    def step(self):
        trust, decay, eps = (self.settings[f"lars_{key}"] for key in ["trust", "decay", "eps"])
        for w in self.parameters:
            size, slope = w.square().sum().sqrt(), w.grad.square().sum().sqrt()
            if w.dim() > 1 and size > 0 and slope > 0:
                rate = trust * size / (slope + decay * size + eps)
                w.grad = rate * (w.grad + decay * w)
        self.sgd.step()


def lars(path):
    """Five steps of single tensors, and ten losses of the network of resnet18.safetensors."""
    settings = {
        "lars_lr": 4.0,
        "lars_momentum": 0.9,
        "lars_decay": 0.05,
        "lars_trust": 0.001,
        "lars_eps": 1e-8,
    }
    random = np.random.RandomState(6)
    steps = 5
    # A weight, a bias, a weight that starts at zero, and one whose first gradients are zero.
    shapes = {"weight": (5, 7), "bias": (7,), "zero": (3, 4), "still": (2, 2, 3, 3)}
    tensors, starts, slopes = {}, {}, {}
    for name, shape in shapes.items():
        starts[name] = random.standard_normal(shape).astype(np.float32)
        slopes[name] = (0.01 * random.standard_normal((steps, *shape))).astype(np.float32)
    starts["zero"][:] = 0.0
    slopes["still"][:2] = 0.0
    for name in shapes:
        tensors[f"{name}.initial"], tensors[f"{name}.gradients"] = starts[name], slopes[name]
    for suffix, dtype in {"f32": torch.float32, "f64": torch.float64}.items():
        parameters = {
            name: torch.from_numpy(start).to(dtype, copy=True).requires_grad_()
            for name, start in starts.items()
        }
        optimizer = Lars(parameters.values(), settings)
        taken = {name: [] for name in shapes}
        for step in range(steps):
            for name, parameter in parameters.items():
                parameter.grad = torch.from_numpy(slopes[name][step]).to(dtype, copy=True)
            optimizer.step()
            for name, parameter in parameters.items():
                taken[name].append(parameter.detach().clone())
        for name, path_taken in taken.items():
            tensors[f"{name}.params_{suffix}"] = torch.stack(path_taken)
    for name in shapes:
        apart = (tensors[f"{name}.params_f32"] - tensors[f"{name}.params_f64"]).abs().max().item()
        print(f"{path.name}: {name} float32 from float64, largest absolute deviation {apart:.2e}")

    # Batch norms follow the learning rate alone, and weights its product with the trust.
    network = settings | {"lars_lr": 0.02, "lars_trust": 0.2}
    with safe_open(HERE / "resnet18.safetensors", framework="numpy") as stored:
        images = stored.get_tensor("input")
        labels = torch.from_numpy(stored.get_tensor("labels").astype(np.int64))
        parameters = {
            name.removeprefix("param."): stored.get_tensor(name)
            for name in stored.keys()
            if name.startswith("param.")
        }
        width = json.loads(stored.metadata()["width"])

    def model():
        return NarrowCifarResNet(BasicBlock, [2, 2, 2, 2], width)

    def optimizer(parameters):
        return Lars(parameters, network)

    exact = train(model, parameters, images, labels, torch.float64, optimizer)
    single = train(model, parameters, images, labels, torch.float32, optimizer)
    drift = np.abs(single / exact - 1.0).max()
    print(f"{path.name}: losses", " ".join(f"{loss:.7f}" for loss in exact))
    print(f"{path.name}: largest relative deviation of a float32 loss from float64 {drift:.1e}")
    if exact.min() <= 0.1 or exact[-1] > 0.8 * exact[0] or drift > 2e-4:
        raise ValueError(f"{path.name}: the losses of the network are ill-conditioned or flat")
    tensors["resnet18_losses_f32"], tensors["resnet18_losses_f64"] = single, exact
    settings |= {f"resnet18_{key}": value for key, value in network.items()}
    save(path, tensors, settings)


# ---------------------------------------------------------------- schedules


def schedules(path):
    """Learning rates of each step, as torch's schedulers give them."""
    lr = torch.optim.lr_scheduler
    base, steps, warmup = 0.3, 120, 12
    settings = {
        "base": base,
        "steps": steps,
        "warmup": warmup,
        "milestones": [40, 41, 90],
        "milestones_gamma": 0.2,
        "every": 25,
        "every_gamma": 0.1,
    }

    def rising(optimizer):
        # The first of `warmup` steps has 1 / warmup of the rate, and the last one all of it.
        return lr.LinearLR(optimizer, 1.0 / warmup, 1.0, total_iters=warmup - 1)

    def constant(optimizer):
        return lr.ConstantLR(optimizer, factor=1.0)

    def milestones(optimizer):
        return lr.MultiStepLR(optimizer, settings["milestones"], settings["milestones_gamma"])

    def every(optimizer):
        return lr.StepLR(optimizer, settings["every"], settings["every_gamma"])

    def warm(decay):
        # Steps of the decay are counted from the start of the training.
        return lambda optimizer: lr.ChainedScheduler([rising(optimizer), decay(optimizer)])

    def cosine(optimizer):
        return lr.CosineAnnealingLR(optimizer, T_max=steps)

    def warm_cosine(optimizer):
        falling = lr.CosineAnnealingLR(optimizer, T_max=steps - warmup)
        return lr.SequentialLR(optimizer, [rising(optimizer), falling], milestones=[warmup])

    tensors = {}
    for name, make in {
        "constant": constant,
        "constant_warm": warm(constant),
        "milestones": milestones,
        "milestones_warm": warm(milestones),
        "every": every,
        "every_warm": warm(every),
        "cosine": cosine,
        "cosine_warm": warm_cosine,
    }.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
        scheduler = make(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        tensors[name] = np.array(rates, dtype=np.float64)
    save(path, tensors, settings)


# ---------------------------------------------------------------- command line

# Weight decays are larger than in practice, so that ten losses show whether they are applied.
TRAINING = {
    "adam_lr": 3e-4,
    "adam_weight_decay": 0.01,
    "adam_betas": [0.9, 0.999],
    "adam_eps": 1e-8,
    "sgd_momentum": 0.9,
    "sgd_weight_decay": 0.05,
}
FILES = {
    "resnet18.safetensors": lambda path: resnet(
        path,
        BasicBlock,
        [2, 2, 2, 2],
        width=0.125,
        seed=7,
        batch=16,
        settings=TRAINING | {"sgd_lr": 0.01},
    ),
    "resnet50.safetensors": lambda path: resnet(
        path,
        Bottleneck,
        [3, 4, 6, 3],
        width=0.0625,
        seed=8,
        batch=16,
        settings=TRAINING | {"sgd_lr": 0.004},
    ),
    "ntxent.safetensors": ntxent,
    "transforms.safetensors": transforms,
    "optimizers.safetensors": optimizers,
    "lars.safetensors": lars,
    "schedules.safetensors": schedules,
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("files", nargs="*", help="files to write, without their ending; default all")
    arguments.add_argument("--output", type=Path, default=HERE, help="folder for the files")
    arguments.add_argument("--list", action="store_true", help="print what the files hold")
    arguments = arguments.parse_args()
    if arguments.list:
        for name in FILES:
            describe(arguments.output / name)
        return
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}.safetensors" for name in arguments.files] or list(FILES)
    if unknown := sorted(set(wanted) - set(FILES)):
        raise SystemExit(f"{', '.join(unknown)}: expected names of {', '.join(FILES)}")
    for name in wanted:
        FILES[name](arguments.output / name)
    written = [arguments.output / name for name in FILES if (arguments.output / name).exists()]
    total = sum(path.stat().st_size for path in written)
    print(f"{total} bytes in all")
    if total >= TOTAL_LIMIT:
        raise ValueError(f"the files take {total} bytes, the limit is {TOTAL_LIMIT}")


if __name__ == "__main__":
    main()
