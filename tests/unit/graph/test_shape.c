/* Adding layers: output shapes by Keras' rules, tensors, refusals, hostile arguments, memory. */
#include "graph_case.h"

/* One layer behind an input (h,w,c), or (h) when w is 0; `layer` is taken over. */
static thaw_status call_on(thaw_model **out, thaw_layer *layer, int64_t h, int64_t w, int64_t c, thaw_shape *shape) {
    thaw_model *model = new_model();
    int in = add_input(model, "in", w ? 3 : 1, h, w, c), node = -1;
    thaw_status status = thaw_model_add(model, layer, &in, 1, &node);
    assert_null(layer->name); /* taken over, also on failure */
    if (status == THAW_OK)
        *shape = model->nodes[node].shape;
    if (status == THAW_OK && out)
        *out = model;
    else
        thaw_model_free(model);
    return status;
}

static void expect_shape(const thaw_shape *shape, int rank, int64_t a, int64_t b, int64_t c, size_t row) {
    if (shape->rank != rank || shape->dim[0] != a || (rank == 3 && (shape->dim[1] != b || shape->dim[2] != c)))
        fail_msg("row %zu: rank %d (%lld, %lld, %lld), expected (%lld, %lld, %lld)", row, shape->rank,
                 (long long)shape->dim[0], (long long)shape->dim[1], (long long)shape->dim[2], (long long)a, (long long)b,
                 (long long)c);
}

