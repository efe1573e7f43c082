/* PNG by stb_image behind a check of our own. stb_image 2.27 checks no CRC, reads palette entries that the file does not
 * have, and writes unknown chunk names into a static buffer. So it only ever sees a file written anew here: the header, a
 * palette of 256 colors, one IDAT and the end, all verified. Ancillary chunks are dropped, tRNS with them: TensorFlow drops
 * alpha as well (core/lib/png/png_io.cc). */
#include <pthread.h>
#include <string.h>

#include "base/memory.h"
#include "data/image.h"

/* Memory of stb_image: counted like all other, and no block larger than the image's header explains, so that a few bytes
 * cannot inflate to gigabytes. */
enum { MOST_BLOCKS = 16 };
static _Thread_local struct stb_memory {
    size_t limit; /* of a block */
    bool over_limit, refused; /* refused: there was no memory for a block */
    void *blocks[MOST_BLOCKS]; /* in use; stb_image loses some when it fails */
} memory;

static void **place_of(void *pointer) {
    int i = 0;
    while (i < MOST_BLOCKS && memory.blocks[i] != pointer)
        i++;
    return i < MOST_BLOCKS ? &memory.blocks[i] : NULL;
}

static void *stb_realloc(void *pointer, size_t bytes) {
    void **place = place_of(pointer);
    memory.over_limit = memory.over_limit || bytes > memory.limit;
    void *block = memory.over_limit || !place ? NULL : thaw_realloc(pointer, bytes);
    memory.refused = memory.refused || (!block && place && !memory.over_limit);
    if (block)
        *place = block;
    return block;
}

static void stb_free(void *pointer) {
    void **place = pointer ? place_of(pointer) : NULL;
    if (place)
        *place = NULL;
    thaw_free(pointer);
}

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS THAW_IMAGE_SIDE
#define STBI_ASSERT(x) ((void)0)
#define STBI_MALLOC(size) stb_realloc(NULL, size)
#define STBI_REALLOC(pointer, size) stb_realloc(pointer, size)
#define STBI_FREE(pointer) stb_free(pointer)
#pragma GCC diagnostic ignored "-Wunused-function" /* to the end of the file, where gcc looks for what was not called */
#include <stb_image.h>

enum { SIGNATURE = 8, HEADER = 13, PALETTE = 256 * 3, CHUNK = 12 /* length, name, CRC */ };
enum { GRAY, RGB = 2, INDEXED, GRAY_ALPHA, RGB_ALPHA = 6 };

static uint32_t crc_table[256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void make_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        crc_table[i] = c;
    }
}

static uint32_t crc32_of(const uint8_t *bytes, size_t size) {
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < size; i++)
        c = crc_table[(c ^ bytes[i]) & 0xff] ^ c >> 8;
    return c ^ 0xffffffffu;
}

static uint32_t u32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

static void put_u32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static thaw_status damaged(const char *name, const char *what) {
    return thaw_fail(THAW_DATA, "%s is a damaged PNG image: %s; restore or remove it", name, what);
}

/* What the chunks say. Pointers into the file. */
typedef struct png_parts {
    const uint8_t *header;
    const uint8_t *palette;
    size_t palette_bytes;
    size_t first_data; /* offset of the first IDAT chunk; 0: none yet */
    size_t data_bytes; /* of all IDAT chunks together */
    size_t end;        /* offset behind the last IDAT chunk */
} png_parts;

/* The header's color type, depth and methods belong together (PNG specification, 11.2.2). */
static bool legal_header(const uint8_t *header) {
    const int depth = header[8], color = header[9];
    bool legal;
    switch (color) {
    case GRAY:
        legal = depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
        break;
    case INDEXED:
        legal = depth == 1 || depth == 2 || depth == 4 || depth == 8;
        break;
    case RGB:
    case GRAY_ALPHA:
    case RGB_ALPHA:
        legal = depth == 8 || depth == 16;
        break;
    default:
        legal = false;
    }
    return legal && header[10] == 0 && header[11] == 0 && header[12] <= 1;
}

/* Walks the chunks up to IEND. Names are compared as numbers: "IDAT" is 0x49444154. */
static thaw_status find_parts(png_parts *parts, const uint8_t *bytes, size_t size, const char *name) {
    *parts = (png_parts){0};
    for (size_t at = SIGNATURE;;) {
        if (size - at < CHUNK || u32(bytes + at) > size - at - CHUNK)
            return damaged(name, "the file ends early");
        const size_t length = u32(bytes + at);
        const uint8_t *chunk = bytes + at + 4, *content = chunk + 4;
        const bool critical = !(chunk[0] & 0x20);
        if (critical && crc32_of(chunk, length + 4) != u32(content + length))
            return damaged(name, "a checksum is wrong");
        const uint32_t type = u32(chunk);
        at += CHUNK + length;
        if (!parts->header && type != 0x49484452u)
            return damaged(name, "it does not begin with its header");
        switch (type) {
        case 0x49484452u: /* IHDR */
            if (parts->header || length != HEADER || !legal_header(content))
                return damaged(name, "its header is not valid");
            parts->header = content;
            break;
        case 0x504c5445u: /* PLTE */
            if (parts->palette || parts->first_data || length % 3 || length > PALETTE || length == 0)
                return damaged(name, "its palette is not valid");
            parts->palette = content;
            parts->palette_bytes = length;
            break;
        case 0x49444154u: /* IDAT */
            if (parts->first_data && parts->end != at - CHUNK - length)
                return damaged(name, "its pixels are torn apart by other chunks");
            if (!parts->first_data)
                parts->first_data = at - CHUNK - length;
            parts->data_bytes += length;
            parts->end = at;
            break;
        case 0x49454e44u: /* IEND */
            if (!parts->data_bytes)
                return damaged(name, "it has no pixels");
            if (parts->header[9] == INDEXED && !parts->palette)
                return damaged(name, "it has no palette");
            return THAW_OK;
        default:
            if (critical)
                return thaw_fail(THAW_DATA, "%s is a PNG image with a chunk that is not of the standard; convert or remove it",
                                 name);
        }
    }
}

