/* JPEG decoded smaller than it is: the scale that is chosen, how far the pixels of the network's input are from those of a
 * whole image, what is refused. */
#include "data_case.h"

#include <math.h>

#include <jpeglib.h>

enum { TARGET = 112 };

/* A picture with detail at every scale down to `finest` pixels, whose amplitude is as its size, as in photographs. */
static void paint(uint8_t *rgb, int height, int width, int finest) {
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                double value = 128.0;
                for (int period = 256; period >= finest; period /= 2) {
                    const double turn = 6.283185307 / period, angle = 0.7 * period + c * 0.3;
                    value += 0.15 * period * sin(turn * (x * cos(angle) + y * sin(angle)) + c) * (period > 64 ? 0.5 : 1.0);
                }
                rgb[(y * width + x) * 3 + c] = (uint8_t)(value < 0.0 ? 0.0 : value > 255.0 ? 255.0 : value);
            }
}

/* A JPEG file in memory; free(). */
static uint8_t *make_jpeg(size_t *size, const uint8_t *rgb, int height, int width, int sampling, bool progressive) {
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long n = 0;
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &bytes, &n);
    info.image_width = (JDIMENSION)width;
    info.image_height = (JDIMENSION)height;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, 90, TRUE);
    info.comp_info[0].h_samp_factor = info.comp_info[0].v_samp_factor = sampling;
    if (progressive)
        jpeg_simple_progression(&info);
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(rgb + (size_t)info.next_scanline * (size_t)width * 3);
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    *size = n;
    return bytes;
}

static void test_scale(void **state) {
    (void)state;
    static const struct {
        int height, width, least_height, least_width, m;
    } cases[] = {{480, 640, 112, 112, 2}, {480, 640, 120, 160, 2}, {480, 640, 121, 160, 3}, {480, 640, 120, 161, 3},
                 {480, 640, 60, 80, 1},   {480, 640, 1, 1, 1},     {480, 640, 480, 640, 8}, {480, 640, 421, 1, 8},
                 {480, 640, 900, 900, 8}, {100, 77, 50, 20, 4},    {100, 77, 38, 29, 3},    {101, 77, 39, 40, 5},
                 {480, 640, 0, 0, 8},     {480, 640, 112, 0, 8},   {7, 5, 1, 1, 1},         {9, 9, 2, 2, 1}};
    static uint8_t rgb[480 * 640 * 3];
    thaw_pixels pixels = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int kind = 0; kind < 3; kind++) {
            const int h = cases[i].height, w = cases[i].width, m = cases[i].m;
            size_t size;
            paint(rgb, h, w, 4);
            uint8_t *bytes = make_jpeg(&size, rgb, h, w, kind ? 2 : 1, kind == 2);
            pixels.least_height = cases[i].least_height;
            pixels.least_width = cases[i].least_width;
            succeed(thaw_pixels_decode(&pixels, bytes, size, "a.jpg"));
            if (pixels.height != (h * m + 7) / 8 || pixels.width != (w * m + 7) / 8)
                fail_msg("%dx%d for %dx%d is decoded at %dx%d", h, w, cases[i].least_height, cases[i].least_width,
                         (int)pixels.height, (int)pixels.width);
            if (m == 8) { /* bit for bit the whole image */
                thaw_pixels whole = {0};
                succeed(thaw_pixels_decode(&whole, bytes, size, "a.jpg"));
                assert_memory_equal(whole.data, pixels.data, (size_t)(h * w) * 3);
                thaw_pixels_free(&whole);
            }
            free(bytes);
        }
    thaw_pixels_free(&pixels);
}

/* Mean and largest difference of the network's inputs, in levels of 255, from a whole image and from a scaled one. */
static void compare(int finest, int sampling, double *mean, double *largest) {
    enum { H = 480, W = 640 };
    static uint8_t rgb[H * W * 3];
    static float whole[TARGET * TARGET * 3], scaled[TARGET * TARGET * 3];
    thaw_tap taps[2 * TARGET];
    thaw_pixels pixels = {0};
    size_t size;
    paint(rgb, H, W, finest);
    uint8_t *bytes = make_jpeg(&size, rgb, H, W, sampling, false);
    succeed(thaw_pixels_decode(&pixels, bytes, size, "a.jpg"));
    thaw_resize(whole, TARGET, TARGET, &pixels, taps);
    pixels.least_height = pixels.least_width = TARGET;
    succeed(thaw_pixels_decode(&pixels, bytes, size, "a.jpg"));
    assert_true(pixels.height == 120 && pixels.width == 160);
    thaw_resize(scaled, TARGET, TARGET, &pixels, taps);
    *mean = *largest = 0.0;
    for (int i = 0; i < TARGET * TARGET * 3; i++) {
        const double d = fabs((double)whole[i] - (double)scaled[i]);
        *mean += d / (TARGET * TARGET * 3);
        *largest = d > *largest ? d : *largest;
    }
    print_message("  detail down to %3d pixels, sampling %d: mean %.3f, largest %.2f levels of 255\n", finest, sampling, *mean,
                  *largest);
    thaw_pixels_free(&pixels);
    free(bytes);
}

