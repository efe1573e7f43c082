#!/usr/bin/env python3
"""Writes fixtures/orders.txt: random graphs with shared layers and nested models, and the order that Keras gives their layers.

  make_orders.py [TRIED [SEED [FILE]]]

Kept are graphs that tell: whose order is not the order by depth of the flat graph, with or without the rule that a layer
is as deep as its deepest call.

Per graph: `graph`, then `node LAYER INPUT...` for each call in order of making (nested models flattened, layers named by
path, calls counted from 0, which is the input), `output NODE`, `order LAYER...`. Made with Keras 3.15.1.
"""
import os
import random
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras  # noqa: E402

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
WIDTH = 2


class Part:
    """A model under construction: Keras tensors beside a list of calls (layer or nested Part, input positions)."""

    def __init__(self, rng, depth, name, n_calls):
        self.name, self.calls = name, []
        tensors = [keras.Input((WIDTH,), name="in")]
        layers = []  # single-input layers and nested models: can be called again
        for i in range(n_calls):
            recent = max(0, len(tensors) - 5)
            if rng.random() < 0.35 and len(tensors) > 1:
                inputs = [rng.randrange(recent, len(tensors)) for _ in range(rng.randint(2, 3))]
                layer = keras.layers.Add(name=f"add{i}")
                tensors.append(layer([tensors[k] for k in inputs]))
                self.calls.append((layer.name, inputs))
                continue
            if layers and rng.random() < 0.2:
                layer, what = rng.choice(layers)
            elif depth > 0 and rng.random() < 0.25:
                what = Part(rng, depth - 1, f"m{i}", rng.randint(2, 6))
                layer = what.model
                layers.append((layer, what))
            else:
                layer = keras.layers.Dense(WIDTH, name=f"dense{i}")
                what = layer.name
                layers.append((layer, what))
            inputs = [rng.randrange(recent, len(tensors))]
            tensors.append(layer(tensors[inputs[0]]))
            self.calls.append((what, inputs))
        self.model = keras.Model(tensors[0], tensors[-1], name=name)

    def flatten(self, prefix, first, nodes):
        """Appends this part's calls to nodes; `first`: node of its input. Returns the node of its output."""
        place = [first]
        for what, inputs in self.calls:
            inputs = [place[k] for k in inputs]
            if isinstance(what, Part):
                place.append(what.flatten(f"{prefix}{what.name}/", inputs[0], nodes))
            else:
                nodes.append((prefix + what, inputs))
                place.append(len(nodes))  # node 0 is the input
        return place[-1]


def order(model, prefix, top):
    names = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            names += order(layer, f"{prefix}{layer.name}/", False)
        elif top or not isinstance(layer, keras.layers.InputLayer):
            names.append(prefix + layer.name)
    return names


def flat_order(nodes, output, shared):
    """Order by depth of the flat graph; `shared`: calls of a layer share its depth."""
    index, post, seen = {}, [], set()

    def visit(node):
        if node in seen:
            return
        seen.add(node)
        name, inputs = ("in", []) if node == 0 else nodes[node - 1]
        index.setdefault(name, len(index))
        for k in inputs:
            visit(k)
        post.append((node, name, inputs))

    visit(output)
    depth, layers = {}, {}
    for node, name, inputs in reversed(post):
        depth[node] = max(depth.get(node, 0), layers.get(name, 0) if shared else 0)
        layers[name] = max(layers.get(name, 0), depth[node])
        for k in inputs:
            depth[k] = max(depth.get(k, 0), depth[node] + 1)
    return sorted(index, key=lambda name: (-layers[name], index[name]))


def main():
    graphs = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    lines = []
    for g in range(graphs):
        rng = random.Random(seed * 100003 + g)
        part = Part(rng, g % 3, "top", rng.randint(6, 16))
        nodes = []
        output = part.flatten("", 0, nodes)
        names = order(part.model, "", True)
        if names == flat_order(nodes, output, True) == flat_order(nodes, output, False):
            continue
        lines.append("graph")
        lines += [f"node {name} {' '.join(map(str, inputs))}" for name, inputs in nodes]
        lines.append(f"output {output}")
        lines.append(f"order {' '.join(names)}")
    with open(sys.argv[3] if len(sys.argv) > 3 else os.path.join(FOLDER, "orders.txt"), "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
