/* Decoding: bit for bit what TensorFlow gives; hostile and damaged files end in THAW_DATA, never in a crash. */
#include "data_case.h"

#include <sys/stat.h>

/* Calls `each` for the lines of images.txt. */
static int for_images(void (*each)(const char *name, int64_t height, int64_t width)) {
    size_t size;
    char *list = (char *)fixture("images.txt", &size), *rest = list, *line;
    int n = 0;
    while ((line = strsep(&rest, "\n")) != NULL && *line) {
        char name[64];
        long long height, width;
        assert_int_equal(sscanf(line, "%63s %lld %lld", name, &height, &width), 3);
        each(name, height, width);
        n++;
    }
    thaw_free(list);
    return n;
}

static void compare(const char *name, int64_t height, int64_t width) {
    char path[1024], expected_name[80];
    uint8_t *pixels;
    int64_t h, w;
    size_t size;
    snprintf(path, sizeof path, "%s/tests/unit/data/fixtures/%s", THAW_SOURCE_DIR, name);
    snprintf(expected_name, sizeof expected_name, "%s.rgb", name);
    succeed(thaw_image_decode(&pixels, &h, &w, path));
    assert_int_equal(h, height);
    assert_int_equal(w, width);
    uint8_t *expected = fixture(expected_name, &size);
    assert_int_equal(size, h * w * 3);
    if (memcmp(pixels, expected, size) != 0)
        fail_msg("%s differs from TensorFlow", name);
    thaw_free(pixels);
    thaw_free(expected);
}

static void test_as_tensorflow(void **state) {
    (void)state;
    assert_true(for_images(compare) >= 30);
}

/* The file cut behind every byte: an error that names it, or (behind the picture data) the same pixels. */
static void cut(const char *name, int64_t height, int64_t width) {
    size_t size, expected_size;
    char expected_name[80];
    snprintf(expected_name, sizeof expected_name, "%s.rgb", name);
    uint8_t *bytes = fixture(name, &size), *expected = fixture(expected_name, &expected_size);
    const bool may_lack_the_end = strstr(name, ".jpg");
    thaw_pixels pixels = {0};
    for (size_t n = 0; n < size; n++) {
        uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees the byte behind */
        memcpy(exact, bytes, n);
        const thaw_status status = thaw_pixels_decode(&pixels, exact, n, "cut.file");
        if (status == THAW_OK) {
            if (!may_lack_the_end || n + 64 < size || memcmp(pixels.data, expected, expected_size) != 0)
                fail_msg("%s cut to %zu of %zu bytes is accepted", name, n, size);
        } else {
            expect(status, THAW_DATA, "cut.file");
        }
        free(exact);
    }
    (void)height;
    (void)width;
    thaw_pixels_free(&pixels);
    thaw_free(bytes);
    thaw_free(expected);
}

static void test_truncated(void **state) {
    (void)state;
    for_images(cut);
}

/* One bit of a PNG's critical chunks flipped: noticed, whichever it is. */
static void test_png_bits(void **state) {
    (void)state;
    static const char *const names[] = {"gray1.png", "palette4.png", "rgba8.png"};
    thaw_pixels pixels = {0};
    for (int i = 0; i < 3; i++) {
        size_t size;
        uint8_t *bytes = fixture(names[i], &size);
        size_t ancillary = size - 12 - 21; /* tEXt is the last but one: Comment, zero, x and its frame */
        assert_memory_equal(bytes + ancillary + 4, "tEXt", 4);
        for (size_t bit = 0; bit < 8 * size; bit++) {
            const size_t at = bit / 8;
            if (at >= ancillary + 8 && at < size - 12)
                continue; /* text that nobody needs */
            bytes[at] ^= (uint8_t)(1 << bit % 8);
            if (thaw_pixels_decode(&pixels, bytes, size, "bit.png") == THAW_OK && !(at >= ancillary + 4 && at < ancillary + 8))
                fail_msg("%s: bit %zu flipped is accepted", names[i], bit);
            bytes[at] ^= (uint8_t)(1 << bit % 8);
        }
        thaw_free(bytes);
    }
    thaw_pixels_free(&pixels);
}