static void test_windows(void **state) {
    (void)state;
    static const struct {
        thaw_layer_kind kind;
        int64_t h, w, kh, kw, sh, sw, dh, dw;
        bool same;
        int64_t oh, ow;
    } cases[] = {
        {THAW_LAYER_CONV2D, 7, 9, 3, 3, 1, 1, 1, 1, false, 5, 7},
        {THAW_LAYER_CONV2D, 7, 9, 3, 3, 1, 1, 1, 1, true, 7, 9},
        {THAW_LAYER_CONV2D, 8, 7, 3, 3, 2, 2, 1, 1, true, 4, 4},
        {THAW_LAYER_CONV2D, 8, 7, 3, 3, 2, 2, 1, 1, false, 3, 3},
        {THAW_LAYER_CONV2D, 224, 224, 7, 7, 2, 2, 1, 1, true, 112, 112},
        {THAW_LAYER_CONV2D, 9, 9, 3, 3, 1, 1, 2, 3, false, 5, 3},
        {THAW_LAYER_CONV2D, 9, 9, 3, 3, 1, 1, 4, 5, true, 9, 9},
        {THAW_LAYER_CONV2D, 3, 3, 3, 3, 5, 1, 1, 1, false, 1, 1},
        {THAW_LAYER_CONV2D, 1, 1, 5, 5, 3, 3, 1, 1, true, 1, 1},
        {THAW_LAYER_CONV2D, 10, 6, 1, 7, 1, 2, 1, 1, true, 10, 3},
        {THAW_LAYER_CONV2D, 9, 9, 3, 3, 1, 1, 4, 4, false, 1, 1},
        {THAW_LAYER_MAX_POOLING, 7, 7, 2, 2, 0, 0, 1, 1, false, 3, 3},
        {THAW_LAYER_MAX_POOLING, 7, 8, 2, 2, 0, 0, 1, 1, true, 4, 4},
        {THAW_LAYER_MAX_POOLING, 9, 9, 3, 3, 2, 2, 1, 1, false, 4, 4},
        {THAW_LAYER_AVERAGE_POOLING, 9, 5, 3, 3, 1, 1, 1, 1, true, 9, 5},
        {THAW_LAYER_AVERAGE_POOLING, 6, 6, 6, 3, 0, 0, 1, 1, false, 1, 2},
        {THAW_LAYER_MAX_POOLING, 255, 257, 255, 257, 0, 0, 1, 1, false, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_layer layer;
        thaw_shape shape;
        thaw_layer_default(&layer, cases[i].kind, "l");
        layer.config.filters = 5;
        layer.config.kernel[0] = cases[i].kh, layer.config.kernel[1] = cases[i].kw;
        layer.config.strides[0] = cases[i].sh, layer.config.strides[1] = cases[i].sw;
        layer.config.dilation[0] = cases[i].dh, layer.config.dilation[1] = cases[i].dw;
        layer.config.same = cases[i].same;
        OK(call_on(NULL, &layer, cases[i].h, cases[i].w, 2, &shape));
        expect_shape(&shape, 3, cases[i].oh, cases[i].ow, cases[i].kind == THAW_LAYER_CONV2D ? 5 : 2, i);
    }
}

/* Layers without a window, with arguments through a function. */
static void keepdims(thaw_layer_config *c) { c->keepdims = true; }
static void units(thaw_layer_config *c) { c->filters = 7; }
static void pad(thaw_layer_config *c) { memcpy(c->pad, (int64_t[]){1, 2, 0, 3}, sizeof c->pad); }
static void to_map(thaw_layer_config *c) { memcpy(c->target, (int64_t[]){3, -1, 2}, sizeof c->target), c->target_rank = 3; }
static void to_vector(thaw_layer_config *c) { c->target[0] = 24, c->target_rank = 1; }
static void to_open(thaw_layer_config *c) { c->target[0] = -1, c->target_rank = 1; }

static void test_shapes(void **state) {
    (void)state;
    static const struct {
        thaw_layer_kind kind;
        void (*set)(thaw_layer_config *c);
        int64_t h, w, c;
        int rank;
        int64_t a, b, d;
    } cases[] = {
        {THAW_LAYER_FLATTEN, NULL, 4, 3, 2, 1, 24, 0, 0},        {THAW_LAYER_FLATTEN, NULL, 5, 0, 0, 1, 5, 0, 0},
        {THAW_LAYER_DENSE, units, 5, 0, 0, 1, 7, 0, 0},          {THAW_LAYER_DENSE, units, 4, 3, 2, 3, 4, 3, 7},
        {THAW_LAYER_GLOBAL_AVERAGE_POOLING, NULL, 4, 3, 2, 1, 2, 0, 0},
        {THAW_LAYER_GLOBAL_MAX_POOLING, keepdims, 4, 3, 2, 3, 1, 1, 2},
        {THAW_LAYER_ZERO_PADDING, NULL, 4, 3, 2, 3, 6, 5, 2},    {THAW_LAYER_ZERO_PADDING, pad, 4, 3, 2, 3, 7, 6, 2},
        {THAW_LAYER_RESHAPE, to_map, 4, 3, 2, 3, 3, 4, 2},       {THAW_LAYER_RESHAPE, to_vector, 4, 3, 2, 1, 24, 0, 0},
        {THAW_LAYER_RESHAPE, to_open, 4, 3, 2, 1, 24, 0, 0},     {THAW_LAYER_RESHAPE, to_map, 18, 0, 0, 3, 3, 3, 2},
        {THAW_LAYER_BATCH_NORMALIZATION, NULL, 4, 3, 2, 3, 4, 3, 2},
        {THAW_LAYER_BATCH_NORMALIZATION, NULL, 6, 0, 0, 1, 6, 0, 0},
        {THAW_LAYER_DROPOUT, NULL, 4, 3, 2, 3, 4, 3, 2},         {THAW_LAYER_SOFTMAX, NULL, 6, 0, 0, 1, 6, 0, 0},
        {THAW_LAYER_RELU, NULL, 4, 3, 2, 3, 4, 3, 2},            {THAW_LAYER_RESCALING, NULL, 4, 3, 2, 3, 4, 3, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_layer layer;
        thaw_shape shape;
        thaw_layer_default(&layer, cases[i].kind, "l");
        if (cases[i].set)
            cases[i].set(&layer.config);
        OK(call_on(NULL, &layer, cases[i].h, cases[i].w, cases[i].c, &shape));
        expect_shape(&shape, cases[i].rank, cases[i].a, cases[i].b, cases[i].d, i);
    }
}

static void test_merges(void **state) {
    (void)state;
    thaw_model *model = new_model();
    int in = add_input(model, "in", 3, 4, 4, 2), a = add_conv(model, "a", in, 2, 3), b = add_conv(model, "b", in, 5, 1);
    int node = add_merge(model, THAW_LAYER_CONCATENATE, "cat", (int[]){a, b, a}, 3);
    expect_shape(&model->nodes[node].shape, 3, 4, 4, 9, 0);
    node = add_merge(model, THAW_LAYER_ADD, "sum", (int[]){a, in, a}, 3);
    expect_shape(&model->nodes[node].shape, 3, 4, 4, 2, 1);
    int flat = add_plain(model, THAW_LAYER_FLATTEN, "flat", in), gap;
    gap = add_plain(model, THAW_LAYER_GLOBAL_MAX_POOLING, "gmp", in);
    node = add_merge(model, THAW_LAYER_CONCATENATE, "vectors", (int[]){flat, gap}, 2);
    expect_shape(&model->nodes[node].shape, 1, 34, 0, 0, 2);

    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_ADD, "bad_sum");
    expect(thaw_model_add(model, &layer, (int[]){a, b}, 2, &node), THAW_DATA, "bad_sum|(4, 4, 2)|(4, 4, 5)|equal");
    thaw_layer_default(&layer, THAW_LAYER_ADD, "bad_sum");
    expect(thaw_model_add(model, &layer, (int[]){in, flat}, 2, &node), THAW_DATA, "bad_sum|(4, 4, 2)|(32)");
    thaw_layer_default(&layer, THAW_LAYER_CONCATENATE, "bad_cat");
    expect(thaw_model_add(model, &layer, (int[]){in, flat}, 2, &node), THAW_DATA, "bad_cat|all dims but the last");
    thaw_layer_default(&layer, THAW_LAYER_ADD, "empty");
    expect(thaw_model_add(model, &layer, NULL, 0, &node), THAW_DATA, "empty|at least 1 input|found 0");
    thaw_layer_default(&layer, THAW_LAYER_FLATTEN, "two");
    expect(thaw_model_add(model, &layer, (int[]){a, b}, 2, &node), THAW_DATA, "two|Flatten takes 1 input|found 2");
    thaw_layer_default(&layer, THAW_LAYER_FLATTEN, "ahead");
    expect(thaw_model_add(model, &layer, (int[]){99}, 1, &node), THAW_DATA, "ahead|99");
    thaw_layer_default(&layer, THAW_LAYER_FLATTEN, "flat");
    expect(thaw_model_add(model, &layer, &a, 1, &node), THAW_DATA, "flat|unique");
    thaw_layer_default(&layer, THAW_LAYER_FLATTEN, "");
    expect(thaw_model_add(model, &layer, &a, 1, &node), THAW_DATA, "Flatten|no name");
    thaw_layer_default(&layer, THAW_LAYER_INPUT, "in2");
    expect(thaw_model_add(model, &layer, NULL, 0, &node), THAW_DATA, "in2|second InputLayer");
    thaw_model_free(model);
}

/* Names, shapes and initializers of tensors in Keras' order. */
static void test_tensors(void **state) {
    (void)state;
    thaw_model *model = new_model();
    int in = add_input(model, "in", 3, 4, 6, 2), node;
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_CONV2D, "conv");
    layer.config.filters = 5;
    layer.config.kernel[0] = 1;
    layer.config.kernel[1] = 3;
    int conv = add_layer(model, &layer, in);
    const thaw_layer *l = &model->layers[1];
    assert_int_equal(l->n_tensors, 2);
    assert_string_equal(l->tensors[0].name, "kernel");
    assert_memory_equal(l->tensors[0].shape, ((int64_t[]){1, 3, 2, 5}), 4 * sizeof(int64_t));
    assert_int_equal(l->tensors[0].count, 30);
    assert_int_equal(l->tensors[0].initializer, THAW_INIT_GLOROT_UNIFORM);
    assert_string_equal(l->tensors[1].name, "bias");
    assert_int_equal(l->tensors[1].rank, 1);
    assert_int_equal(l->tensors[1].count, 5);
    assert_int_equal(l->tensors[1].initializer, THAW_INIT_CONSTANT);
    assert_null(l->tensors[0].data);

    int norm = add_plain(model, THAW_LAYER_BATCH_NORMALIZATION, "bn", conv);
    static const char *const names[] = {"gamma", "beta", "moving_mean", "moving_variance"};
    l = &model->layers[2];
    assert_int_equal(l->n_tensors, 4);
    for (int t = 0; t < 4; t++) {
        assert_string_equal(l->tensors[t].name, names[t]);
        assert_int_equal(l->tensors[t].count, 5);
        assert_int_equal(l->tensors[t].statistic, t >= 2);
        assert_true(l->tensors[t].init_a == (t % 3 == 0 ? 1.0f : 0.0f));
    }
    thaw_layer_default(&layer, THAW_LAYER_BATCH_NORMALIZATION, "bare");
    layer.config.scale = layer.config.center = false;
    int bare = add_layer(model, &layer, norm);
    assert_int_equal(model->layers[3].n_tensors, 2);
    assert_string_equal(model->layers[3].tensors[0].name, "moving_mean");

    thaw_layer_default(&layer, THAW_LAYER_DENSE, "fc");
    layer.config.filters = 3;
    layer.config.use_bias = false;
    int fc = add_layer(model, &layer, add_plain(model, THAW_LAYER_FLATTEN, "flat", bare));
    l = &model->layers[5];
    assert_int_equal(l->n_tensors, 1);
    assert_memory_equal(l->tensors[0].shape, ((int64_t[]){4 * 4 * 5, 3}), 2 * sizeof(int64_t));
    assert_ptr_equal(thaw_layer_tensor(&model->layers[5], "kernel"), &l->tensors[0]);
    assert_null(thaw_layer_tensor(&model->layers[5], "bias"));

    bool flags[6] = {true, true, true, false, true, false};
    int64_t total, trained, frozen;
    OK(thaw_model_finish(model, fc, true));
    thaw_model_count(model, NULL, &total, &trained, &frozen);
    assert_int_equal(total, 35 + 20 + 10 + 240);
    assert_int_equal(trained, 35 + 10 + 240);
    assert_int_equal(frozen, 10 + 10);
    thaw_model_count(model, flags, NULL, &trained, &frozen);
    assert_int_equal(trained, 35 + 10);
    assert_int_equal(frozen, 10 + 10 + 240);

    OK(thaw_model_call(model, 2, &conv, 1, &node)); /* the same channels */
    expect(thaw_model_call(model, 2, &in, 1, &node), THAW_DATA, "bn|(4, 6, 2)|gamma");
    expect(thaw_model_call(model, 1, &conv, 1, &node), THAW_DATA, "conv|(4, 4, 5)|kernel");
    expect(thaw_model_call(model, 0, &in, 1, &node), THAW_DATA, "in|InputLayer");
    thaw_model_free(model);
}

