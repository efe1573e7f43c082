/* Pixels to the network's input: bilinear resizing, mirroring, preprocessing, in TensorFlow's and Keras' order of float32
 * operations, so that results have the same bits. */
#include <math.h>
#include <string.h>

#include "data/image.h"

/* TensorFlow, core/kernels/image/resize_bilinear_op.cc with half_pixel_centers. `step`: values of one input position. */
static void find_taps(thaw_tap *taps, int64_t out, int64_t in, int64_t step) {
    const float scale = (float)in / (float)out;
    for (int64_t i = 0; i < out; i++) {
        const float at = ((float)i + 0.5f) * scale - 0.5f, lower = floorf(at);
        int64_t lo = (int64_t)lower, hi = (int64_t)ceilf(at);
        lo = lo < 0 ? 0 : lo > in - 1 ? in - 1 : lo;
        hi = hi > in - 1 ? in - 1 : hi;
        taps[i] = (thaw_tap){lo * step, hi * step, at - lower};
    }
}

void thaw_resize(float *out, int64_t height, int64_t width, const thaw_pixels *pixels, thaw_tap *taps) {
    if (height == pixels->height && width == pixels->width) {
        for (int64_t i = 0; i < height * width * 3; i++)
            out[i] = (float)pixels->data[i];
        return;
    }
    thaw_tap *ys = taps, *xs = taps + height;
    find_taps(ys, height, pixels->height, pixels->width * 3);
    find_taps(xs, width, pixels->width, 3);
    for (int64_t y = 0; y < height; y++) {
        const uint8_t *above = pixels->data + ys[y].lower, *below = pixels->data + ys[y].upper;
        for (int64_t x = 0; x < width; x++) {
            const int64_t left = xs[x].lower, right = xs[x].upper;
            for (int c = 0; c < 3; c++) {
                const float top_left = above[left + c], bottom_left = below[left + c];
                const float top = top_left + ((float)above[right + c] - top_left) * xs[x].lerp;
                const float bottom = bottom_left + ((float)below[right + c] - bottom_left) * xs[x].lerp;
                *out++ = top + (bottom - top) * ys[y].lerp;
            }
        }
    }
}

void thaw_flip(float *x, int64_t height, int64_t width, int64_t channels) {
    for (int64_t y = 0; y < height; y++) {
        float *left = x + y * width * channels, *right = left + (width - 1) * channels;
        for (; left < right; left += channels, right -= channels)
            for (int64_t c = 0; c < channels; c++) {
                const float swap = left[c];
                left[c] = right[c];
                right[c] = swap;
            }
    }
}

void thaw_preprocess_apply(float *x, int64_t n, int64_t channels, thaw_preprocess preprocess) {
    static const float caffe[3] = {103.939f, 116.779f, 123.68f}; /* of B, G, R */
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, deviation[3] = {0.229f, 0.224f, 0.225f};
    switch (preprocess) {
    case THAW_PREPROCESS_NONE:
        return;
    case THAW_PREPROCESS_CAFFE:
        for (int64_t i = 0; i < n; i++, x += 3) {
            const float red = x[0];
            x[0] = x[2] - caffe[0];
            x[1] = x[1] - caffe[1];
            x[2] = red - caffe[2];
        }
        return;
    case THAW_PREPROCESS_TF:
        for (int64_t i = 0; i < n * channels; i++)
            x[i] = x[i] / 127.5f - 1.0f;
        return;
    case THAW_PREPROCESS_TORCH:
        for (int64_t i = 0; i < n; i++, x += 3)
            for (int c = 0; c < 3; c++)
                x[c] = (x[c] / 255.0f - mean[c]) / deviation[c];
        return;
    case THAW_PREPROCESS_RESCALE:
        for (int64_t i = 0; i < n * channels; i++)
            x[i] = x[i] / 255.0f;
        return;
    }
}

static const char *const names[] = {"none", "caffe", "tf", "torch", "rescale"}; /* by thaw_preprocess */

bool thaw_preprocess_parse(thaw_preprocess *out, const char *name) {
    for (int i = 0; name && i < (int)(sizeof names / sizeof *names); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (thaw_preprocess)i;
            return true;
        }
    return false;
}

const char *thaw_preprocess_name(thaw_preprocess preprocess) {
    const unsigned at = (unsigned)preprocess;
    return at < sizeof names / sizeof *names ? names[at] : "none";
}
