"""Rebuilds a retrained model from model.safetensors and architecture.json, in plain PyTorch and without Fusiond.

    model = load_retrained("model.safetensors", "architecture.json")
    scores = model({"audio": audio, "image": image})      # [B, classes], of rows as the networks see them: (x - mean) / std

Backbones of kind "lenet" are rebuilt from the file; a TorchScript backbone is a program, so name its file, whose weights are then replaced
by the retrained ones: load_retrained(..., backbones={"audio": "mine.pt"}). Evaluation mode: no dropout, running statistics. Heads linear,
mmtm, mean, concatenation and bert. Tensors keep their names, with "__" in place of dots, so model.parameters() can be trained further.
"""

import json
import math
import struct

import torch
import torch.nn.functional as F

TYPES = {"F32": torch.float32, "F64": torch.float64, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64}
ACTIVATIONS = [torch.relu, torch.sigmoid, lambda z: F.leaky_relu(z, 0.01), lambda z: z]  # by their number in a triplet


def read_safetensors(path):
    """Eight bytes of header length, a JSON header, then the numbers."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    length = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length].decode()).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = torch.frombuffer(data[begin:end], dtype=TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


class LeNet:
    """One of ours: stage i is a block, its tap is the mean of its map."""

    def __init__(self, model, prefix, arch):
        self.model, self.prefix, self.arch = model, prefix, arch
        self.stages = arch["blocks"]

    def w(self, name):
        return self.model.w(self.prefix + name)

    def stage(self, i, x):
        if i > 0:
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, self.w(f"conv{i + 1}.weight"), padding=2 if i == 0 else 1)
        bn = f"bn{i + 1}."
        mean, var = self.w(bn + "running_mean"), self.w(bn + "running_var")
        return torch.relu(F.batch_norm(x, mean, var, self.w(bn + "weight"), self.w(bn + "bias"), False, 0.1, 1e-5))

    def tap(self, i, x):
        return F.max_pool2d(x, 2) if i == 0 and self.arch["first_tap_after_pool"] else x

    def classify(self, x):
        return F.linear(pool(self.tap(self.stages - 1, x)), self.w("classifier.weight"), self.w("classifier.bias"))

    def forward(self, x):
        maps = []
        for i in range(self.stages):
            x = self.stage(i, x)
            maps.append(self.tap(i, x))
        return maps, self.classify(x)


class Script:
    """A TorchScript network of yours; taps as its forward returns them (docs/data.md)."""

    def __init__(self, module, taps):
        self.module, self.taps, self.stages = module.eval(), taps, len(taps)

    def stage(self, i, x):
        return self.module.stage(i, x).float()

    def tap(self, i, x):
        return x

    def classify(self, x):
        return self.module.classify(x).float() if hasattr(self.module, "classify") else None

    def forward(self, x):
        out = self.module(x)
        if isinstance(out, dict):
            logits = out.get("logits")
            return [out[name].float() for name in self.taps], None if logits is None else pool(logits.float())
        return [tap.float() for tap in (out if isinstance(out, (tuple, list)) else [out])], None


def pool(x):
    """[B, C, ...] to [B, C]."""
    return x.unsqueeze(1) if x.dim() == 1 else x if x.dim() == 2 else x.flatten(2).mean(2)


def tokens_of(x, time_axis):
    """[B, C, ...] to [B, T, C]; T = 1 without an axis of time."""
    if time_axis is None:
        axis = 2 if x.dim() in (3, 5) else None
    else:
        axis = None if time_axis == 0 or x.dim() < 3 else time_axis % x.dim()
    if axis is None:
        return pool(x).unsqueeze(1)
    x = x.movedim(axis, 1)
    return x.flatten(3).mean(3) if x.dim() > 3 else x


def with_length(x, length):
    if x.size(1) == length:
        return x
    return x.expand(-1, length, -1) if x.size(1) == 1 else F.adaptive_avg_pool1d(x.transpose(1, 2), length).transpose(1, 2)


def mmtm_places(steps):
    """Which maps each step's module scales: steps in the order of their taps; a map that was passed already is only read."""
    reached, places = [0] * len(steps[0]["taps"]), []
    for index, step in sorted(enumerate(steps), key=lambda pair: pair[1]["taps"]):
        places.append((index, step["taps"], [tap >= far for tap, far in zip(step["taps"], reached)]))
        reached = [max(tap, far) for tap, far in zip(step["taps"], reached)]
    return places


