/* What data.scaled_decoding costs in pixels and saves in time, on JPEG files of one's own:
 *
 *   build/tests/scaled_decoding SIZE FILE.jpg...
 *
 * Every file is decoded whole and decoded at the smallest scale that is not below SIZE x SIZE, on one thread; both are resized
 * to SIZE x SIZE as for a network. Prints a line of the table of scaled_decoding.py: files, SIZE, milliseconds an image of both
 * (reading, decoding, resizing) and their ratio, mean and largest difference of the network's pixels in levels of 255. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "data/image.h"

typedef struct sums {
    double whole, scaled; /* seconds */
    double mean, largest;
} sums;

static double load(float *x, const char *path, thaw_pixels *pixels, int64_t size, thaw_tap *taps) {
    double best = INFINITY;
    for (int repeat = 0; repeat < 3; repeat++) {
        const double began = thaw_clock();
        if (thaw_pixels_load(pixels, path, NULL) != THAW_OK) {
            fprintf(stderr, "%s\n", thaw_message());
            exit(65);
        }
        thaw_resize(x, size, size, pixels, taps);
        const double seconds = thaw_clock() - began;
        best = seconds < best ? seconds : best;
    }
    return best;
}

int main(int argc, char **argv) {
    const int64_t size = argc > 2 ? atoi(argv[1]) : 0;
    if (size < 1 || size > 4096) {
        fprintf(stderr, "usage: scaled_decoding SIZE FILE.jpg...\n");
        return 64;
    }
    const size_t values = (size_t)(size * size) * 3;
    float *whole = thaw_calloc(values, sizeof *whole), *scaled = thaw_calloc(values, sizeof *scaled);
    thaw_tap *taps = thaw_calloc((size_t)(2 * size), sizeof *taps);
    thaw_pixels full = {0}, small = {.least_height = size, .least_width = size};
    if (!whole || !scaled || !taps)
        return 69;
    sums s = {0};
    int64_t height = 0, width = 0;
    for (int i = 2; i < argc; i++) {
        s.whole += load(whole, argv[i], &full, size, taps);
        s.scaled += load(scaled, argv[i], &small, size, taps);
        for (size_t k = 0; k < values; k++) {
            const double d = fabs((double)whole[k] - (double)scaled[k]);
            s.mean += d / (double)values;
            s.largest = d > s.largest ? d : s.largest;
        }
        if (full.height * full.width > height * width) {
            height = full.height;
            width = full.width;
        }
    }
    const double n = argc - 2;
    printf("| %d, up to %lldx%lld | %lld | %.2f | %.2f | %.2f | %.2f | %.0f |\n", argc - 2, (long long)width, (long long)height,
           (long long)size, 1e3 * s.whole / n, 1e3 * s.scaled / n, s.whole / s.scaled, s.mean / n, s.largest);
    thaw_pixels_free(&full);
    thaw_pixels_free(&small);
    thaw_free(whole);
    thaw_free(scaled);
    thaw_free(taps);
    return 0;
}
