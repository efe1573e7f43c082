#!/usr/bin/env python3
"""Writes the digit images of the quickstart: python3 make_digits.py [FOLDER]

Needs numpy, Pillow and scikit-learn, whose load_digits() holds the 1,797 test images of "Optical Recognition of
Handwritten Digits" (see LICENSE.md): 8x8 pixels, 0..16 dots of ink a pixel, real handwriting of 13 people.

    FOLDER/pretrain/{train,val}/{0..4}/NNNN.png     the digits that weights/digits-vgg.h5 was trained on
    FOLDER/finetune/{train,val}/{5..9}/NNNN.png     the digits that the quickstart learns

NNNN is the image's number in the set. Images of a class keep their order; the 5th, 10th, ... of each class are for
validation. Ink is written as round(255 * v / 16), one grey byte a pixel. The split is fixed: the same files every time.
"""
import os
import sys

from PIL import Image
from sklearn.datasets import load_digits


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "digits")
    digits = load_digits()
    seen = [0] * 10
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target)):
        digit = int(digit)
        seen[digit] += 1
        part = "val" if seen[digit] % 5 == 0 else "train"
        task = "pretrain" if digit < 5 else "finetune"
        folder = os.path.join(root, task, part, str(digit))
        os.makedirs(folder, exist_ok=True)
        grey = (pixels * 255.0 / 16.0).round().astype("uint8")
        Image.fromarray(grey, "L").save(os.path.join(folder, "%04d.png" % number), optimize=True)
    print("%d images: %s" % (sum(seen), " ".join("%d:%d" % (d, n) for d, n in enumerate(seen))))


if __name__ == "__main__":
    main()
