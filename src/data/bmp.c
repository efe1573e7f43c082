/* BMP with 24 bits a pixel as TensorFlow reads it, and the other two uncompressed kinds that programs write: 32 bits (the
 * fourth byte is dropped) and 8 bits with a palette. Own code, since it is shorter than a check before somebody else's. */
#include "data/image.h"

static uint32_t u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static thaw_status damaged(const char *name, const char *what) {
    return thaw_fail(THAW_DATA, "%s is a damaged BMP image: %s; restore or remove it", name, what);
}

/* The masks of 32-bit pixels are the usual ones: blue, green, red, unused. */
static bool usual_masks(const uint8_t *header, uint32_t header_bytes, size_t size) {
    if (header_bytes < 52 && size < 14 + 40 + 12)
        return false;
    const uint8_t *masks = header + 40; /* behind a header of 40 bytes or inside a longer one: the same place */
    return u32(masks) == 0xff0000u && u32(masks + 4) == 0xff00u && u32(masks + 8) == 0xffu;
}

thaw_status thaw_bmp_decode(thaw_pixels *pixels, const uint8_t *bytes, size_t size, const char *name) {
    if (size < 14 + 40)
        return damaged(name, "the file ends inside its header");
    const uint8_t *header = bytes + 14;
    const uint32_t start = u32(bytes + 10), header_bytes = u32(header), compression = u32(header + 16);
    const int bits = header[14] | header[15] << 8;
    const int64_t width = (int32_t)u32(header + 4), signed_height = (int32_t)u32(header + 8);
    const int64_t height = signed_height < 0 ? -signed_height : signed_height; /* negative: the top row comes first */
    if (header_bytes < 40 || header_bytes > size - 14)
        return thaw_fail(THAW_DATA, "%s is a damaged BMP image or one of OS/2: its header has %u bytes, expected 40 or more; "
                                    "convert it to PNG", name, header_bytes);
    const bool masks = compression == 3 && bits == 32 && usual_masks(header, header_bytes, size);
    if ((bits != 8 && bits != 24 && bits != 32) || (compression != 0 && !masks))
        return thaw_fail(THAW_DATA, "%s is a BMP image of %d bits a pixel, compression %u; only uncompressed ones of 8, 24 and "
                                    "32 bits are supported: convert it to PNG", name, bits, compression);
    THAW_TRY(thaw_pixels_check(height, width, name));
    const size_t step = (size_t)bits / 8, row = ((size_t)width * step + 3) / 4 * 4;
    if (start < 14 + header_bytes || start > size || row * (size_t)height > size - start)
        return damaged(name, "the file ends before its pixels do");
    THAW_TRY(thaw_pixels_reserve(pixels, height, width, name));
    const uint8_t *palette = header + header_bytes; /* blue, green, red, unused */
    const uint32_t room = (start - 14 - header_bytes) / 4, used = u32(header + 32);
    const uint32_t colors = used && used < room ? used : room;
    for (int64_t y = 0; y < height; y++) {
        const uint8_t *from = bytes + start + row * (size_t)(signed_height < 0 ? y : height - 1 - y);
        uint8_t *to = pixels->data + y * width * 3;
        for (int64_t x = 0; x < width; x++, from += step, to += 3) {
            if (bits == 8 && *from >= colors)
                return damaged(name, "a pixel has a color that the palette has not");
            const uint8_t *color = bits == 8 ? palette + 4 * *from : from;
            to[0] = color[2];
            to[1] = color[1];
            to[2] = color[0];
        }
    }
    return THAW_OK;
}
