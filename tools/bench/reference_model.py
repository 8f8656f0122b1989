"""The candidates of the reference's AV-MNIST search and their steps of training: what reference_protocol.py times, and describes.

Loads PyTorch: whoever wants another number of threads sets it in the environment before.
"""

import math
import os

import numpy
import torch
import torch.nn.functional as F

TRAIN_ROWS, BATCH, WIDTH = 55000, 32, 16


def first_rows(dataset, rows):
    """In memory, so that no disk is measured."""
    def load(name):
        return numpy.array(numpy.load(os.path.join(dataset, name), mmap_mode="r")[:rows])

    return {"audio": load("audio/train_data.npy"), "image": load("image/train_data.npy"), "labels": load("train_labels.npy")}


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
    def __init__(self, architecture, backbone_gradients):
        self.network = Candidate(architecture)
        for backbone in (self.network.audio, self.network.image):
            backbone.requires_grad_(backbone_gradients)
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
