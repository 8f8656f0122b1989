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
TRAIN_ROWS, DEV_ROWS, BATCH, EPOCHS, WIDTH = 55000, 5000, 32, 3, 16
TRAININGS = {1: 30, 2: 15, 3: 15, 4: 135}  # candidates by steps
ARCHITECTURES = {1: [[3, 2, 0]], 2: [[1, 1, 1], [2, 0, 0]], 3: [[1, 1, 1], [0, 2, 0], [3, 2, 1]],
                 4: [[2, 2, 0], [3, 1, 1], [0, 2, 0], [4, 2, 0]]}


def measure(arguments):
    import numpy
    import torch
    import torch.nn.functional as F

    class Backbone(torch.nn.Module):
        def __init__(self, blocks, channels, first_tap_after_pool):
            super().__init__()
            sizes = [1] + [channels * 2**i for i in range(blocks)]
            self.first_tap_after_pool = first_tap_after_pool
            self.convolutions = torch.nn.ModuleList(
                torch.nn.Conv2d(sizes[i], sizes[i + 1], 5 if i == 0 else 3, padding=2 if i == 0 else 1, bias=False) for i in range(blocks))
            self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(size) for size in sizes[1:])
            self.classifier = torch.nn.Linear(sizes[-1], 10)

        def forward(self, x):
            taps = []
            for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms)):
                r = F.relu(norm(convolution(x)))
                x = F.max_pool2d(r, 2)
                taps.append((x if i == 0 and self.first_tap_after_pool else r).mean((2, 3)))
            return self.classifier(taps[-1]), taps

    class Candidate(torch.nn.Module):
        def __init__(self, architecture):
            super().__init__()
            self.architecture = architecture
            self.audio, self.image = Backbone(5, 3, True), Backbone(3, 3, False)
            layers = [torch.nn.Linear(3 * 2**a + 3 * 2**b + (WIDTH if i else 0), WIDTH) for i, (a, b, _) in enumerate(architecture)]
            self.layers = torch.nn.ModuleList(layers)
            self.classifier = torch.nn.Linear(WIDTH, 10)

        def fusion_parameters(self):
            return list(self.layers.parameters()) + list(self.classifier.parameters())

        def forward(self, audio, image):
            _, audio_taps = self.audio(audio)
            _, image_taps = self.image(image)
            h = None
            for (a, b, activation), layer in zip(self.architecture, self.layers):
                parts = [audio_taps[a], image_taps[b]] + ([h] if h is not None else [])
                h = layer(torch.cat(parts, 1))
                h = F.dropout(torch.relu(h) if activation == 0 else torch.sigmoid(h), 0.5, self.training)
            return self.classifier(h)

    class Training:
        def __init__(self, architecture):
            self.network = Candidate(architecture)
            for backbone in (self.network.audio, self.network.image):
                backbone.requires_grad_(arguments.backbone_gradients)
            self.adam = torch.optim.Adam(self.network.fusion_parameters(), lr=1e-3, weight_decay=1e-4)
            self.counter = 0
            self.place = 0

        def batch(self, data):
            rows = slice(self.place, self.place + BATCH)
            self.place = (self.place + BATCH) % (len(data["labels"]) - BATCH)
            audio = torch.from_numpy(data["audio"][rows].astype(numpy.float32)).unsqueeze(1)  # [B, 1, 112, 112]
            image = torch.from_numpy(data["image"][rows].astype(numpy.float32)).reshape(-1, 1, 28, 28)
            return audio, (image - 0.1307) / 0.3081, torch.from_numpy(data["labels"][rows].astype(numpy.int64))

        def step(self, data):
            audio, image, labels = self.batch(data)
            self.adam.zero_grad()
            loss = F.cross_entropy(self.network(audio, image), labels)
            nb = TRAIN_ROWS / BATCH
            for group in self.adam.param_groups:
                group["lr"] = 1e-6 + (1e-3 - 1e-6) / 2 * (1 + math.cos(math.pi * self.counter / nb))
            self.counter += 1
            loss.backward()
            self.adam.step()
            return loss.item()

        def score(self, data):
            audio, image, labels = self.batch(data)
            with torch.no_grad():
                return (self.network(audio, image).argmax(1) == labels).sum().item()

        def train(self, data, batches):
            self.network.train()
            for _ in range(batches):
                self.step(data)

        def evaluate(self, data, batches):
            self.network.eval()
            for _ in range(batches):
                self.score(data)

    def clocks():
        return time.process_time(), time.perf_counter()

    def load(name):
        return numpy.load(os.path.join(arguments.dataset, name), mmap_mode="r")

    torch.set_num_threads(arguments.own_threads)
    torch.manual_seed(1)
    rows = 64 * BATCH  # kept in memory, so that no disk is measured
    data = {"audio": numpy.array(load("audio/train_data.npy")[:rows]), "image": numpy.array(load("image/train_data.npy")[:rows]),
            "labels": numpy.array(load("train_labels.npy")[:rows])}
    trainings = {steps: Training(architecture) for steps, architecture in ARCHITECTURES.items()}
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
