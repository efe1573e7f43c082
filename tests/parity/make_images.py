#!/usr/bin/env python3
"""Makes tests/unit/data/fixtures: python3 make_images.py      needs TensorFlow, Keras 3, Pillow and cjpeg.

For tests/unit/data, which compare thaw with TensorFlow bit for bit:

    NAME.jpg .png .bmp     small images of each kind that is supported
    NAME.rgb               tf.io.decode_image(channels=3, expand_animations=False): height*width*3 bytes
    NAME.f32               keras.utils.image_dataset_from_directory(image_size=(11, 9)): 11*9*3 floats
    images.txt             lines "FILE HEIGHT WIDTH"
    preprocess.f32         100 pixels 0..255, then the same after preprocess_input of modes caffe, tf, torch
    folders.txt            lines "LABEL PATH": Keras' order of a tree of empty files with awkward names
"""
import io
import os
import shutil
import struct
import subprocess
import tempfile
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "unit", "data", "fixtures")
SIZE = (11, 9)

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras.src.applications.imagenet_utils import preprocess_input  # noqa: E402
from PIL import Image  # noqa: E402

RNG = np.random.default_rng(5)


def picture(height, width, channels=3, top=255):
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / (2 + c) + y / (3 + c)) for c in range(channels)], -1)
    noisy = (0.5 + 0.4 * waves) * top + RNG.normal(0, top / 20, waves.shape)
    return noisy.clip(0, top).astype("u2" if top > 255 else "u1")


def pillow(image, kind, **options):
    f = io.BytesIO()
    image.save(f, kind, **options)
    return f.getvalue()


def cjpeg(pixels, *options):
    ppm = b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
    return subprocess.run(["cjpeg", *options], input=ppm, stdout=subprocess.PIPE, check=True).stdout


