#!/usr/bin/python3
"""What the reference's AV-MNIST search costs when it is run as its authors run it: an extrapolation from some hundred batches.

    reference_protocol.py DATASET [--threads 1,2] [--batches 30] [--rounds 3] [--backbone-gradients]

DATASET is a folder as docs/avmnist.md describes. Written from a description of the protocol, not from the authors' code: every
candidate runs both LeNet backbones (3 channels, training mode: batch statistics) on the pictures and spectrograms of every batch and
trains a fusion network of width 16 on their taps: Adam, weight decay 1e-4, cosine rate per batch, dropout 0.5, batch 32, 3 epochs, dev
after each. The default search trains 195 candidates: 30 of one step, 15 of two, 15 of three, 135 of four. Their steps are timed, each
length by itself, and summed up.

In the reference's favour: no gradients flow to the frozen backbones (they do in the authors' code; --backbone-gradients has them), no
loader processes, no copies to a device, backbones are made once and not read from a file for every candidate. Weights are random, which
costs the same as trained ones.

Prints one JSON object. `search_cpu_s` is CPU time; `search_wall_s` means something on an idle machine only.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time

POOLS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
DEV_ROWS, EPOCHS = 5000, 3
TRAININGS = {1: 30, 2: 15, 3: 15, 4: 135}  # candidates by steps
ARCHITECTURES = {1: [[3, 2, 0]], 2: [[1, 1, 1], [2, 0, 0]], 3: [[1, 1, 1], [0, 2, 0], [3, 2, 1]],
                 4: [[2, 2, 0], [3, 1, 1], [0, 2, 0], [4, 2, 0]]}


def clocks():
    return time.process_time(), time.perf_counter()


def measure(arguments):
    import torch
    from reference_model import BATCH, TRAIN_ROWS, Training, first_rows

    torch.set_num_threads(arguments.own_threads)
    torch.manual_seed(1)
    data = first_rows(arguments.dataset, 64 * BATCH)
    trainings = {steps: Training(architecture, arguments.backbone_gradients) for steps, architecture in ARCHITECTURES.items()}
    for training in trainings.values():
        training.train(data, 5)
        training.evaluate(data, 5)
    batch_s = {steps: {"train": [0.0, 0.0], "dev": [0.0, 0.0]} for steps in trainings}
    for _ in range(arguments.rounds):  # the lengths take turns
        for steps, training in trainings.items():
            for part, work in (("train", training.train), ("dev", training.evaluate)):
                before = clocks()
                work(data, arguments.batches)
                for i, after in enumerate(clocks()):
                    batch_s[steps][part][i] += (after - before[i]) / (arguments.rounds * arguments.batches)
    train_batches, dev_batches = math.ceil(TRAIN_ROWS / BATCH), math.ceil(DEV_ROWS / BATCH)

    def search_s(clock):
        return sum(count * EPOCHS * (train_batches * batch_s[steps]["train"][clock] + dev_batches * batch_s[steps]["dev"][clock])
                   for steps, count in TRAININGS.items())

    print(json.dumps({
        "threads": arguments.own_threads, "torch": torch.__version__, "extrapolated": True,
        "backbone_gradients": arguments.backbone_gradients,
        "batches_timed": 2 * arguments.rounds * arguments.batches * len(trainings),
        "train_batch_cpu_ms": {steps: round(1e3 * of["train"][0], 3) for steps, of in batch_s.items()},
        "dev_batch_cpu_ms": {steps: round(1e3 * of["dev"][0], 3) for steps, of in batch_s.items()},
        "search_cpu_s": round(search_s(0), 1), "search_wall_s": round(search_s(1), 1)}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, each measured by itself [1,2]")
    parser.add_argument("--batches", type=int, default=30, help="per length, part and round [30]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone-gradients", action="store_true")
    parser.add_argument("--own-threads", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.own_threads:
        measure(arguments)
        return
    # Libraries read their numbers of threads when they are loaded: one child for each.
    runs = []
    for threads in arguments.threads.split(","):
        environment = dict(os.environ, **{name: threads for name in POOLS})
        child = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--own-threads", threads], env=environment,
                               stdout=subprocess.PIPE, text=True, check=False)
        if child.returncode != 0:
            sys.exit("reference_protocol.py: the measurement with %s threads failed" % threads)
        runs.append(json.loads(child.stdout))
    print(json.dumps({
        "protocol": "the reference's AV-MNIST search: 195 trainings x 3 epochs x 55,000 rows, batch 32, backbones in every batch",
        "extrapolated": "from %d timed batches a run; nothing was trained to its end" % runs[0]["batches_timed"],
        "runs": runs}))


if __name__ == "__main__":
    main()