static void test_rescaling(void **state) {
    (void)state;
    thaw_layer layer;
    thaw_shape shape;
    thaw_model *model;
    size_t before = thaw_memory_live();
    thaw_layer_default(&layer, THAW_LAYER_RESCALING, "r");
    OK(call_on(&model, &layer, 4, 4, 3, &shape));
    assert_int_equal(model->layers[1].config.n_rescale, 1);
    assert_float_equal(model->layers[1].config.rescale[0], 1.0f, 0.0f);
    assert_float_equal(model->layers[1].config.offset[0], 0.0f, 0.0f);
    thaw_model_free(model);
    for (int n = 2; n <= 3; n++) {
        thaw_layer_default(&layer, THAW_LAYER_RESCALING, "r");
        layer.config.n_rescale = n;
        layer.config.rescale = thaw_calloc((size_t)n, sizeof(float));
        if (n == 3) {
            OK(call_on(NULL, &layer, 4, 4, 3, &shape));
        } else {
            expect(call_on(NULL, &layer, 4, 4, 3, &shape), THAW_DATA, "r|2 values on 3 channels");
        }
    }
    thaw_layer_default(&layer, THAW_LAYER_RESCALING, "r");
    layer.config.n_rescale = 1;
    layer.config.offset = thaw_calloc(1, sizeof(float));
    layer.config.offset[0] = NAN;
    expect(call_on(NULL, &layer, 4, 4, 3, &shape), THAW_DATA, "r|finite");
    assert_true(thaw_memory_live() == before);
}

