/* Image files to pixels: limits, choice of the decoder by content. */
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/memory.h"
#include "data/image.h"

thaw_status thaw_pixels_check(int64_t height, int64_t width, const char *name) {
    if (height < 1 || width < 1)
        return thaw_fail(THAW_DATA, "%s: an image of %lld x %lld pixels, the file is damaged; restore or remove it", name,
                         (long long)width, (long long)height);
    if (height > THAW_IMAGE_SIDE || width > THAW_IMAGE_SIDE || height > THAW_IMAGE_PIXELS / width)
        return thaw_fail(THAW_DATA, "%s: an image of %lld x %lld pixels, at most %d a side and %lld in all are accepted; scale "
                                    "it down", name, (long long)width, (long long)height, THAW_IMAGE_SIDE,
                         (long long)THAW_IMAGE_PIXELS);
    return THAW_OK;
}

thaw_status thaw_pixels_reserve(thaw_pixels *pixels, int64_t height, int64_t width, const char *name) {
    THAW_TRY(thaw_pixels_check(height, width, name));
    const size_t bytes = (size_t)(height * width) * 3;
    if (bytes > pixels->capacity) {
        thaw_free(pixels->data); /* not realloc: the old contents need no copy */
        pixels->capacity = 0;
        pixels->data = thaw_malloc(bytes);
        if (!pixels->data)
            return thaw_fail(THAW_RESOURCE, "%s: no memory for an image of %lld x %lld pixels", name, (long long)width,
                             (long long)height);
        pixels->capacity = bytes;
    }
    pixels->height = height;
    pixels->width = width;
    return THAW_OK;
}

void thaw_pixels_free(thaw_pixels *pixels) {
    thaw_free(pixels->data);
    *pixels = (thaw_pixels){0};
}

static bool starts(const uint8_t *bytes, size_t size, const char *magic, size_t length) {
    return size >= length && memcmp(bytes, magic, length) == 0;
}

thaw_status thaw_pixels_decode(thaw_pixels *pixels, const uint8_t *bytes, size_t size, const char *name) {
    if (size == 0)
        return thaw_fail(THAW_DATA, "%s is empty, expected an image; restore or remove it", name);
    if (starts(bytes, size, "\xff\xd8\xff", 3))
        return thaw_jpeg_decode(pixels, bytes, size, name);
    if (starts(bytes, size, "\x89PNG\r\n\x1a\n", 8))
        return thaw_png_decode(pixels, bytes, size, name);
    if (starts(bytes, size, "BM", 2))
        return thaw_bmp_decode(pixels, bytes, size, name);
    if (starts(bytes, size, "GIF8", 4))
        return thaw_fail(THAW_DATA, "%s is a GIF image, which is not supported; convert it to PNG", name);
    if (starts(bytes, size, "RIFF", 4) && size >= 12 && memcmp(bytes + 8, "WEBP", 4) == 0)
        return thaw_fail(THAW_DATA, "%s is a WebP image, which is not supported; convert it to PNG or JPEG", name);
    return thaw_fail(THAW_DATA, "%s is no JPEG, PNG or BMP image (its first bytes are of none); convert or remove it", name);
}

thaw_status thaw_pixels_load(thaw_pixels *pixels, const char *name, uint64_t *content) {
    void *bytes;
    size_t size;
    THAW_TRY(thaw_io_read(&bytes, &size, name, THAW_IMAGE_FILE_BYTES));
    if (content)
        *content = thaw_hash(bytes, size, 0);
    thaw_status status = thaw_pixels_decode(pixels, bytes, size, name);
    thaw_free(bytes);
    return status;
}

thaw_status thaw_image_decode(uint8_t **pixels, int64_t *height, int64_t *width, const char *path) {
    thaw_pixels image = {0};
    *pixels = NULL;
    thaw_status status = thaw_pixels_load(&image, path, NULL);
    if (status != THAW_OK) {
        thaw_pixels_free(&image);
        return status;
    }
    *pixels = image.data;
    *height = image.height;
    *width = image.width;
    return THAW_OK;
}
