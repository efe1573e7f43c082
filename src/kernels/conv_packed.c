/* Which algorithm a convolution takes. It depends on the shape and on THAW_CONV, never on threads, batch or time:
 *   auto      Winograd where it fits and pays, else products with panels
 *   direct    products with panels
 *   winograd  Winograd wherever it fits
 *   blas      OpenBLAS for all, with kernels as they are */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kernels/conv_panels.h"
#include "kernels/kernels_fast.h"
#include "kernels/winograd.h"

static thaw_conv_mode mode;
static const char *const NAMES[] = {"auto", "direct", "winograd", "blas"};

static void choose(void) {
    const char *wish = getenv("THAW_CONV");
    for (int i = 0; wish && i < 4; i++)
        if (strcmp(wish, NAMES[i]) == 0) {
            mode = (thaw_conv_mode)i;
            return;
        }
    if (wish && *wish)
        thaw_warn("THAW_CONV=%s is not known and ignored; auto, direct, winograd and blas are", wish);
}

thaw_conv_mode thaw_conv_mode_get(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return mode;
}

void thaw_conv_mode_set(thaw_conv_mode wish) {
    thaw_conv_mode_get();
    mode = wish;
}

bool thaw_kernels_choose_convolution(const char *name) {
    for (int i = 0; i < 4; i++)
        if (strcmp(name, NAMES[i]) == 0) {
            thaw_conv_mode_set((thaw_conv_mode)i);
            return true;
        }
    return false;
}

const char *thaw_conv_mode_name(void) { return NAMES[thaw_conv_mode_get()]; }

/* Enough channels to pay for the transforms, and at least 1.5 times fewer products. */
static bool pays(const thaw_window *s) {
    return s->cin >= 16 && s->cout >= 16 && s->kh * s->kw * s->oh * s->ow * 2 >= 3 * thaw_winograd_products(s);
}

static bool takes_winograd(const thaw_window *s) {
    thaw_conv_mode m = thaw_conv_mode_get();
    return thaw_winograd_fits(s) && (m == THAW_CONV_WINOGRAD || (m == THAW_CONV_AUTO && (s->pool || pays(s))));
}

/* Pooled maps have full tiles alone (winograd_tiles.h), which must not be many more products. */
static bool conv_pools(const thaw_window *s) {
    thaw_window pooled = *s;
    pooled.pool = 2;
    return s->kh == 3 && s->kw == 3 && s->oh > 1 && s->ow > 1 && takes_winograd(s) &&
           20 * thaw_winograd_products(&pooled) <= 21 * thaw_winograd_products(s);
}

static bool turned_takes_winograd(const thaw_window *s) {
    if (!thaw_winograd_fits(s))
        return false;
    thaw_window turned = thaw_winograd_turned(s);
    return takes_winograd(&turned);
}

static size_t conv_pack_floats(const thaw_window *s, bool backward) {
    if (thaw_conv_mode_get() == THAW_CONV_BLAS)
        return 0;
    if (backward && turned_takes_winograd(s)) {
        thaw_window turned = thaw_winograd_turned(s);
        return thaw_winograd_pack_floats(&turned);
    }
    return !backward && takes_winograd(s) ? thaw_winograd_pack_floats(s) : thaw_panels_pack_floats(s, backward);
}

static void conv_pack(const thaw_window *s, bool backward, const float *kernel, const double *scale, float *packed,
                      thaw_part part) {
    if (backward && turned_takes_winograd(s))
        thaw_winograd_pack_turned(s, kernel, packed, part);
    else if (!backward && takes_winograd(s))
        thaw_winograd_pack(s, kernel, scale, packed, part);
    else
        thaw_panels_pack(s, backward, kernel, scale, packed, part);
}

static void conv_forward_packed(const thaw_window *s, int64_t n, const float *x, const float *packed, const float *bias,
                                const float *add, thaw_activation act, float *y, void *scratch) {
    if (takes_winograd(s))
        thaw_winograd_forward(s, n, x, packed, bias, add, act, y, scratch);
    else
        thaw_panels_forward(s, n, x, packed, bias, add, act, y, scratch);
}

static void conv_backward_data_packed(const thaw_window *s, int64_t n, const float *dy, const float *packed, float *dx,
                                      bool accumulate, void *scratch) {
    if (turned_takes_winograd(s)) {
        thaw_window turned = thaw_winograd_turned(s);
        thaw_winograd_forward(&turned, n, dy, packed, NULL, accumulate ? dx : NULL, THAW_ACTIVATION_LINEAR, dx, scratch);
    } else {
        thaw_panels_backward_data(s, n, dy, packed, dx, accumulate, scratch);
    }
}

bool thaw_packed_sums_slices(const thaw_window *s, int64_t n, int slices) {
    return takes_winograd(s) && thaw_winograd_sums_slices(s, n, slices);
}

void thaw_packed_weights(const thaw_window *s, int slices, const int64_t *start, const float *x, const float *dy, float *dkernel,
                         void *scratch) {
    if (takes_winograd(s))
        thaw_winograd_weights(s, slices, start, x, dy, dkernel, scratch);
    else
        thaw_panels_weights(s, start[slices] - start[0], x, dy, dkernel, scratch);
}

size_t thaw_packed_scratch(const thaw_window *s, int64_t n, int slices) {
    if (thaw_conv_mode_get() == THAW_CONV_BLAS)
        return 0;
    size_t most = thaw_panels_scratch(s, n);
    if (thaw_winograd_fits(s)) {
        thaw_window turned = thaw_winograd_turned(s);
        size_t sizes[] = {takes_winograd(s) ? thaw_winograd_scratch(s) : 0,
                          takes_winograd(s) ? thaw_winograd_weights_scratch(s, n, slices) : 0,
                          turned_takes_winograd(s) ? thaw_winograd_scratch(&turned) : 0};
        for (int i = 0; i < 3; i++)
            most = sizes[i] > most ? sizes[i] : most;
    }
    return most;
}

const char *thaw_conv_algorithm(const thaw_window *s, thaw_direction direction) {
    if (thaw_kernels_get() == thaw_kernels_reference())
        return "reference";
    if (thaw_conv_mode_get() == THAW_CONV_BLAS)
        return NAMES[THAW_CONV_BLAS];
    bool winograd = direction == THAW_FORWARD         ? takes_winograd(s)
                    : direction == THAW_BACKWARD_DATA ? turned_takes_winograd(s)
                                                      : takes_winograd(s);
    if (winograd)
        return NAMES[THAW_CONV_WINOGRAD];
    return s->kh * s->kw * s->sh * s->sw == 1 ? "1x1" : NAMES[THAW_CONV_DIRECT];
}

size_t thaw_packed_forward_scratch(const thaw_window *s) {
    if (thaw_conv_mode_get() == THAW_CONV_BLAS)
        return 0;
    return takes_winograd(s) ? thaw_winograd_scratch(s) : thaw_panels_forward_scratch(s);
}

void thaw_fast_conv_packed(thaw_kernels *table) {
    table->conv_pack_floats = conv_pack_floats;
    table->conv_pack = conv_pack;
    table->conv_pools = conv_pools;
    table->conv_forward_packed = conv_forward_packed;
    table->conv_backward_data_packed = conv_backward_data_packed;
}