static uint64_t seed = 88172645463325252u;

static uint32_t draw(void) { /* xorshift64 */
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32);
}

/* Makes the checksums of a damaged PNG right again, so that its content reaches the decoder. */
static void mend_png(uint8_t *bytes, size_t size) {
    for (size_t at = 8; at + 12 <= size;) {
        const size_t length = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 | (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (length > size - at - 12)
            return;
        big_endian(bytes + at + 8 + length, slow_crc(bytes + at + 4, length + 4));
        at += length + 12;
    }
}

/* Bytes changed at random, and pieces moved: any outcome but a crash (the sanitizers look). */
static void fuzz(const char *name, int64_t height, int64_t width) {
    size_t size;
    (void)height;
    (void)width;
    uint8_t *bytes = fixture(name, &size);
    thaw_pixels pixels = {0};
    for (int round = 0; round < 60; round++) {
        uint8_t *changed = malloc(size);
        memcpy(changed, bytes, size);
        for (uint32_t n = draw() % 6; n < 6; n++) {
            const uint32_t kind = draw() % 3;
            const size_t at = 8 + draw() % (size - 8);
            if (kind == 0)
                changed[at] ^= (uint8_t)(1 << draw() % 8);
            else if (kind == 1)
                changed[at] = (uint8_t)draw();
            else
                memmove(changed + at, bytes + draw() % at, size - at < 16 ? size - at : 16);
        }
        if (round % 2)
            mend_png(changed, size);
        const thaw_status status = thaw_pixels_decode(&pixels, changed, size, "fuzz.file");
        if (status != THAW_OK)
            expect(status, THAW_DATA, "fuzz.file");
        free(changed);
    }
    thaw_pixels_free(&pixels);
    thaw_free(bytes);
}

static void test_fuzz(void **state) {
    (void)state;
    for_images(fuzz);
}

static void decode_changed(const char *name, size_t at, const void *change, size_t n, const char *parts) {
    size_t size;
    uint8_t *bytes = fixture(name, &size);
    memcpy(bytes + at, change, n);
    if (strstr(name, ".png"))
        mend_png(bytes, size);
    thaw_pixels pixels = {0};
    const size_t before = thaw_memory_peak();
    expect(thaw_pixels_decode(&pixels, bytes, size, name), THAW_DATA, name);
    expect(THAW_DATA, THAW_DATA, parts);
    assert_true(thaw_memory_peak() - before < 1 << 20); /* refused before memory was taken */
    thaw_pixels_free(&pixels);
    thaw_free(bytes);
}

/* Headers that claim what the file cannot hold. */
static void test_huge(void **state) {
    (void)state;
    decode_changed("rgb8.png", 16, "\x7f\xff\xff\xff\x7f\xff\xff\xff", 8, "2147483647 x 2147483647");
    decode_changed("rgb8.png", 16, "\0\0\xff\xdc\0\0\xff\xdc", 8, "65500 x 65500");
    decode_changed("rgb8.png", 16, "\0\0\x30\0\0\0\x30\0", 8, "too few bytes");
    decode_changed("rgb8.png", 16, "\0\0\0\0", 4, "0 x 17");
    decode_changed("rgb8.png", 16, "\xff\xff\xff\xff", 4, "4294967295");
    decode_changed("rgb24.bmp", 18, "\xff\xff\xff\x7f\xff\xff\xff\x7f", 8, "2147483647 x 2147483647");
    decode_changed("rgb24.bmp", 22, "\0\0\0\x80", 4, "2147483648");
    decode_changed("rgb24.bmp", 18, "\xff\xff\xff\xff", 4, "-1 x 17");
    decode_changed("rgb24.bmp", 18, "\0\x10\0\0\0\x10\0\0", 8, "ends before its pixels");
    decode_changed("rgb24.bmp", 10, "\xff\xff\xff\xff", 4, "ends before its pixels");
    decode_changed("rgb24.bmp", 14, "\xff\xff\xff\xff", 4, "header has 4294967295 bytes");
    decode_changed("rgb24.bmp", 14, "\x0c\0\0\0", 4, "header has 12 bytes");
    decode_changed("rgb24.bmp", 28, "\x10\0", 2, "16 bits");
    decode_changed("rgb24.bmp", 30, "\x01\0\0\0", 4, "compression 1");
    decode_changed("gray8.bmp", 46, "\x02\0\0\0", 4, "palette");
    size_t size, at = 0;
    uint8_t *jpeg = fixture("j444.jpg", &size);
    while (!(jpeg[at] == 0xff && jpeg[at + 1] == 0xc0))
        at++;
    thaw_free(jpeg);
    decode_changed("j444.jpg", at + 5, "\xff\xdc\xff\xdc", 4, "65500 x 65500 pixels");
    decode_changed("j444.jpg", at + 5, "\0\0", 2, "j444");
    decode_changed("j444.jpg", at + 4, "\x0c", 1, "12");
    decode_changed("j444.jpg", 2, "\0\0\0\0\0\0\0\0", 8, "j444.jpg");
}

/* Chunks in wrong order, of wrong size, too many. */
static void test_png_structure(void **state) {
    (void)state;
    uint8_t png[4096], header[13] = {0, 0, 0, 2, 0, 0, 0, 2, 8, 2};
    const uint8_t rgb[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    thaw_pixels pixels = {0};
    size_t whole = make_png(png, rgb, 2, 2);
    succeed(thaw_pixels_decode(&pixels, png, whole, "a.png"));
    assert_memory_equal(pixels.data, rgb, sizeof rgb);

    size_t n = 8;
    n += put_png_chunk(png + n, "IDAT", rgb, 12);
    expect(thaw_pixels_decode(&pixels, png, n, "a.png"), THAW_DATA, "does not begin with its header");
    n = 8;
    n += put_png_chunk(png + n, "IHDR", header, 13);
    n += put_png_chunk(png + n, "IHDR", header, 13);
    expect(thaw_pixels_decode(&pixels, png, n, "a.png"), THAW_DATA, "header is not valid");
    n = 8 + 25;
    n += put_png_chunk(png + n, "IEND", NULL, 0);
    expect(thaw_pixels_decode(&pixels, png, n, "a.png"), THAW_DATA, "no pixels");
    n = 8 + 25;
    n += put_png_chunk(png + n, "zzzz", rgb, 3);
    n += put_png_chunk(png + n, "Crit", rgb, 3);
    expect(thaw_pixels_decode(&pixels, png, n, "a.png"), THAW_DATA, "not of the standard");
    n = 8 + 25;
    n += put_png_chunk(png + n, "PLTE", rgb, 4);
    expect(thaw_pixels_decode(&pixels, png, n, "a.png"), THAW_DATA, "palette is not valid");
    header[9] = 3;
    n = 8;
    n += put_png_chunk(png + n, "IHDR", header, 13);
    n += put_png_chunk(png + n, "IDAT", rgb, 12);
    n += put_png_chunk(png + n, "IEND", NULL, 0);
    expect(thaw_pixels_decode(&pixels, png, n, "a.png"), THAW_DATA, "no palette");
    n -= 12;
    n += put_png_chunk(png + n, "tEXt", rgb, 1);
    n += put_png_chunk(png + n, "IDAT", rgb, 12);
    expect(thaw_pixels_decode(&pixels, png, n, "a.png"), THAW_DATA, "torn apart");
    for (int color = 0; color < 256; color++)
        for (int depth = 0; depth < 20; depth++) {
            const bool legal = color == 0   ? depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16
                               : color == 3 ? depth == 1 || depth == 2 || depth == 4 || depth == 8
                               : color == 2 || color == 4 || color == 6 ? depth == 8 || depth == 16
                                                                        : false;
            header[8] = (uint8_t)depth;
            header[9] = (uint8_t)color;
            n = 8;
            n += put_png_chunk(png + n, "IHDR", header, 13);
            expect(thaw_pixels_decode(&pixels, png, n, "a.png"), THAW_DATA, legal ? "ends early" : "header is not valid");
        }
    thaw_pixels_free(&pixels);
}

/* Appends the n low bits of `code` to a stream of deflate, the highest first (as Huffman codes lie). */
static void put_code(uint8_t *data, size_t *bit, uint32_t code, int n) {
    for (int i = n - 1; i >= 0; i--, ++*bit)
        data[*bit / 8] |= (uint8_t)((code >> i & 1) << *bit % 8);
}

/* A PNG of 1x1 whose valid data inflates to megabytes: stopped by its header's size, not by memory. */
static void test_png_bomb(void **state) {
    (void)state;
    enum { MATCHES = 12000 }; /* of 258 bytes in 13 bits each */
    uint8_t *png = calloc(1, MATCHES * 2 + 4096), *data = calloc(1, MATCHES * 2 + 16);
    uint8_t header[13] = {0, 0, 0, 1, 0, 0, 0, 1, 8, 2};
    size_t bit = 16, n = 8;
    thaw_pixels pixels = {0};
    data[0] = 0x78;
    data[1] = 1;
    put_code(data, &bit, 6, 3);        /* last block, fixed codes */
    put_code(data, &bit, 0x30, 8);     /* a zero */
    for (int i = 0; i < MATCHES; i++)
        put_code(data, &bit, 0xc5 << 5, 13); /* length 258, distance 1 */
    put_code(data, &bit, 0, 7);        /* end */
    memcpy(png, "\x89PNG\r\n\x1a\n", 8);
    n += put_png_chunk(png + n, "IHDR", header, 13);
    n += put_png_chunk(png + n, "IDAT", data, bit / 8 + 5);
    n += put_png_chunk(png + n, "IEND", NULL, 0);
    const size_t before = thaw_memory_peak();
    expect(thaw_pixels_decode(&pixels, png, n, "bomb.png"), THAW_DATA, "bomb.png|more data than its size allows");
    assert_true(thaw_memory_peak() - before < 1 << 20);
    const uint8_t deflated[] = {0x78, 0x9c, 0xed, 0xc1, 0x01, 0x0d}; /* the head of dynamic codes, then nothing */
    n = 8 + 25;
    n += put_png_chunk(png + n, "IDAT", deflated, sizeof deflated);
    n += put_png_chunk(png + n, "IEND", NULL, 0);
    expect(thaw_pixels_decode(&pixels, png, n, "bomb.png"), THAW_DATA, "bomb.png");
    thaw_pixels_free(&pixels);
    free(png);
    free(data);
}

static void put_u32(uint8_t *at, uint32_t v) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> 8 * i);
}