class RetrainedModel(torch.nn.Module):
    def __init__(self, tensors, document, backbones):
        super().__init__()
        self.document, self.options = document, document["options"]
        for name, tensor in tensors.items():
            if "running_" in name or name.endswith("position.pe") or not tensor.is_floating_point():
                self.register_buffer(name.replace(".", "__"), tensor)
            else:
                self.register_parameter(name.replace(".", "__"), torch.nn.Parameter(tensor))
        self.steps = []
        for triplet in map(list, document["architecture"]["triplets"]):
            op = triplet.pop() if isinstance(triplet[-1], str) else "concat_fc"
            self.steps.append({"taps": triplet[:-1], "activation": ACTIVATIONS[triplet[-1]], "glu": op == "glu"})
        self.backbones = []
        for modality in document["modalities"]:
            prefix = "backbone." + modality["name"] + "."
            if modality["backbone"]["kind"] == "lenet":
                self.backbones.append(LeNet(self, prefix, modality["backbone"]["arch"]))
                continue
            module = torch.jit.load(backbones[modality["name"]])
            own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            module.load_state_dict(own)
            self.backbones.append(Script(module, modality["backbone"]["arch"]["taps"]))

    def w(self, name):
        return getattr(self, name.replace(".", "__"))

    def has(self, name):
        return hasattr(self, name.replace(".", "__"))

    def linear(self, name, x):
        return F.linear(x, self.w(name + ".weight"), self.w(name + ".bias"))

    def gated(self, inputs):
        """Backbones run stage by stage; a module at every step scales maps on their way."""
        flow = [[] for _ in inputs]

        def advance(m, stage):
            while len(flow[m]) <= stage:
                flow[m].append(self.backbones[m].stage(len(flow[m]), flow[m][-1] if flow[m] else inputs[m]))

        for step, taps, scaled in mmtm_places(self.steps):
            for m, tap in enumerate(taps):
                advance(m, tap)
            maps = [flow[m][tap] for m, tap in enumerate(taps)]
            z = torch.relu(self.linear(f"mmtm{step}.fc_squeeze", torch.cat([pool(x) for x in maps], 1)))
            for m, tap in enumerate(taps):
                name = f"mmtm{step}.fc_gate{m}" if len(taps) > 2 else f"mmtm{step}." + ("fc_visual", "fc_skeleton")[m]
                gate = torch.sigmoid(self.linear(name, z)) * (2 if self.options["mmtm_gate"] == "paper" else 1)
                if scaled[m]:
                    flow[m][tap] = maps[m] * gate.reshape(list(gate.shape) + [1] * (maps[m].dim() - 2))
        results = []
        for m, backbone in enumerate(self.backbones):
            advance(m, backbone.stages - 1)
            results.append(([backbone.tap(i, x) for i, x in enumerate(flow[m])], backbone.classify(flow[m][-1])))
        return results

    def fuse(self, taps):
        h = None
        for i, step in enumerate(self.steps):
            layer = f"fusion.layer{i}"
            parts = [taps[m][tap] for m, tap in enumerate(step["taps"])]
            if self.options["alphas"]:
                s = torch.sigmoid(self.w(layer + ".alpha"))
                parts = [part * (s if m == 0 else 1 - s) for m, part in enumerate(parts)]
            x = torch.cat(parts + ([] if h is None else [h]), 1)
            h = step["activation"](self.linear(layer + ".linear", x))
            if step["glu"]:
                h = h * torch.sigmoid(self.linear(layer + ".gate", x))
            if self.options["batchnorm"]:
                bn = layer + ".bn."
                mean, var = self.w(bn + "running_mean"), self.w(bn + "running_var")
                h = F.batch_norm(h, mean, var, self.w(bn + "weight"), self.w(bn + "bias"), False, 0.1, 1e-5)
        return h

    def norm(self, name, x):
        """Not torch's layer normalisation: the unbiased deviation, and the epsilon outside of the root."""
        return (x - x.mean(-1, True)) / (x.std(-1, True, True) + 1e-6) * self.w(name + ".a_2") + self.w(name + ".b_2")

    def bert(self, x):
        cls = self.w("head.bert.clsToken")
        if self.has("head.bert.a_2"):
            cls = cls * self.w("head.bert.a_2") + self.w("head.bert.b_2")
        x = torch.cat([cls.expand(x.size(0), 1, -1), x], 1)
        learned = "head.bert.embedding.learnedPosition."
        if self.has(learned + "pe"):
            positions = self.w(learned + "pe")
            if self.has(learned + "a_2"):
                positions = self.w(learned + "a_2") * positions + self.w(learned + "b_2")
        else:
            positions = self.w("head.bert.embedding.position.pe")
        x = x + positions
        heads = self.options["bert_heads"]
        for i in range(self.options["bert_layers"]):
            block = f"head.bert.transformer_blocks.{i}."
            n = self.norm(block + "input_sublayer.norm", x)
            q, k, v = (self.linear(f"{block}attention.linear_layers.{j}", n).unflatten(2, (heads, -1)).transpose(1, 2) for j in range(3))
            attention = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.size(3)), -1)
            x = x + self.linear(block + "attention.output_linear", (attention @ v).transpose(1, 2).flatten(2))
            inner = F.gelu(self.linear(block + "feed_forward.w_1", self.norm(block + "output_sublayer.norm", x)), approximate="tanh")
            x = x + self.linear(block + "feed_forward.w_2", inner)
        return x[:, 0]

    def summary(self, tokens):
        head = self.options["head"]
        if self.options["l2_normalise"]:
            tokens = tokens / tokens.norm(dim=-1, keepdim=True)
        if head == "mean":
            return tokens.mean(1)
        if head == "concatenation":
            return self.linear("head.linear", tokens.transpose(1, 2).flatten(1))
        return self.bert(tokens)

    def forward(self, inputs):
        head = self.options["head"]
        if head not in ("linear", "mmtm", "mean", "concatenation", "bert") or self.options["reduction"] != "none":
            raise NotImplementedError(f"this example does not rebuild the head {head}; load model.pt with torch.jit.load")
        rows = [inputs[modality["name"]] for modality in self.document["modalities"]]
        results = self.gated(rows) if head == "mmtm" else [b.forward(x) for b, x in zip(self.backbones, rows)]
        if head in ("linear", "mmtm"):
            taps = [[pool(x) for x in maps] for maps, _ in results]
            scores = self.linear("fusion.classifier", self.fuse(taps))
        else:
            axes = [modality.get("time_axis") for modality in self.document["modalities"]]
            tokens = [[tokens_of(x, axis) for x in maps] for (maps, _), axis in zip(results, axes)]
            read = [tokens[m][tap] for step in self.steps for m, tap in enumerate(step["taps"])]
            length = min((x.size(1) for x in read if x.size(1) > 1), default=1)
            taps = [[with_length(x, length).flatten(0, 1) for x in of_modality] for of_modality in tokens]
            scores = self.linear("head.fc_action", self.summary(self.fuse(taps).unflatten(0, (-1, length))))
        if self.options["multitask"]:
            scores = scores + sum(logits for _, logits in results if logits is not None)
        return scores


def load_retrained(weights, architecture, backbones=None):
    with open(architecture) as file:
        document = json.load(file)
    return RetrainedModel(read_safetensors(weights), document, backbones or {}).eval()
