#!/usr/bin/env python3
"""What data.scaled_decoding saves in time and changes in pixels: tests/bench/scaled_decoding.py [FILE.jpg ...]

    --sizes 150,224,299   --images N (8)

Runs build/tests/scaled_decoding (THAW_BUILD: another build folder) and prints its lines as a table. Without files it makes
pictures of 640x480 and 2048x1536 whose amplitudes fall with frequency as 1/f, which is what photographs have.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def picture(rng, height, width):
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf  # no mean
    shape = (3, height, width // 2 + 1)
    gray = rng.normal(size=shape[1:]) + 1j * rng.normal(size=shape[1:])
    color = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    x = np.fft.irfft2((gray + 0.3 * color) / frequency, s=(height, width))
    return (x / x.std() * 50 + 120).transpose(1, 2, 0).clip(0, 255).astype("u1")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--sizes", default="150,224,299")
    parser.add_argument("--images", type=int, default=8)
    options = parser.parse_args()
    program = os.path.join(os.environ.get("THAW_BUILD", os.path.join(ROOT, "build")), "tests", "scaled_decoding")
    print("| JPEG | network | ms an image, whole | scaled | times | mean difference (of 255) | largest |\n" + "|---" * 7 + "|")
    with tempfile.TemporaryDirectory(prefix="thaw-scaled-") as folder:
        groups = [options.files] if options.files else []
        for height, width in () if options.files else ((480, 640), (1536, 2048)):
            rng = np.random.default_rng(height)
            groups.append([os.path.join(folder, "%d-%d.jpg" % (height, i)) for i in range(options.images)])
            for file in groups[-1]:
                Image.fromarray(picture(rng, height, width)).save(file, quality=90)
        for files in groups:
            for size in options.sizes.split(","):
                subprocess.run([program, size] + files, check=True)


if __name__ == "__main__":
    sys.exit(main())
