#!/usr/bin/env python3
"""Writes fixtures/*.txt: the `layers` lists of keras.applications, one line a layer: name class output-shape params.

Made with Keras 3.15.1 (any backend). The first line of a file is: model-name network top HxWxC pooling, then total and
trainable parameters.
"""
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras  # noqa: E402

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
NETWORKS = {
    "vgg16": keras.applications.VGG16,
    "vgg19": keras.applications.VGG19,
    "resnet50": keras.applications.ResNet50,
    "inceptionv3": keras.applications.InceptionV3,
}
CASES = [  # network, top, shape (None: the default), pooling; every network's smallest size is among them
    ("vgg16", True, None, None), ("vgg16", False, (32, 47, 3), None), ("vgg16", False, (150, 150, 3), "avg"),
    ("vgg16", True, (64, 95, 1), None),
    ("vgg19", True, None, None), ("vgg19", False, (150, 101, 3), "max"),
    ("resnet50", True, None, None), ("resnet50", False, (32, 33, 3), None), ("resnet50", False, (161, 150, 3), "avg"),
    ("resnet50", False, (97, 64, 3), "max"),
    ("inceptionv3", True, None, None), ("inceptionv3", False, (75, 76, 3), None),
    ("inceptionv3", False, (150, 151, 4), "avg"), ("inceptionv3", False, (128, 233, 3), "max"),
]


def main():
    for network, top, shape, pooling in CASES:
        keras.backend.clear_session()
        model = NETWORKS[network](weights=None, include_top=top, input_shape=shape, pooling=pooling)
        size = "x".join(str(d) for d in model.input_shape[1:])
        lines = [f"{model.name} {network} {int(top)} {size} {pooling or 'none'} {model.count_params()} "
                 f"{sum(w.numpy().size for w in model.trainable_weights)}"]
        for layer in model.layers:
            out = "x".join(str(d) for d in layer.output.shape[1:])
            lines.append(f"{layer.name} {type(layer).__name__} {out} {layer.count_params()}")
        name = f"{network}-{'top' if top else 'notop'}-{size}-{pooling or 'none'}.txt"
        with open(os.path.join(FOLDER, name), "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