/* One level is what JPEG's own rounding gives: a scaled pixel is the mean of a block, a whole one a single value. Beyond that
 * the whole image, taken at single points as TensorFlow resizes, shows detail that the scale leaves out. */
static void test_error(void **state) {
    (void)state;
    double mean, largest;
    for (int sampling = 1; sampling <= 2; sampling++) {
        compare(64, sampling, &mean, &largest);
        assert_true(mean > 0.0 && mean < 1.2 && largest < 6.0);
        compare(16, sampling, &mean, &largest);
        assert_true(mean < 1.3 && largest < 7.0);
        compare(2, sampling, &mean, &largest);
        assert_true(mean < 1.5 && largest < 9.0);
    }
}

/* A hostile file is refused as without scaling: cut, larger than its bytes allow, beyond the limits. */
static void test_refused(void **state) {
    (void)state;
    static uint8_t rgb[64 * 64 * 3];
    size_t size;
    paint(rgb, 64, 64, 4);
    uint8_t *bytes = make_jpeg(&size, rgb, 64, 64, 2, false);
    thaw_pixels pixels = {.least_height = 8, .least_width = 8};
    for (size_t n = 3; n + 2 < size; n += 7)
        expect(thaw_pixels_decode(&pixels, bytes, n, "cut.jpg"), THAW_DATA, "cut.jpg");
    size_t at = 2;
    while (!(bytes[at] == 0xff && bytes[at + 1] == 0xc0))
        at++;
    bytes[at + 5] = bytes[at + 7] = 0xff; /* height and width */
    expect(thaw_pixels_decode(&pixels, bytes, size, "large.jpg"), THAW_DATA, "large.jpg|cannot hold");
    free(bytes);
    thaw_pixels_free(&pixels);
}

/* The loader asks for it, and for nothing else than JPEG. */
static void test_loader(void **state) {
    (void)state;
    static uint8_t rgb[96 * 128 * 3];
    size_t size;
    paint(rgb, 96, 128, 8);
    uint8_t *bytes = make_jpeg(&size, rgb, 96, 128, 2, false);
    assert_int_equal(make_folder(state), 0);
    put("data/a/1.jpg", bytes, size);
    put_png("data/a/2.png", 40, 96, 100);
    thaw_dataset *d;
    succeed(thaw_dataset_scan_folders(&d, in_folder("data"), NULL, 0));
    static float by_hand[24 * 24 * 3];
    thaw_tap taps[48];
    for (int scaled = 0; scaled < 2; scaled++) {
        thaw_loader_options o = {.shape = {24, 24, 3}, .threads = 1, .depth = 1, .max_batch = 2, .scaled = scaled};
        thaw_loader *loader;
        thaw_batch batch;
        succeed(thaw_loader_create(&loader, d, &o));
        succeed(thaw_loader_begin(loader, (int64_t[]){1, 0}, (int64_t[]){0, 2}, 1, 0));
        succeed(thaw_loader_next(loader, &batch));
        thaw_pixels pixels = {.least_height = scaled ? 24 : 0, .least_width = scaled ? 24 : 0};
        succeed(thaw_pixels_decode(&pixels, bytes, size, "1.jpg"));
        assert_int_equal(pixels.height, scaled ? 24 : 96);
        thaw_resize(by_hand, 24, 24, &pixels, taps);
        assert_memory_equal(by_hand, batch.x + 24 * 24 * 3, sizeof by_hand);
        succeed(thaw_pixels_load(&pixels, in_folder("data/a/2.png"), NULL));
        assert_int_equal(pixels.height, 96);
        thaw_resize(by_hand, 24, 24, &pixels, taps);
        assert_memory_equal(by_hand, batch.x, sizeof by_hand);
        thaw_pixels_free(&pixels);
        thaw_loader_free(loader);
    }
    thaw_dataset_free(d);
    free(bytes);
    assert_int_equal(remove_folder(state), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scale), cmocka_unit_test(test_error), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_loader)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
