"""A model of data-parallel SimCLR steps: the time of a step of ResNet-50 by number of ranks, and how many bytes a rank receives.

usage: python3 benches/scale.py [--views-per-second 3400] [--gigabits 200] [--batch 4096]

The sizes are those of the exchanges in src/train/data_parallel.rs and src/ops/batch_norm/synchronized.rs; `parallax simclr` prints
the measured bytes of a step under mpirun. The speed of a device is an assumption. Prints a table in Markdown.
"""

import argparse
import math

PARAMETERS = 23_500_352 + 2048 * 2048 + 2048 + 2048 * 128 + 128  # encoder and projector
CHANNELS = 26_560  # of all batch norms
NORMS = 53
PROJECTION = 128
BUCKETS = 35  # in which the program exchanges these gradients
LATENCY = 5e-6  # s, of a message, with a process that wakes up
HOST_COPY = 25e9  # bytes per second between a device and its host
HOST_SUM = 8e9  # bytes per second of the sum of gradients on the host
LOSS_RATE = 20e12  # FLOP/s of the products of NT-Xent


def received(ranks, batch):
    """Bytes that a rank receives in a step: embeddings, gradients, and statistics of batch norm."""
    others = ranks - 1
    embeddings = 4 * 2 * batch * PROJECTION * others / ranks
    gradients = 2 * 4 * PARAMETERS * others / ranks
    forward = 4 * 2 * CHANNELS * others
    backward = 2 * 4 * 2 * CHANNELS * others / ranks
    return embeddings, gradients, forward + backward


def seconds(ranks, batch, options):
    """Seconds of computation, of exchange, and of exchange that the backward pass does not hide."""
    compute = 2 * batch / options.views_per_second / ranks
    loss = 3 * 2 * (2 * batch) ** 2 * PROJECTION / LOSS_RATE
    if ranks == 1:
        return compute + loss, 0.0, 0.0
    bytes_per_second = options.gigabits * 1e9 / 8
    embeddings, gradients, statistics = received(ranks, batch)
    latency = LATENCY * math.ceil(math.log2(ranks))
    # Two gathers, a gather and a sum per batch norm, and the agreement about a stop are a barrier and one or two
    # collectives each.
    awaited = (embeddings + statistics) / bytes_per_second + (2 * 2 + NORMS * (2 + 3) + 2) * latency
    # The sum of a bucket of gradients is two collectives.
    host = 2 * 4 * PARAMETERS / HOST_COPY + 4 * PARAMETERS / HOST_SUM
    beside = gradients / bytes_per_second + host + 2 * BUCKETS * latency
    # The backward pass is two thirds of the computation. It hides all buckets but the last one, if it is long enough.
    visible = awaited + max(beside - 2 / 3 * compute, beside / BUCKETS)
    return compute + loss, awaited + beside, visible


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views-per-second", type=float, default=3400, help="of one device; an estimate, not measured")
    parser.add_argument("--gigabits", type=float, default=200, help="per second, of the network of a rank")
    parser.add_argument("--batch", type=int, default=4096, help="images of all ranks")
    options = parser.parse_args()
    alone, _, _ = seconds(1, options.batch, options)
    print("| ranks | received per step, MiB | compute, ms | exchange, ms | not hidden, ms | efficiency, % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for ranks in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]:
        compute, exchange, visible = seconds(ranks, options.batch, options)
        efficiency = alone / (ranks * (compute + visible))
        mebibytes = sum(received(ranks, options.batch)) / 2**20
        print(f"| {ranks} | {mebibytes:.0f} | {1e3 * compute:.1f} | {1e3 * exchange:.1f} | {1e3 * visible:.1f} | {100 * efficiency:.0f} |")


if __name__ == "__main__":
    main()
