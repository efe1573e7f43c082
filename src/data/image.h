/* One image: file -> RGB bytes -> the network's floats. Every function is safe to call from several threads at once, each
 * with its own objects. */
#ifndef THAW_DATA_IMAGE_H
#define THAW_DATA_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "thaw/data.h"

/* Limits of an image, checked before memory is asked for. TensorFlow's: less than 2^29 bytes of RGB, the sides of JPEG. */
#define THAW_IMAGE_SIDE 65500
#define THAW_IMAGE_PIXELS (((INT64_C(1) << 29) - 1) / 3)
#define THAW_IMAGE_FILE_BYTES ((size_t)256 << 20)

/* A decoded image whose memory is used again for the next one. */
typedef struct thaw_pixels {
    uint8_t *data; /* (H,W,3), RGB */
    size_t capacity;
    int64_t height, width;
    /* Both above 0: JPEG may be decoded smaller, at the least M/8 of its size, M = 1..8, that has so many rows and columns. */
    int64_t least_height, least_width;
} thaw_pixels;

/* Checks the limits. Errors: THAW_DATA (a side is 0 or beyond them); `name` for the message. */
thaw_status thaw_pixels_check(int64_t height, int64_t width, const char *name);
/* Room for an image of this size. Errors: as above, THAW_RESOURCE. */
thaw_status thaw_pixels_reserve(thaw_pixels *pixels, int64_t height, int64_t width, const char *name);
void thaw_pixels_free(thaw_pixels *pixels);

/* A file, or its bytes, to pixels, by content. `content` (may be NULL) receives the hash of the file's bytes, if it can be
 * read. Errors: THAW_NO_INPUT, THAW_DATA, THAW_RESOURCE, all with `name`. */
thaw_status thaw_pixels_load(thaw_pixels *pixels, const char *name, uint64_t *content);
thaw_status thaw_pixels_decode(thaw_pixels *pixels, const uint8_t *bytes, size_t size, const char *name);
/* The same for one format. */
thaw_status thaw_jpeg_decode(thaw_pixels *pixels, const uint8_t *bytes, size_t size, const char *name);
thaw_status thaw_png_decode(thaw_pixels *pixels, const uint8_t *bytes, size_t size, const char *name);
thaw_status thaw_bmp_decode(thaw_pixels *pixels, const uint8_t *bytes, size_t size, const char *name);

/* Where an output row or column lies between two of the input. */
typedef struct thaw_tap {
    int64_t lower, upper;
    float lerp; /* weight of `upper` */
} thaw_tap;

/* out (height,width,3): bilinear, half-pixel centres, no antialias, not rounded: tf.image.resize bit for bit. Equal sizes
 * are copied. taps: room for height + width. */
void thaw_resize(float *out, int64_t height, int64_t width, const thaw_pixels *pixels, thaw_tap *taps);
/* x (H,W,C) mirrored left to right, in place. */
void thaw_flip(float *x, int64_t height, int64_t width, int64_t channels);
/* x (n,C) in place, with the operations of Keras' preprocess_input in its order, in float32. C is 3 for caffe and torch. */
void thaw_preprocess_apply(float *x, int64_t n, int64_t channels, thaw_preprocess preprocess);

#endif