static uint8_t *put_chunk(uint8_t *at, const char *type, const uint8_t *content, size_t length) {
    put_u32(at, (uint32_t)length);
    memcpy(at + 4, type, 4);
    if (length)
        memcpy(at + 8, content, length);
    return at + CHUNK + length; /* stb_image skips the CRC */
}

/* The file that stb_image sees. [out] clean: thaw_free. */
static thaw_status rewrite(uint8_t **clean, size_t *clean_bytes, const png_parts *parts, const uint8_t *bytes,
                           const char *name) {
    uint8_t palette[PALETTE] = {0}; /* colors that the file does not have are black, as libpng has them */
    *clean_bytes = SIGNATURE + CHUNK + HEADER + CHUNK + PALETTE + CHUNK + parts->data_bytes + CHUNK;
    uint8_t *at = *clean = thaw_malloc(*clean_bytes);
    if (!at)
        return thaw_fail(THAW_RESOURCE, "%s: no memory for a PNG image of %zu bytes", name, parts->data_bytes);
    memcpy(at, bytes, SIGNATURE);
    at = put_chunk(at + SIGNATURE, "IHDR", parts->header, HEADER);
    if (parts->header[9] == INDEXED) {
        memcpy(palette, parts->palette, parts->palette_bytes);
        at = put_chunk(at, "PLTE", palette, PALETTE);
    }
    put_u32(at, (uint32_t)parts->data_bytes);
    memcpy(at + 4, "IDAT", 4);
    at += 8;
    for (size_t from = parts->first_data; from < parts->end;) {
        const size_t length = u32(bytes + from);
        memcpy(at, bytes + from + 8, length);
        at += length;
        from += CHUNK + length;
    }
    at = put_chunk(at + 4, "IEND", NULL, 0);
    *clean_bytes = (size_t)(at - *clean);
    return THAW_OK;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

thaw_status thaw_png_decode(thaw_pixels *pixels, const uint8_t *bytes, size_t size, const char *name) {
    png_parts parts;
    pthread_once(&crc_once, make_crc_table);
    THAW_TRY(find_parts(&parts, bytes, size, name));
    const int64_t width = u32(parts.header), height = u32(parts.header + 4);
    THAW_TRY(thaw_pixels_check(height, width, name));

    const size_t samples = (size_t[]){1, 0, 3, 1, 2, 0, 4}[parts.header[9]], depth = parts.header[8];
    const size_t row = ((size_t)width * samples * depth + 7) / 8, raw = (row + 1) * (size_t)height;
    if (row * (size_t)height / 1032 > parts.data_bytes) /* deflate makes 1032 bytes of one at most */
        return damaged(name, "it has too few bytes for its size");
    uint8_t *clean;
    size_t clean_bytes;
    THAW_TRY(rewrite(&clean, &clean_bytes, &parts, bytes, name));
    /* Inflated bytes (guessed by samples of whole bytes, doubled at most once), pixels of 4 samples, compressed bytes. */
    const size_t guess = larger(raw, ((size_t)width * depth + 7) / 8 * (size_t)height * samples + (size_t)height);
    const size_t most = larger(2 * guess, (size_t)(width * height) * 4 * (depth == 16 ? 2 : 1));
    memory = (struct stb_memory){.limit = larger(most, 2 * parts.data_bytes) + 8192};
    int w = 0, h = 0, channels = 0;
    uint8_t *data = stbi_load_from_memory(clean, (int)clean_bytes, &w, &h, &channels, 3);
    thaw_free(clean);
    for (int i = 0; i < MOST_BLOCKS; i++)
        if (memory.blocks[i] != data)
            thaw_free(memory.blocks[i]);
    if (!data) {
        const char *reason = stbi_failure_reason();
        if (memory.refused) /* stb_image does not always say so */
            return thaw_fail(THAW_RESOURCE, "%s: no memory to decode a PNG image of %lld x %lld pixels", name,
                             (long long)width, (long long)height);
        return damaged(name, memory.over_limit ? "more data than its size allows" : reason ? reason : "its data cannot be read");
    }
    thaw_free(pixels->data);
    *pixels = (thaw_pixels){.data = data, .capacity = (size_t)w * (size_t)h * 3, .height = h, .width = w};
    return THAW_OK;
}
