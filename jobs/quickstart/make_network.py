#!/usr/bin/env python3
"""Writes the network of the quickstart with random weights: python3 make_network.py OUT.h5

Needs tf_keras (or Keras 2). A small network of VGG's form for the ten digits' little sister problem: five classes,
32x32x3 pixels, 72,000 parameters. Its file is the architecture that pretrain.yaml starts from; thaw draws its own first
weights there (`weights: none`), so only the structure and the initializers of this file matter.
"""
import sys

import tf_keras as keras

layers = keras.layers


def network():
    x = inputs = layers.Input((32, 32, 3), name="digits")
    for block, filters in enumerate((16, 32, 64), 1):
        for i in (1, 2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal",
                              name="block%d_conv%d" % (block, i))(x)
        x = layers.MaxPooling2D(2, name="block%d_pool" % block)(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(5, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, x, name="digits_vgg")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    keras.utils.set_random_seed(1)
    model = network()
    model.summary()
    model.save(sys.argv[1], include_optimizer=False)