/* Arguments that are wrong, absurd or hostile: an error that names the layer, never an overflow. */
static void conv(thaw_layer_config *c, int64_t filters, int64_t kernel, int64_t stride, int64_t dilation, bool same) {
    c->filters = filters;
    c->kernel[0] = c->kernel[1] = kernel;
    c->strides[0] = c->strides[1] = stride;
    c->dilation[0] = c->dilation[1] = dilation;
    c->same = same;
}

static void no_filters(thaw_layer_config *c) { conv(c, 0, 3, 1, 1, true); }
static void no_kernel(thaw_layer_config *c) { conv(c, 4, 0, 1, 1, true); }
static void no_stride(thaw_layer_config *c) { conv(c, 4, 3, 0, 1, true); }
static void bad_dilation(thaw_layer_config *c) { conv(c, 4, 3, 1, -2, true); }
static void both(thaw_layer_config *c) { conv(c, 4, 3, 2, 2, true); }
static void too_large(thaw_layer_config *c) { conv(c, 4, 7, 1, 1, false); }
static void wide_reach(thaw_layer_config *c) { conv(c, 4, 4, 1, 2, false); }
static void huge_filters(thaw_layer_config *c) { conv(c, INT64_MAX, 3, 1, 1, true); }
static void many_filters(thaw_layer_config *c) { conv(c, INT32_MAX, 3, 1, 1, true); }
static void huge_kernel(thaw_layer_config *c) { conv(c, 4, INT32_MAX, 1, 1, true); }
static void huge_reach(thaw_layer_config *c) { conv(c, 4, INT32_MAX, 1, INT32_MAX, false); }
static void huge_stride(thaw_layer_config *c) { conv(c, 4, 3, INT64_MAX, 1, true); }
static void huge_pool(thaw_layer_config *c) { c->kernel[0] = c->kernel[1] = 256, c->same = true; }
static void no_pool(thaw_layer_config *c) { c->kernel[1] = 0; }
static void no_units(thaw_layer_config *c) { c->filters = -3; }
static void huge_units(thaw_layer_config *c) { c->filters = INT32_MAX; }
static void negative_pad(thaw_layer_config *c) { c->pad[2] = -1; }
static void huge_pad(thaw_layer_config *c) { c->pad[0] = INT64_MAX; }
static void large_pad(thaw_layer_config *c) { c->pad[0] = c->pad[1] = c->pad[2] = c->pad[3] = INT32_MAX; }
static void rank_2(thaw_layer_config *c) { c->target_rank = 2, c->target[0] = 5, c->target[1] = 10; }
static void two_open(thaw_layer_config *c) { to_map(c), c->target[0] = -1; }
static void wrong_count(thaw_layer_config *c) { c->target_rank = 1, c->target[0] = 51; }
static void not_divisible(thaw_layer_config *c) { to_map(c), c->target[0] = 7; }
static void huge_target(thaw_layer_config *c) { to_map(c), c->target[0] = c->target[2] = INT64_MAX; }
static void zero_target(thaw_layer_config *c) { to_map(c), c->target[0] = 0; }
static void rate_one(thaw_layer_config *c) { c->rate = 1.0f; }
static void rate_nan(thaw_layer_config *c) { c->rate = NAN; }
static void bad_epsilon(thaw_layer_config *c) { c->epsilon = -1.0f; }
static void bad_momentum(thaw_layer_config *c) { c->momentum = 1.5f; }
static void bad_slope(thaw_layer_config *c) { c->negative_slope = INFINITY; }
static void bad_max(thaw_layer_config *c) { c->max_value = NAN; }
static void nothing(thaw_layer_config *c) { (void)c; }

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        thaw_layer_kind kind;
        void (*set)(thaw_layer_config *c);
        int64_t h; /* input (h,5,2), or a vector of -h */
        const char *parts;
    } cases[] = {
        {THAW_LAYER_CONV2D, no_filters, 5, "bad|filters|1|found 0"},
        {THAW_LAYER_CONV2D, no_kernel, 5, "bad|kernel_size|found 0"},
        {THAW_LAYER_CONV2D, no_stride, 5, "bad|strides|found 0"},
        {THAW_LAYER_CONV2D, bad_dilation, 5, "bad|dilation_rate|found -2"},
        {THAW_LAYER_CONV2D, both, 5, "bad|strides (2, 2)|dilation_rate (2, 2)"},
        {THAW_LAYER_CONV2D, too_large, 5, "bad|window of 7 rows|(5, 5, 2)|larger input"},
        {THAW_LAYER_CONV2D, wide_reach, 7, "bad|window of 7 columns|(7, 5, 2)"},
        {THAW_LAYER_CONV2D, huge_filters, 5, "bad|filters"},
        {THAW_LAYER_CONV2D, many_filters, 5, "bad|2^31"},
        {THAW_LAYER_CONV2D, huge_kernel, 5, "bad|kernel|2^36"},
        {THAW_LAYER_CONV2D, huge_reach, 5, "bad|window"},
        {THAW_LAYER_CONV2D, huge_stride, 5, "bad|strides"},
        {THAW_LAYER_CONV2D, nothing, 5, "bad|kernel_size"},
        {THAW_LAYER_CONV2D, too_large, -9, "bad|Conv2D|map|vector of 9"},
        {THAW_LAYER_MAX_POOLING, huge_pool, 5, "bad|256 x 256|65535"},
        {THAW_LAYER_AVERAGE_POOLING, no_pool, 5, "bad|pool_size|found 0"},
        {THAW_LAYER_MAX_POOLING, nothing, -4, "bad|MaxPooling2D|vector of 4"},
        {THAW_LAYER_MAX_POOLING, nothing, 1, "bad|window of 2 rows"},
        {THAW_LAYER_GLOBAL_AVERAGE_POOLING, nothing, -4, "bad|GlobalAveragePooling2D|vector of 4"},
        {THAW_LAYER_ZERO_PADDING, nothing, -4, "bad|ZeroPadding2D|vector of 4"},
        {THAW_LAYER_ZERO_PADDING, negative_pad, 5, "bad|padding|found -1"},
        {THAW_LAYER_ZERO_PADDING, huge_pad, 5, "bad|padding"},
        {THAW_LAYER_ZERO_PADDING, large_pad, 5, "bad|2^31"},
        {THAW_LAYER_DENSE, no_units, -4, "bad|units|found -3"},
        {THAW_LAYER_DENSE, huge_units, -1000, "bad|2^36"},
        {THAW_LAYER_RESHAPE, rank_2, 5, "bad|Reshape to 2 dims"},
        {THAW_LAYER_RESHAPE, nothing, 5, "bad|Reshape to 0 dims"},
        {THAW_LAYER_RESHAPE, two_open, 5, "bad|Reshape to (-1, -1, 2)|50 values"},
        {THAW_LAYER_RESHAPE, wrong_count, 5, "bad|Reshape to (51)|50 values|(5, 5, 2)"},
        {THAW_LAYER_RESHAPE, not_divisible, 5, "bad|Reshape to (7, -1, 2)"},
        {THAW_LAYER_RESHAPE, huge_target, 5, "bad|Reshape to (9223372036854775807, -1, 9223372036854775807)"},
        {THAW_LAYER_RESHAPE, zero_target, 5, "bad|Reshape to (0, -1, 2)"},
        {THAW_LAYER_DROPOUT, rate_one, 5, "bad|rate|found 1"},
        {THAW_LAYER_DROPOUT, rate_nan, 5, "bad|rate"},
        {THAW_LAYER_BATCH_NORMALIZATION, bad_epsilon, 5, "bad|epsilon|found -1"},
        {THAW_LAYER_BATCH_NORMALIZATION, bad_momentum, 5, "bad|momentum|1.5"},
        {THAW_LAYER_RELU, bad_slope, 5, "bad|negative_slope|inf"},
        {THAW_LAYER_RELU, bad_max, 5, "bad|max_value"},
        {THAW_LAYER_KINDS, nothing, 5, "bad|unknown kind"},
    };
    size_t before = thaw_memory_live();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_layer layer;
        thaw_shape shape;
        thaw_layer_default(&layer, cases[i].kind, "bad");
        cases[i].set(&layer.config);
        bool vector = cases[i].h < 0;
        expect(call_on(NULL, &layer, vector ? -cases[i].h : cases[i].h, vector ? 0 : 5, vector ? 0 : 2, &shape), THAW_DATA,
               cases[i].parts);
    }
    assert_true(thaw_memory_live() == before);
}

