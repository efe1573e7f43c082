"""PyTorch (oneDNN, channels_last) as a peer: torch_peer.py THREADS GRAPH_FOLDER. Networks come from keras_peer.py --graph, so
that layers, strides and padding are Keras'. Batch norm uses its moving statistics, as in thaw bench."""
import json
import math
import os
import sys

import torch
import torch.nn.functional as F
from torch import nn

from networks import CLASSES, NETWORKS, serve


class Same(nn.Module):
    """TensorFlow's padding: the smaller half before, the larger behind."""

    def __init__(self, kernel, stride, value):
        super().__init__()
        self.kernel, self.stride, self.value = kernel, stride, value

    def forward(self, x):
        pads = []
        for n, k, s in zip(reversed(x.shape[2:]), reversed(self.kernel), reversed(self.stride)):
            total = max(0, (math.ceil(n / s) - 1) * s + k - n)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads, value=self.value) if any(pads) else x


def convolution(c, cin):
    kernel, stride = tuple(c["kernel_size"]), tuple(c["strides"])
    odd = stride == (1, 1) and all(k % 2 for k in kernel)
    padding = tuple(k // 2 for k in kernel) if c["padding"] == "same" and odd else 0
    parts = [] if c["padding"] != "same" or odd else [Same(kernel, stride, 0.0)]
    parts.append(nn.Conv2d(cin, c["filters"], kernel, stride, padding, bias=c["use_bias"]))
    if c["activation"] == "relu":
        parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts), c["filters"]


def pooling(kind, c):
    kernel, stride = tuple(c["pool_size"]), tuple(c["strides"])
    if kind == "AveragePooling2D":
        assert c["padding"] == "valid" or (stride == (1, 1) and kernel == (3, 3))
        return nn.AvgPool2d(kernel, stride, 1 if c["padding"] == "same" else 0, count_include_pad=False)
    pool = nn.MaxPool2d(kernel, stride)
    return pool if c["padding"] == "valid" else nn.Sequential(Same(kernel, stride, -math.inf), pool)


class Network(nn.Module):
    def __init__(self, graph):
        super().__init__()
        self.steps, self.index, channels = [], {}, {}
        self.parts = nn.ModuleList()
        for layer in graph["layers"]:
            c, name, kind, inputs = layer["config"], layer["name"], layer["class"], layer["inputs"]
            cin = channels[inputs[0]] if inputs else 3
            part = None
            if kind == "Conv2D":
                part, cin = convolution(c, cin)
            elif kind == "BatchNormalization":
                part = nn.BatchNorm2d(cin, c["epsilon"], 1 - c["momentum"])
            elif kind in ("MaxPooling2D", "AveragePooling2D"):
                part = pooling(kind, c)
            elif kind == "ZeroPadding2D":
                (top, bottom), (left, right) = c["padding"]
                part = nn.ZeroPad2d((left, right, top, bottom))
            elif kind == "Activation":
                assert c["activation"] == "relu"
                part = nn.ReLU(inplace=False)
            elif kind == "Concatenate":
                cin = sum(channels[i] for i in inputs)
            else:
                assert kind in ("InputLayer", "Add"), kind
            channels[name] = cin
            self.index[name] = len(self.parts)
            self.parts.append(part if part is not None else nn.Identity())
            self.steps.append((name, kind, inputs))
        self.output, self.channels = graph["output"], channels[graph["output"]]

    def forward(self, x):
        values, left = {}, {}
        for _, _, inputs in self.steps:
            for i in inputs:
                left[i] = left.get(i, 0) + 1
        for name, kind, inputs in self.steps:
            have = [values[i] for i in inputs]
            if kind == "InputLayer":
                y = x
            elif kind == "Add":
                y = have[0] + have[1]
            elif kind == "Concatenate":
                y = torch.cat(have, 1)
            else:
                y = self.parts[self.index[name]](have[0])
            values[name] = y
            for i in inputs:
                left[i] -= 1
                if not left[i]:
                    del values[i]
        return values[self.output]


class Whole(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base, self.head = base, nn.Linear(base.channels, CLASSES)

    def forward(self, x):
        return self.head(self.base(x).mean((2, 3)))


def prepare(network, plan, batch):
    with open(os.path.join(sys.argv[2], network + ".json")) as f:
        graph = json.load(f)
    torch.manual_seed(1)
    base = Network(graph).to(memory_format=torch.channels_last).eval()
    x = torch.rand(batch, 3, graph["size"], graph["size"]).to(memory_format=torch.channels_last)
    if plan == "forward":
        def forward():
            with torch.inference_mode():
                base(x)
        return forward
    late = NETWORKS[network][3]
    names = [name for name, _, _ in base.steps]
    first = {"head": len(names), "late": names.index(late) if late else 0, "everything": 0}[plan]
    for name, i in base.index.items():
        for p in base.parts[i].parameters():
            p.requires_grad = names.index(name) >= first
    model = Whole(base).eval()  # moving statistics
    y = torch.randint(0, CLASSES, (batch,))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-6, momentum=0.9)

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return step


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    serve(prepare)