/* Kinds of BMP that TensorFlow refuses or reads as indices: 32 bits, with masks or without, and colored palettes. */
static void test_bmp_kinds(void **state) {
    (void)state;
    uint8_t bmp[14 + 40 + 12 + 16 + 16] = "BM";
    thaw_pixels pixels = {0};
    put_u32(bmp + 10, 54);
    put_u32(bmp + 14, 40);
    put_u32(bmp + 18, 2); /* width, height, planes and bits */
    put_u32(bmp + 22, 1);
    put_u32(bmp + 26, 1 | 32u << 16);
    for (int i = 0; i < 8; i++)
        bmp[54 + i] = (uint8_t)(10 + i);
    succeed(thaw_pixels_decode(&pixels, bmp, 62, "a.bmp"));
    assert_memory_equal(pixels.data, ((uint8_t[]){12, 11, 10, 16, 15, 14}), 6);
    put_u32(bmp + 10, 66);
    put_u32(bmp + 30, 3);
    put_u32(bmp + 54, 0xff0000);
    put_u32(bmp + 58, 0xff00);
    put_u32(bmp + 62, 0xff);
    for (int i = 0; i < 8; i++)
        bmp[66 + i] = (uint8_t)(20 + i);
    succeed(thaw_pixels_decode(&pixels, bmp, 74, "a.bmp"));
    assert_memory_equal(pixels.data, ((uint8_t[]){22, 21, 20, 26, 25, 24}), 6);
    put_u32(bmp + 54, 0xff); /* other masks */
    expect(thaw_pixels_decode(&pixels, bmp, 74, "a.bmp"), THAW_DATA, "compression 3");

    put_u32(bmp + 30, 0); /* 8 bits, two colors */
    put_u32(bmp + 26, 1 | 8u << 16);
    put_u32(bmp + 10, 62);
    memcpy(bmp + 54, "\1\2\3\0\4\5\6\0", 8);
    memcpy(bmp + 62, "\1\0\0\0", 4);
    succeed(thaw_pixels_decode(&pixels, bmp, 66, "a.bmp"));
    assert_memory_equal(pixels.data, ((uint8_t[]){6, 5, 4, 3, 2, 1}), 6);
    bmp[63] = 2;
    expect(thaw_pixels_decode(&pixels, bmp, 66, "a.bmp"), THAW_DATA, "a.bmp|palette");
    thaw_pixels_free(&pixels);
}

