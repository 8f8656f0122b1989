"""Writes a small network as a TorchScript backbone that runs stage by stage, as head mmtm needs it (docs/retraining.md).

    python3 staged_backbone.py OUT.pt [CHANNELS_IN] [CLASSES]
"""
import sys
from typing import Dict, List

import torch
from torch import nn


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Staged(nn.Module):
    def __init__(self, inputs: int, classes: int):
        super().__init__()
        self.first = block(inputs, 4)
        self.second = block(4, 8)
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(8, classes)

    @torch.jit.export
    def stages(self) -> List[str]:
        return ["early", "late"]

    @torch.jit.export
    def stage(self, i: int, x: torch.Tensor) -> torch.Tensor:
        if i == 0:
            return self.first(x)
        return self.second(self.pool(x))

    @torch.jit.export
    def classify(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(x.mean([2, 3]))

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        early = self.stage(0, x)
        late = self.stage(1, early)
        return {"early": early, "late": late, "logits": self.classify(late)}


if __name__ == "__main__":
    torch.manual_seed(0)
    inputs = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    classes = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    torch.jit.script(Staged(inputs, classes)).save(sys.argv[1])