static void test_inputs(void **state) {
    (void)state;
    static const struct {
        int rank;
        int64_t shape[3];
        const char *parts;
    } cases[] = {{3, {0, 4, 3}, "(0, 4, 3)"},
                 {3, {4, -1, 3}, "(4, -1, 3)"},
                 {3, {INT64_MAX, INT64_MAX, INT64_MAX}, "2^31"},
                 {3, {65536, 32768, 1}, "2^31"},
                 {2, {4, 4, 0}, "2 dims"},
                 {0, {4, 4, 4}, "0 dims"},
                 {1000, {4, 4, 4}, "1000 dims"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_model *model = new_model();
        thaw_layer layer;
        int node;
        thaw_layer_default(&layer, THAW_LAYER_INPUT, "in");
        layer.config.target_rank = cases[i].rank;
        memcpy(layer.config.target, cases[i].shape, sizeof layer.config.target);
        expect(thaw_model_add(model, &layer, NULL, 0, &node), THAW_DATA, cases[i].parts);
        assert_int_equal(model->n_layers + model->n_nodes, 0);
        thaw_model_free(model);
    }
}

static void test_limits(void **state) { /* of the number of layers */
    (void)state;
    thaw_model *model = new_model();
    int x = add_input(model, "in", 1, 1, 0, 0), node;
    add_plain(model, THAW_LAYER_RELU, "relu", x);
    thaw_status status = THAW_OK;
    int calls = 2;
    for (; status == THAW_OK && calls < 100000; calls++)
        status = thaw_model_call(model, 1, &x, 1, &node);
    expect(status, THAW_DATA, "relu|16384");
    assert_int_equal(calls, 16385);
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_RELU, "one_more");
    expect(thaw_model_add(model, &layer, &x, 1, &node), THAW_DATA, "one_more|16384");
    thaw_model_free(model);
}