static void test_jpeg_without_end(void **state) {
    (void)state;
    size_t size;
    uint8_t *bytes = fixture("j420.jpg", &size);
    thaw_pixels pixels = {0};
    expect(thaw_pixels_decode(&pixels, bytes, size - 2, "a.jpg"), THAW_DATA, "a.jpg|Premature end");
    thaw_pixels_free(&pixels);
    thaw_free(bytes);
}

static void test_other_files(void **state) {
    (void)state;
    uint8_t *pixels;
    int64_t h, w;
    put("a.gif", "GIF89a\1\0\1\0", 10);
    put("a.png", "RIFF\4\0\0\0WEBPVP8 ", 16);
    put("text.jpg", "this is text", 12);
    put("empty.png", "", 0);
    assert_int_equal(mkfifo(in_folder("pipe.png"), 0600), 0);
    assert_int_equal(thaw_io_mkdirs(in_folder("folder.jpg")), THAW_OK);
    expect(thaw_image_decode(&pixels, &h, &w, in_folder("a.gif")), THAW_DATA, "a.gif|GIF|convert");
    expect(thaw_image_decode(&pixels, &h, &w, in_folder("a.png")), THAW_DATA, "a.png|WebP|convert");
    expect(thaw_image_decode(&pixels, &h, &w, in_folder("text.jpg")), THAW_DATA, "text.jpg|JPEG, PNG or BMP");
    expect(thaw_image_decode(&pixels, &h, &w, in_folder("empty.png")), THAW_DATA, "empty.png|empty");
    expect(thaw_image_decode(&pixels, &h, &w, in_folder("pipe.png")), THAW_DATA, "pipe.png");
    expect(thaw_image_decode(&pixels, &h, &w, in_folder("folder.jpg")), THAW_DATA, "folder.jpg|directory");
    expect(thaw_image_decode(&pixels, &h, &w, in_folder("none.jpg")), THAW_NO_INPUT, "none.jpg");
    assert_null(pixels);
}