def png(samples, color, depth, interlaced=False, more=()):
    """A PNG of samples (H,W,C), each row with another filter type; `more`: chunks (name, bytes) before IDAT."""
    def rows(part):
        step = max(1, part.shape[2] * depth // 8)
        before, out = None, b""
        for y, row in enumerate(part):
            if depth == 16:
                line = row.astype(">u2").tobytes()
            elif depth == 8:
                line = row.astype("u1").tobytes()
            else:
                bits = "".join(format(int(v), "0%db" % depth) for v in row.ravel())
                bits += "0" * (-len(bits) % 8)
                line = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
            if before is None:
                before = bytes(len(line))
            kind, coded = y % 5, bytearray()
            for i, v in enumerate(line):
                a, b, c = (line[i - step] if i >= step else 0), before[i], (before[i - step] if i >= step else 0)
                p = a + b - c
                paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                coded.append((v - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
            out += bytes([kind]) + bytes(coded)
            before = line
        return out

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    if interlaced:
        passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        raw = b"".join(rows(samples[y::dy, x::dx]) for y, x, dy, dx in passes if samples[y::dy, x::dx].size)
    else:
        raw = rows(samples)
    data = zlib.compress(raw)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(n, d) for n, d in more) +
            chunk(b"IDAT", data[:7]) + chunk(b"IDAT", data[7:]) + chunk(b"tEXt", b"Comment\0x") + chunk(b"IEND", b""))


def images():
    a = picture(17, 23)
    rgb = Image.fromarray(a)
    yield "j444.jpg", pillow(rgb, "JPEG", quality=90, subsampling="4:4:4")
    yield "j422.jpg", pillow(rgb, "JPEG", quality=60, subsampling="4:2:2")
    yield "j420.jpg", pillow(rgb, "JPEG", quality=75, subsampling="4:2:0")
    yield "j440.jpg", cjpeg(a, "-sample", "1x2")
    yield "j411.jpg", cjpeg(a, "-sample", "4x1")
    yield "progressive.jpg", pillow(rgb, "JPEG", quality=80, progressive=True)
    yield "arithmetic.jpg", cjpeg(a, "-arithmetic")
    yield "restart.jpg", pillow(rgb, "JPEG", restart_marker_blocks=1)
    yield "gray.jpg", pillow(rgb.convert("L"), "JPEG")
    yield "cmyk.jpg", pillow(rgb.convert("CMYK"), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees", which is ignored
    yield "rotated.jpg", pillow(rgb, "JPEG", exif=exif)
    yield "one.jpg", pillow(rgb.crop((0, 0, 1, 1)), "JPEG")
    whole = pillow(rgb, "JPEG")
    yield "extra.jpg", whole[:-2] + bytes(9) + whole[-2:]
    yield "rgb8.png", png(a, 2, 8)
    yield "rgb16.png", png(picture(9, 8, 3, 65535), 2, 16)
    yield "rgba8.png", png(picture(9, 8, 4), 6, 8)
    yield "rgba16.png", png(picture(9, 8, 4, 65535), 6, 16, True)
    yield "gray16.png", png(picture(9, 8, 1, 65535), 0, 16)
    yield "gray_alpha8.png", png(picture(9, 8, 2), 4, 8)
    yield "gray_alpha16.png", png(picture(9, 8, 2, 65535), 4, 16, True)
    yield "interlaced.png", png(a, 2, 8, True)
    yield "rgb_key.png", png(a, 2, 8, more=[(b"tRNS", struct.pack(">HHH", *map(int, a[0, 0])))])
    palette = RNG.integers(0, 256, 256 * 3).astype("u1").tobytes()
    for depth in (1, 2, 4, 8):
        values = RNG.integers(0, 2 ** depth, (9, 13, 1))
        yield "gray%d.png" % depth, png(values, 0, depth, depth == 4)
        yield "palette%d.png" % depth, png(values, 3, depth, depth == 2, [(b"PLTE", palette[:3 * 2 ** depth])])
    values = RNG.integers(0, 256, (9, 13, 1))
    yield "palette_short.png", png(values, 3, 8, more=[(b"PLTE", palette[:300]), (b"tRNS", bytes(50))])
    yield "rgb24.bmp", pillow(rgb, "BMP")
    top_down = bytearray(pillow(rgb, "BMP"))
    top_down[22:26] = struct.pack("<i", -17)
    yield "top_down.bmp", bytes(top_down)
    yield "gray8.bmp", pillow(rgb.convert("L"), "BMP")


def write(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def make_images():
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name, data in images():
            write(name, data)
            pixels = tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
            write(name + ".rgb", pixels.tobytes())
            lines.append("%s %d %d\n" % (name, *pixels.shape[:2]))
            shutil.rmtree(folder)
            os.makedirs(os.path.join(folder, "a"))
            with open(os.path.join(folder, "a", name), "wb") as f:
                f.write(data)
            dataset = keras.utils.image_dataset_from_directory(folder, image_size=SIZE, batch_size=1, shuffle=False,
                                                               verbose=False)
            write(name + ".f32", next(iter(dataset))[0].numpy().astype("<f4").tobytes())
    write("images.txt", "".join(lines).encode())


def make_preprocess():
    x = np.concatenate([np.arange(0, 256, 5), RNG.uniform(0, 255, 248)]).astype("<f4").reshape(100, 3)
    out = [x] + [preprocess_input(x.copy(), mode=mode).astype("<f4") for mode in ("caffe", "tf", "torch")]
    write("preprocess.f32", b"".join(np.ascontiguousarray(o).tobytes() for o in out))


def make_folders():
    paths = ["Z/1.jpg", "a/2.JPG", "a/10.jpg", "a/b/1.png", "a/b-c/1.png", "a/b/c/d.Jpeg", "a-/x.bmp", "a-/X.bmp", "a.b/i.gif",
             "\u00e4/1.jpg", "\U0001f600/1.jpg", "\uffe5/1.jpg", "a/b.png/inside.jpg"]
    ignored = ["a/readme.txt", "top.jpg", ".hidden/1.jpg"]
    paths.remove("a/b.png/inside.jpg")  # thaw takes a name that ends in .png for an image
    with tempfile.TemporaryDirectory() as folder:
        for path in paths + ignored:
            os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
            open(os.path.join(folder, path), "w").close()
        dataset = keras.utils.image_dataset_from_directory(folder, shuffle=False, verbose=False)
        order = [os.path.relpath(p, folder) for p in dataset.file_paths]
        names = dataset.class_names
    assert sorted(order) == sorted(paths)
    write("folders.txt", "".join("%d %s\n" % (names.index(p.split("/")[0]), p) for p in order).encode())


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    make_images()
    make_preprocess()
    make_folders()
