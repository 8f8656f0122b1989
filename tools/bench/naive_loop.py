"""The naive training loop in Python: the other half of bench_trainer's comparison (docs/benchmarks.md).

    naive_loop.py JOB

JOB is a JSON object that bench_trainer writes: sizes and architectures. Prints {"torch": version} when it has warmed up; then reads
numbers of steps, a line each, trains every architecture for as many batches and prints {"cpu_s_per_step": ...}. Thread counts are
pinned by the environment and below. Ends with its input.
"""

import json
import math
import sys
import time

try:
    import torch
except ImportError:
    sys.exit(3)
import torch.nn.functional as F

WARM_UP_STEPS = 10


class Network(torch.nn.Module):
    def __init__(self, architecture, widths, width, classes, dropout):
        super().__init__()
        self.architecture = architecture
        self.dropout = dropout
        layers = []
        for i, (a, b, _) in enumerate(architecture):
            layers.append(torch.nn.Linear(widths[0][a] + widths[1][b] + (width if i > 0 else 0), width))
        self.layers = torch.nn.ModuleList(layers)
        self.classifier = torch.nn.Linear(width, classes)

    def forward(self, taps):
        h = None
        for (a, b, activation), layer in zip(self.architecture, self.layers):
            parts = [taps[0, a], taps[1, b]] + ([h] if h is not None else [])
            h = layer(torch.cat(parts, 1))  # [B, R]
            h = torch.relu(h) if activation == 0 else torch.sigmoid(h)
            h = F.dropout(h, self.dropout, self.training)
        return self.classifier(h)  # [B, classes]


class Loop:
    """One candidate in training; goes through the epoch again and again."""

    def __init__(self, job, architecture, taps, labels):
        self.job = job
        self.taps = taps
        self.labels = labels
        self.used = {(m, step[m]) for step in architecture for m in (0, 1)}
        self.network = Network(architecture, job["widths"], job["width"], job["classes"], job["dropout"])
        self.adam = torch.optim.Adam(self.network.parameters(), lr=job["eta_max"], weight_decay=job["weight_decay"])
        self.order = torch.randperm(job["rows"])
        self.place = 0
        self.counter = 0
        self.period = math.ceil(job["rows"] / job["batch"])

    def rate(self):
        low, high = self.job["eta_min"], self.job["eta_max"]
        lr = low + (high - low) / 2 * (1 + math.cos(math.pi * self.counter / self.period))
        self.counter = (self.counter + 1) % self.period
        return lr

    def step(self):
        if self.place >= self.job["rows"]:
            self.place = 0
        rows = self.order[self.place:self.place + self.job["batch"]]
        self.place += self.job["batch"]
        taps = {tap: self.taps[tap].index_select(0, rows) for tap in self.used}
        labels = self.labels.index_select(0, rows)
        self.adam.zero_grad()
        loss = F.cross_entropy(self.network(taps), labels)
        lr = self.rate()
        for group in self.adam.param_groups:
            group["lr"] = lr
        loss.backward()
        self.adam.step()
        return loss.item()


def main():
    job = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    taps = {(m, i): torch.randn(job["rows"], width) for m in (0, 1) for i, width in enumerate(job["widths"][m])}
    labels = torch.randint(job["classes"], (job["rows"],))
    loops = [Loop(job, architecture, taps, labels) for architecture in job["architectures"]]
    for loop in loops:
        for _ in range(WARM_UP_STEPS):
            loop.step()
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        steps = int(line)
        begin = time.process_time()
        for loop in loops:
            for _ in range(steps):
                if not math.isfinite(loop.step()):
                    sys.exit("naive_loop.py: the loss is no finite number")
        seconds = time.process_time() - begin
        print(json.dumps({"cpu_s_per_step": seconds / (steps * len(loops))}), flush=True)


if __name__ == "__main__":
    main()
