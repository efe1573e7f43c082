/* Inception v3 (Szegedy et al. 2015): keras.applications.InceptionV3. Most layers carry the names that Keras counts up by
 * class in a fresh session, so layers are made in the order of Keras' source. */
#include <stdio.h>

#include "models/builder.h"

typedef struct inception {
    thaw_builder *b;
    int convs, average_pools, max_pools, concats; /* made so far */
} inception;

/* "conv2d", "conv2d_1", ... */
static const char *counted(char name[48], const char *stem, int *n) {
    if ((*n)++ == 0)
        snprintf(name, 48, "%s", stem);
    else
        snprintf(name, 48, "%s_%d", stem, *n - 1);
    return name;
}

/* Convolution without bias, batch norm without scale, activation. */
static int unit(inception *net, int x, int64_t filters, int64_t kh, int64_t kw, int64_t stride, bool same) {
    char name[48];
    int k = net->convs, m = net->convs;
    x = thaw_builder_conv(net->b, x, counted(name, "conv2d", &net->convs), filters, kh, kw, stride, same, false,
                          THAW_ACTIVATION_LINEAR);
    x = thaw_builder_norm(net->b, x, counted(name, "batch_normalization", &k), 1e-3f, false);
    return thaw_builder_relu(net->b, x, counted(name, "activation", &m));
}

static int same(inception *net, int x, int64_t filters, int64_t kh, int64_t kw) {
    return unit(net, x, filters, kh, kw, 1, true);
}

static int halve(inception *net, int x, int64_t filters) { return unit(net, x, filters, 3, 3, 2, false); }

static int max_pool(inception *net, int x) {
    char name[48];
    return thaw_builder_pool(net->b, x, THAW_LAYER_MAX_POOLING, counted(name, "max_pooling2d", &net->max_pools), 3, 2,
                             false);
}

/* Branch of average pooling and a 1x1. */
static int pooled(inception *net, int x, int64_t filters) {
    char name[48];
    x = thaw_builder_pool(net->b, x, THAW_LAYER_AVERAGE_POOLING,
                          counted(name, "average_pooling2d", &net->average_pools), 3, 1, true);
    return same(net, x, filters, 1, 1);
}

static int concat(inception *net, const char *name, const int *branches, int n) {
    return thaw_builder_merge(net->b, THAW_LAYER_CONCATENATE, name, branches, n);
}

static int mixed(inception *net, int number, const int *branches, int n) {
    char name[48];
    snprintf(name, sizeof name, "mixed%d", number);
    return concat(net, name, branches, n);
}

/* mixed0 to mixed2: 5x5 and double 3x3. */
static int block_a(inception *net, int x, int number) {
    int branch[4];
    branch[0] = same(net, x, 64, 1, 1);
    branch[1] = same(net, same(net, x, 48, 1, 1), 64, 5, 5);
    branch[2] = same(net, same(net, same(net, x, 64, 1, 1), 96, 3, 3), 96, 3, 3);
    branch[3] = pooled(net, x, number == 0 ? 32 : 64);
    return mixed(net, number, branch, 4);
}

/* mixed4 to mixed7: 7x7 as 1x7 and 7x1, with c channels between. */
static int block_b(inception *net, int x, int number, int64_t c) {
    int branch[4], y;
    branch[0] = same(net, x, 192, 1, 1);
    branch[1] = same(net, same(net, same(net, x, c, 1, 1), c, 1, 7), 192, 7, 1);
    y = same(net, same(net, same(net, x, c, 1, 1), c, 7, 1), c, 1, 7);
    branch[2] = same(net, same(net, y, c, 7, 1), 192, 1, 7);
    branch[3] = pooled(net, x, 192);
    return mixed(net, number, branch, 4);
}

/* mixed9 and mixed10: 3x3 as 1x3 and 3x1 side by side. */
static int block_c(inception *net, int x, int number) {
    char name[48];
    int branch[4], pair[2], y;
    branch[0] = same(net, x, 320, 1, 1);
    y = same(net, x, 384, 1, 1);
    pair[0] = same(net, y, 384, 1, 3);
    pair[1] = same(net, y, 384, 3, 1);
    snprintf(name, sizeof name, "mixed9_%d", number - 9);
    branch[1] = concat(net, name, pair, 2);
    y = same(net, same(net, x, 448, 1, 1), 384, 3, 3);
    pair[0] = same(net, y, 384, 1, 3);
    pair[1] = same(net, y, 384, 3, 1);
    branch[2] = concat(net, counted(name, "concatenate", &net->concats), pair, 2);
    branch[3] = pooled(net, x, 192);
    return mixed(net, number, branch, 4);
}

int thaw_inception_build(thaw_builder *b, const thaw_network_options *options, const int *blocks) {
    (void)blocks; /* one size only */
    static const int64_t between[4] = {128, 160, 160, 192}; /* mixed4 to mixed7 */
    inception net = {.b = b};
    int branch[3];
    int x = thaw_builder_input(b, options->input);
    x = unit(&net, x, 32, 3, 3, 2, false);
    x = unit(&net, x, 32, 3, 3, 1, false);
    x = same(&net, x, 64, 3, 3);
    x = max_pool(&net, x);
    x = unit(&net, x, 80, 1, 1, 1, false);
    x = unit(&net, x, 192, 3, 3, 1, false);
    x = max_pool(&net, x);
    for (int i = 0; i < 3; i++)
        x = block_a(&net, x, i);
    branch[0] = halve(&net, x, 384);
    branch[1] = halve(&net, same(&net, same(&net, x, 64, 1, 1), 96, 3, 3), 96);
    branch[2] = max_pool(&net, x);
    x = mixed(&net, 3, branch, 3);
    for (int i = 0; i < 4; i++)
        x = block_b(&net, x, 4 + i, between[i]);
    branch[0] = halve(&net, same(&net, x, 192, 1, 1), 320);
    branch[1] = halve(&net, same(&net, same(&net, same(&net, x, 192, 1, 1), 192, 1, 7), 192, 7, 1), 192);
    branch[2] = max_pool(&net, x);
    x = mixed(&net, 8, branch, 3);
    x = block_c(&net, x, 9);
    x = block_c(&net, x, 10);
    if (options->top) {
        x = thaw_builder_plain(b, x, THAW_LAYER_GLOBAL_AVERAGE_POOLING, "avg_pool");
        return thaw_builder_dense(b, x, "predictions", THAW_IMAGENET_CLASSES, THAW_ACTIVATION_SOFTMAX);
    }
    return thaw_builder_pooling(b, x, options->pooling, "global_average_pooling2d", "global_max_pooling2d");
}