/* Memory that is not there at the n-th request: THAW_RESOURCE, and nothing is left behind. */
static void test_no_memory(void **state) {
    (void)state;
    static const char *const names[] = {"j420.jpg", "cmyk.jpg", "interlaced.png", "palette4.png", "rgba16.png", "rgb24.bmp"};
    for (int i = 0; i < 6; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/tests/unit/data/fixtures/%s", THAW_SOURCE_DIR, names[i]);
        const size_t live = thaw_memory_live();
        thaw_status status = THAW_RESOURCE;
        for (int n = 1; status != THAW_OK; n++) {
            uint8_t *pixels;
            int64_t h, w;
            assert_true(n < 50);
            thaw_memory_fail_after(n);
            status = thaw_image_decode(&pixels, &h, &w, path);
            thaw_memory_fail_after(-1);
            thaw_free(pixels);
            if (status != THAW_OK)
                expect(status, THAW_RESOURCE, names[i]);
            assert_int_equal(thaw_memory_live(), live);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_tensorflow),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_png_bits),
        cmocka_unit_test(test_fuzz),
        cmocka_unit_test(test_huge),
        cmocka_unit_test(test_png_structure),
        cmocka_unit_test(test_png_bomb),
        cmocka_unit_test(test_bmp_kinds),
        cmocka_unit_test(test_jpeg_without_end),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