static void test_names(void **state) {
    (void)state;
    thaw_activation activation;
    assert_string_equal(thaw_layer_class(THAW_LAYER_CONV2D), "Conv2D");
    assert_string_equal(thaw_layer_class(THAW_LAYER_RESCALING), "Rescaling");
    assert_string_equal(thaw_activation_name(THAW_ACTIVATION_RELU6), "relu6");
    for (int i = 0; i < THAW_ACTIVATIONS; i++) {
        assert_true(thaw_activation_parse(&activation, thaw_activation_name((thaw_activation)i)));
        assert_int_equal(activation, i);
    }
    assert_true(thaw_activation_parse(&activation, "silu"));
    assert_int_equal(activation, THAW_ACTIVATION_SWISH);
    assert_false(thaw_activation_parse(&activation, "gelu"));
    assert_false(thaw_activation_parse(&activation, "Relu"));
}

static void test_no_memory(void **state) {
    (void)state;
    size_t before = thaw_memory_live();
    for (int64_t n = 1;; n++) {
        thaw_model *model = NULL;
        thaw_layer layer;
        int node = 0, x = 0;
        thaw_memory_fail_after(n);
        thaw_status status = thaw_model_create(&model, "m");
        for (int i = 0; status == THAW_OK && i < 3; i++) {
            thaw_layer_default(&layer, i == 0 ? THAW_LAYER_INPUT : i == 1 ? THAW_LAYER_RESCALING : THAW_LAYER_DENSE,
                               i == 0 ? "in" : i == 1 ? "scale" : "fc");
            layer.config.target_rank = 1;
            layer.config.target[0] = layer.config.filters = 5;
            status = thaw_model_add(model, &layer, &x, i > 0, &node);
            x = node;
        }
        if (status == THAW_OK)
            status = thaw_model_finish(model, x, true);
        if (status == THAW_OK)
            status = thaw_model_allocate(model);
        thaw_memory_fail_after(-1);
        thaw_model_free(model);
        assert_true(thaw_memory_live() == before);
        if (status == THAW_OK)
            break;
        assert_int_equal(status, THAW_RESOURCE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows), cmocka_unit_test(test_shapes),    cmocka_unit_test(test_merges),
        cmocka_unit_test(test_tensors), cmocka_unit_test(test_rescaling), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_inputs),  cmocka_unit_test(test_limits),    cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
