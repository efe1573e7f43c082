/* Shared by the tests of data: a temporary folder, files and small PNGs in it, fixtures, expected messages. */
#ifndef THAW_TEST_DATA_CASE_H
#define THAW_TEST_DATA_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/memory.h"
#include "data/image.h"
#include "thaw/data.h"

#define UNUSED __attribute__((unused))

static char folder[64];

UNUSED static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/thaw-data-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

UNUSED static int remove_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

/* Path of `name` in the folder, in one of eight buffers that take turns. */
UNUSED static const char *in_folder(const char *name) {
    static char paths[8][1024];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* Writes a file of the folder, with the folders that it lies in. */
UNUSED static void put(const char *name, const void *bytes, size_t size) {
    const char *path = in_folder(name);
    char *parent = thaw_path_dirname(path);
    assert_int_equal(thaw_io_mkdirs(parent), THAW_OK);
    thaw_free(parent);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

UNUSED static uint8_t *fixture(const char *name, size_t *size) {
    char path[1024];
    void *bytes;
    snprintf(path, sizeof path, "%s/tests/unit/data/fixtures/%s", THAW_SOURCE_DIR, name);
    if (thaw_io_read(&bytes, size, path, 0) != THAW_OK)
        fail_msg("%s", thaw_message());
    return bytes;
}

/* The call failed with this status, and its message has every part ('|' separates parts). */
UNUSED static void expect(thaw_status status, thaw_status wanted, const char *parts) {
    if (status != wanted)
        fail_msg("status %d, expected %d with: %s (message: %s)", status, wanted, parts, thaw_message());
    char *copy = strdup(parts), *rest = copy, *part;
    while ((part = strsep(&rest, "|")) != NULL)
        if (strstr(thaw_message(), part) == NULL)
            fail_msg("no \"%s\" in the message: %s", part, thaw_message());
    free(copy);
}

UNUSED static void succeed(thaw_status status) {
    if (status != THAW_OK)
        fail_msg("status %d: %s", status, thaw_message());
}

UNUSED static void big_endian(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* CRC-32 bit by bit: slow, and not the code under test. */
UNUSED static uint32_t slow_crc(const uint8_t *bytes, size_t size) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++)
            crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
    }
    return crc ^ 0xffffffffu;
}

UNUSED static size_t put_png_chunk(uint8_t *at, const char *type, const uint8_t *content, size_t size) {
    big_endian(at, (uint32_t)size);
    memcpy(at + 4, type, 4);
    if (size)
        memcpy(at + 8, content, size);
    big_endian(at + 8 + size, slow_crc(at + 4, size + 4));
    return size + 12;
}

/* A PNG with RGB pixels, not compressed (one stored block: less than 65536 bytes with filter bytes). Returns its size. */
UNUSED static size_t make_png(uint8_t *out, const uint8_t *rgb, uint32_t height, uint32_t width) {
    static uint8_t data[65536 + 16];
    const size_t row = width * 3 + 1, raw = row * height;
    uint32_t a = 1, b = 0;
    uint8_t header[13] = {0};
    const uint8_t start[7] = {0x78, 1, 1, (uint8_t)raw, (uint8_t)(raw >> 8), (uint8_t)~raw, (uint8_t)(~raw >> 8)};
    memcpy(data, start, sizeof start);
    for (uint32_t y = 0; y < height; y++) {
        data[7 + y * row] = 0;
        memcpy(data + 7 + y * row + 1, rgb + y * width * 3, width * 3);
    }
    for (size_t i = 0; i < raw; i++) {
        a = (a + data[7 + i]) % 65521;
        b = (b + a) % 65521;
    }
    big_endian(data + 7 + raw, b << 16 | a);
    big_endian(header, width);
    big_endian(header + 4, height);
    header[8] = 8;
    header[9] = 2;
    memcpy(out, "\x89PNG\r\n\x1a\n", 8);
    size_t size = 8;
    size += put_png_chunk(out + size, "IHDR", header, sizeof header);
    size += put_png_chunk(out + size, "IDAT", data, raw + 11);
    return size + put_png_chunk(out + size, "IEND", NULL, 0);
}

/* A PNG file of one color: (value, value+1, value+2) everywhere but value+9 as red of the leftmost column. */
UNUSED static void put_png(const char *name, int value, uint32_t height, uint32_t width) {
    static uint8_t rgb[60000], png[70000];
    for (uint32_t i = 0; i < height * width; i++)
        for (int c = 0; c < 3; c++)
            rgb[3 * i + (uint32_t)c] = (uint8_t)(value + c + (i % width == 0 && c == 0 ? 9 : 0));
    put(name, png, make_png(png, rgb, height, width));
}

#endif
