/* Plans: marks, boundary, flat order, figures of known networks, places in the arena. */
#include "networks.h"

#include "graph/mark.h"

/* VGG16 with the head of jobs/vgg16-cats-dogs.yaml. */
static thaw_model *vgg16_of(int64_t size) {
    thaw_builtin_options options = {.include_top = false, .input_shape = {size, size, 3}, .pooling = "none"};
    thaw_model *m = NULL;
    OK(thaw_builtin_build(&m, "vgg16", &options));
    int x = LAYER(FLATTEN, "flatten", m->output, .head = true);
    x = DENSE("fc1", x, .filters = 256, .act = THAW_ACTIVATION_RELU, .head = true);
    x = DENSE("predictions", x, .filters = 1, .act = THAW_ACTIVATION_SIGMOID, .head = true);
    OK(thaw_model_finish(m, x, true));
    return m;
}

static thaw_model *vgg16(void) { return vgg16_of(150); }

/* Freezes the base (`stop` NULL), or all before layer `stop`. */
static thaw_plan *compile(const thaw_model *m, const char *stop, int64_t batch, int slots) {
    bool *trainable = thaw_calloc((size_t)m->n_layers, sizeof *trainable);
    int first = stop ? thaw_model_find(m, stop) : m->n_base_layers;
    for (int i = 0; i < m->n_layers; i++)
        trainable[i] = i >= first;
    thaw_plan_request request = {m, trainable, NULL, batch, 0, slots, 1};
    thaw_plan *plan = NULL;
    OK(thaw_plan_compile(&plan, &request));
    thaw_free(trainable);
    return plan;
}

static const char *boundary_of(const thaw_plan *plan) {
    static char text[512];
    text[0] = 0;
    for (int i = 0; i < plan->n_boundary; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? " " : "",
                 plan->model->layers[plan->model->nodes[plan->boundary[i]].layer].name);
    return text;
}

/* Layers in the order of the flat block. */
static const char *order_of(const thaw_plan *plan) {
    static char text[4096];
    text[0] = 0;
    for (int i = 0; i < plan->n_tensors; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s/%s", i ? " " : "",
                 plan->model->layers[plan->tensors[i].layer].name,
                 plan->model->layers[plan->tensors[i].layer].tensors[plan->tensors[i].tensor].name);
    return text;
}

static double conv_flop(double cells, double cin, double cout) { return 2.0 * 9.0 * cells * cin * cout; }

static void test_vgg16(void **state) {
    (void)state;
    thaw_model *m = vgg16();
    thaw_plan *head = compile(m, NULL, 8, 1), *fine = compile(m, "block5_conv1", 8, 1), *whole = compile(m, "block1_conv1", 8, 0);
    assert_int_equal(head->total_params, 16812353);
    assert_int_equal(head->trainable_params, 2097665);
    assert_int_equal(head->frozen_params, 14714688);
    assert_int_equal(head->gradient_bytes, 8390660);
    assert_int_equal(head->full_gradient_bytes, 67249412);
    assert_string_equal(boundary_of(head), "block5_pool");
    assert_string_equal(order_of(head), "predictions/kernel predictions/bias fc1/kernel fc1/bias");
    assert_int_equal(fine->trainable_params, 9177089);
    assert_int_equal(fine->frozen_params, 7635264);
    assert_int_equal(fine->gradient_bytes, 36708356);
    assert_int_equal(fine->full_gradient_bytes, 67249412);
    assert_string_equal(boundary_of(fine), "block4_pool");
    assert_string_equal(order_of(fine), "predictions/kernel predictions/bias fc1/kernel fc1/bias block5_conv3/kernel "
                                        "block5_conv3/bias block5_conv2/kernel block5_conv2/bias block5_conv1/kernel "
                                        "block5_conv1/bias");
    assert_int_equal(whole->gradient_bytes, whole->full_gradient_bytes);
    assert_int_equal(whole->n_boundary, 0);
    assert_int_equal(head->final, THAW_ACTIVATION_SIGMOID);
    assert_int_equal(head->outputs, 1);

    const double sizes[] = {150, 150, 75, 75, 37, 37, 37, 18, 18, 18, 9, 9, 9};
    const double channels[] = {3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512};
    double conv[13], all = 0.0, dense = 2.0 * 8192.0 * 256.0 + 2.0 * 256.0;
    for (int i = 0; i < 13; i++)
        all += conv[i] = conv_flop(sizes[i] * sizes[i], channels[i], channels[i + 1]);
    assert_true(fabs(head->forward_flop - all - dense) < 1.0);
    assert_true(fabs(head->prefix_flop - all) < 1.0);
    assert_true(fabs(head->backward_flop - 2.0 * 8192.0 * 256.0 - 2.0 * 512.0) < 1.0); /* no gradient of the boundary */
    assert_true(fabs(fine->prefix_flop - (all - conv[10] - conv[11] - conv[12])) < 1.0);
    assert_true(fabs(fine->backward_flop - 2.0 * dense - conv[10] - 2.0 * (conv[11] + conv[12])) < 1.0);
    assert_true(fabs(whole->backward_flop - whole->full_backward_flop) < 1.0);
    assert_true(fabs(whole->full_backward_flop - 2.0 * dense - conv[0] - 2.0 * (all - conv[0])) < 1.0);
    assert_true(fabs(head->full_backward_flop - whole->full_backward_flop) < 1.0);

    /* Memory: what must be held at least, and that freezing holds less. */
    const thaw_plan_memory *a = &head->memory, *b = &fine->memory, *c = &whole->memory;
    assert_int_equal(a->input, 8 * 150 * 150 * 3 * 4);
    assert_int_equal(a->boundary, 8 * 4 * 4 * 512 * 4);
    assert_int_equal(b->boundary, 8 * 9 * 9 * 512 * 4);
    assert_int_equal(c->boundary, 0);
    assert_int_equal(c->prefix, 0);
    assert_true(a->gradients >= 8390660 && a->gradients < 8390660 + 4 * 64);
    assert_int_equal(a->optimizer, a->gradients);
    assert_int_equal(c->optimizer, 0);
    assert_true(a->weights >= 16812353u * 4);
    /* The first map and the second, which is pooled on the way, at a time. */
    assert_true(4u * a->prefix >= 5u * 8 * 150 * 150 * 64 * 4 && 2u * a->prefix < 3u * 8 * 150 * 150 * 64 * 4);
    assert_true(a->suffix < b->suffix && b->suffix < c->suffix);
    assert_true(head->memory_bytes < fine->memory_bytes && fine->memory_bytes < whole->memory_bytes);
    assert_int_equal(head->memory_bytes, a->weights + a->packed + a->gradients + a->optimizer + a->prefix + a->boundary +
                                             a->suffix + a->scratch + a->input);
    /* A large batch passes the frozen layers in pieces, unless they are all there is. */
    thaw_plan *large = compile(m, NULL, 64, 1), *all_of_it = NULL;
    thaw_plan_request inference = {m, NULL, NULL, 64, 0, 0, 1};
    OK(thaw_plan_compile(&all_of_it, &inference));
    assert_int_equal(head->prefix_batch, 8);
    assert_int_equal(large->prefix_batch, 32); /* 64 images in two pieces */
    assert_int_equal(large->memory.prefix, 4 * a->prefix);
    assert_int_equal(large->memory.boundary, 8 * a->boundary);
    assert_int_equal(all_of_it->prefix_batch, 64);
    thaw_plan_free(large);
    thaw_plan_free(all_of_it);
    thaw_plan_free(head);
    thaw_plan_free(fine);
    thaw_plan_free(whole);
    thaw_model_free(m);
}

/* Steps of few images have their prefix together, as many as what is there for them stays small. */
static void test_together(void **state) {
    (void)state;
    static const struct {
        int64_t size;
        const char *stop;
        int64_t max, step;
        int together;
        int64_t images;
    } cases[] = {{150, NULL, 4, 4, 4, 16},          {150, NULL, 64, 4, 4, 64},          {150, NULL, 5, 5, 3, 15},
                 {150, NULL, 9, 9, 1, 9},           {150, NULL, 16, 16, 1, 16},         {150, NULL, 1, 1, 16, 16},
                 {150, NULL, 1, 0, 1, 1},           {150, "block1_conv1", 4, 4, 1, 4},  {150, "block2_conv1", 1, 1, 16, 16},
                 {150, "block1_conv2", 4, 4, 4, 16}, {224, NULL, 1, 1, 14, 14},          {224, "block1_conv2", 1, 1, 9, 9},
                 {512, NULL, 1, 1, 2, 2},           {512, NULL, 2, 2, 1, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_model *m = vgg16_of(cases[i].size);
        bool *trains = thaw_calloc((size_t)m->n_layers, sizeof *trains);
        for (int k = 0; k < m->n_layers; k++)
            trains[k] = k >= (cases[i].stop ? thaw_model_find(m, cases[i].stop) : m->n_base_layers);
        thaw_plan_request request = {m, trains, NULL, cases[i].max, cases[i].step, 1, 1};
        thaw_plan *plan = NULL;
        OK(thaw_plan_compile(&plan, &request));
        if (plan->together != cases[i].together || plan->prefix_images != cases[i].images)
            fail_msg("case %d: %d steps together, %lld images", (int)i, plan->together, (long long)plan->prefix_images);
        const int64_t slots = cases[i].images + (plan->together > 1 ? plan->together * cases[i].step : 0);
        assert_int_equal(plan->memory.boundary, slots * thaw_plan_boundary_floats(plan) * 4);
        assert_int_equal(plan->memory.input, cases[i].images * cases[i].size * cases[i].size * 3 * 4);
        thaw_plan_free(plan);
        thaw_free(trains);
        thaw_model_free(m);
    }
}

static void test_hash(void **state) {
    (void)state;
    thaw_model *m = vgg16(), *again = vgg16();
    thaw_plan *a = compile(m, NULL, 8, 1), *b = compile(again, NULL, 8, 1), *c = compile(m, "block5_conv1", 8, 1),
              *d = compile(m, NULL, 3, 1); /* ranks have shares of different sizes */
    assert_true(thaw_plan_hash(a) == thaw_plan_hash(b));
    assert_true(thaw_plan_hash(a) != thaw_plan_hash(c));
    assert_true(thaw_plan_hash(a) == thaw_plan_hash(d));
    thaw_plan_free(a);
    thaw_plan_free(b);
    thaw_plan_free(c);
    thaw_plan_free(d);
    thaw_plan_free(NULL);
    thaw_model_free(m);
    thaw_model_free(again);
}

/* Marks and boundary of small networks. */
static void expect_plan(int (*build)(thaw_model *), const char *frozen, bool batch, const char *prefix, const char *boundary) {
    setup *s = set_up(make_model(build), frozen, batch, NULL);
    char text[1024] = "";
    for (int i = 0; i < s->model->n_nodes; i++) {
        assert_int_equal(s->plan->prefix[i], !s->plan->needs_grad[i] && !s->plan->varies[i]);
        if (s->plan->prefix[i])
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", *text ? " " : "",
                     s->model->layers[s->model->nodes[i].layer].name);
    }
    assert_string_equal(text, prefix);
    assert_string_equal(boundary_of(s->plan), boundary);
    tear_down(s);
}

static int build_unmoved(thaw_model *m) { /* a norm without gamma and beta, trainable: only its statistics move */
    int x = CONV("a", add_input(m, "input", 3, 3, 3, 2), .filters = 2, .kh = 1);
    x = LAYER(BATCH_NORMALIZATION, "norm", x, .no_scale = true, .no_center = true);
    return DENSE("out", PLAIN(FLATTEN, "flatten", x), .filters = 1);
}

static void test_marks(void **state) {
    (void)state;
    expect_plan(build_deep, "", false, "input", "");
    expect_plan(build_deep, "one", false, "input one", "one");
    expect_plan(build_deep, "one two norm_two three norm_three", false,
                "input one two norm_two act_two pool three norm_three act_three flatten", "act_three");
    /* A frozen middle is no prefix. */
    expect_plan(build_deep, "two norm_two three norm_three", false, "input", "");
    /* A frozen norm has no batch statistics, a trainable one ends the prefix. */
    expect_plan(build_deep, "one two norm_two three", true, "input one two norm_two act_two pool three", "three");
    /* A dropout ends it; what it reads crosses. */
    expect_plan(build_dropout, "a b", false, "input", "");
    expect_plan(build_two_branches, "a norm b frozen left right again", false,
                "input pad a norm act b left right again frozen sum", "b frozen sum");
    expect_plan(build_two_branches, "a norm b frozen", false, "input pad a norm act b frozen", "act b frozen");
    expect_plan(build_padding, "a", false, "input pad_a a pad_b p", "pad_b p");
    expect_plan(build_unmoved, "a", false, "input a norm flatten", "norm");
    expect_plan(build_unmoved, "a", true, "input a", "a");
    /* Without flags all is one prefix. */
    setup *s = set_up(make_model(build_dropout), NULL, true, NULL);
    for (int i = 0; i < s->model->n_nodes; i++)
        assert_true(s->plan->prefix[i]);
    assert_int_equal(s->plan->n_boundary, 0);
    assert_int_equal(s->plan->n_tensors, 0);
    assert_int_equal(s->plan->n_buckets, 0);
    assert_int_equal(s->plan->gradient_bytes, 0);
    assert_int_equal(s->plan->trainable_params, 0);
    assert_null(s->plan->tape_train);
    tear_down(s);
}

/* Folding: what the prefix of a frozen convolution, norm and activation comes down to. */
static void test_folding(void **state) {
    (void)state;
    setup *s = set_up(make_model(build_two_branches), "a norm b frozen left right again drop", false, NULL);
    const thaw_tape *tape = s->plan->tape_prefix;
    int convs = 0, folded = 0;
    for (int i = 0; i < tape->n_ops; i++) {
        convs += tape->ops[i].kind == THAW_OP_CONV;
        folded += tape->ops[i].kind == THAW_OP_CONV && tape->packs[tape->ops[i].pack].norm >= 0;
        assert_true(tape->ops[i].kind == THAW_OP_CONV || tape->ops[i].kind == THAW_OP_ADD);
    }
    assert_int_equal(convs, 6);
    assert_int_equal(folded, 1);
    assert_int_equal(tape->ops[0].window.pad_top, 1); /* the padding went in too */
    assert_int_equal(tape->ops[0].act, THAW_ACTIVATION_RELU);
    tear_down(s);
}

/* Packed kernels: forward for each convolution, backward only where a data gradient is wanted, one for both forms of the
 * suffix, made again only where trained. */
static void test_packs(void **state) {
    (void)state;
    thaw_model *m = vgg16();
    bool *trainable = thaw_calloc((size_t)m->n_layers, sizeof *trainable);
    for (int i = 0; i < m->n_layers; i++) {
        const char *name = m->layers[i].name;
        trainable[i] = strcmp(name, "block5_conv1") == 0 || strcmp(name, "block5_conv3") == 0;
    }
    thaw_plan_request request = {m, trainable, NULL, 2, 0, 1, 1};
    thaw_plan *plan = NULL;
    assert_int_equal(thaw_plan_compile(&plan, &request), THAW_OK);
    const thaw_tape *prefix = plan->tape_prefix, *train = plan->tape_train, *infer = plan->tape_infer;
    assert_int_equal(prefix->n_packs, 10);
    assert_int_equal(train->n_packs, 5);
    assert_int_equal(infer->n_packs, 3);
    size_t floats[2] = {0}; /* of packs that stay, of those to refresh */
    for (int i = 0; i < train->n_packs; i++) {
        const thaw_pack *pack = &train->packs[i];
        assert_int_equal(pack->kind, THAW_PACK_CONV);
        assert_false(pack->lent);
        assert_int_equal(pack->refresh, trainable[pack->layer]);
        assert_int_equal(pack->offset, floats[pack->refresh]);
        assert_true(!pack->backward || strcmp(m->layers[pack->layer].name, "block5_conv1") != 0);
        floats[pack->refresh] += pack->count;
    }
    assert_int_equal(train->constant_floats, floats[0]);
    assert_int_equal(train->pack_floats, floats[1]);
    assert_true(floats[0] > 0 && floats[1] > 0); /* of the frozen layer in the middle, of the trained ones */
    for (int i = 0; i < infer->n_packs; i++) {
        assert_true(infer->packs[i].lent && !infer->packs[i].backward);
        assert_int_equal(infer->packs[i].offset, train->packs[i].offset);
        assert_int_equal(infer->packs[i].layer, train->packs[i].layer);
    }
    assert_int_equal(infer->pack_floats + infer->constant_floats + prefix->pack_floats, 0);
    assert_int_equal(plan->memory.packed, (prefix->constant_floats + floats[0] + floats[1]) * sizeof(float));
    size_t tensors = 0; /* kernels of frozen layers of 64 channels on are large */
    for (int i = 0; i < m->n_layers; i++)
        for (int t = 0; t < m->layers[i].n_tensors && !trainable[i]; t++)
            tensors += m->layers[i].tensors[t].count >= 1 << 16 ? m->layers[i].tensors[t].count : 0;
    assert_int_equal(thaw_plan_constants(plan), prefix->constant_floats + floats[0] + tensors);
    assert_int_equal(plan->memory.constants, thaw_plan_constants(plan) * sizeof(float));
    thaw_plan_free(plan);
    thaw_free(trainable);
    thaw_model_free(m);
}

static void test_final(void **state) {
    (void)state;
    thaw_model *map = make_model(build_map_output), *sigmoid = make_model(build_activations), *soft = make_model(build_norms),
               *none = make_model(build_dense);
    assert_int_equal(thaw_model_final(map), THAW_ACTIVATION_LINEAR); /* softmax over channels is not over all outputs */
    assert_int_equal(thaw_model_final(sigmoid), THAW_ACTIVATION_SIGMOID);
    assert_int_equal(thaw_model_final(soft), THAW_ACTIVATION_SOFTMAX);
    assert_int_equal(thaw_model_final(none), THAW_ACTIVATION_LINEAR);
    thaw_model_free(map);
    thaw_model_free(sigmoid);
    thaw_model_free(soft);
    thaw_model_free(none);
}

static void test_errors(void **state) {
    (void)state;
    thaw_model *m = vgg16();
    bool *trainable = thaw_calloc((size_t)m->n_layers, sizeof *trainable);
    thaw_plan *plan = (thaw_plan *)(void *)m;
    thaw_plan_request request = {m, trainable, NULL, 8, 0, 1, 1};
    expect(thaw_plan_compile(&plan, &request), THAW_USAGE, "nothing is left to train in vgg16|\"[:-1]\"");
    assert_null(plan);
    trainable[m->n_layers - 3] = true; /* Flatten has nothing to train */
    assert_int_equal(m->layers[m->n_layers - 3].kind, THAW_LAYER_FLATTEN);
    expect(thaw_plan_compile(&plan, &request), THAW_USAGE, "nothing is left to train|\"[:-1]\"");
    /* Sizes that no machine has: an error instead of an overflow. */
    trainable[m->n_layers - 1] = true;
    const int64_t batches[] = {INT64_MAX, INT64_MAX / 4, INT64_C(1) << 40};
    for (int i = 0; i < 3; i++) {
        request.max_batch = batches[i];
        expect(thaw_plan_compile(&plan, &request), THAW_RESOURCE, "more than any memory");
        assert_null(plan);
    }
    request.max_batch = 0; /* a rank without images */
    OK(thaw_plan_compile(&plan, &request));
    assert_int_equal(plan->max_batch, 1);
    thaw_plan_free(plan);
    thaw_free(trainable);
    thaw_model_free(m);
}

/* No two blocks that live at the same time share memory: random lifetimes and sizes. */
static void test_layout_random(void **state) {
    (void)state;
    uint64_t at = 0;
    for (int round = 0; round < 300; round++) {
        int n_values = 1 + (int)draw(1, at++, 0, 30), n_places = (int)draw(1, at++, 0, 30), n = n_values + n_places;
        int times = 1 + (int)draw(1, at++, 0, 40);
        int64_t images = 1 + (int64_t)draw(1, at++, 0, 5);
        thaw_tape tape = {.n_values = n_values, .n_places = n_places};
        tape.values = thaw_calloc((size_t)n_values, sizeof *tape.values);
        tape.places = thaw_calloc((size_t)n_places, sizeof *tape.places);
        thaw_place *places[64];
        size_t bytes[64], sum = 0, most = 0;
        for (int i = 0; i < n; i++) {
            thaw_place *p = places[i] = i < n_values ? &tape.values[i].place : &tape.places[i - n_values];
            if (i < n_values)
                tape.values[i].region = draw(1, at++, 0, 1) < 0.2 ? THAW_REGION_BOUNDARY : THAW_REGION_ARENA;
            int a = (int)draw(1, at++, 0, times), b = (int)draw(1, at++, 0, times);
            *p = (thaw_place){.per_image = (size_t)draw(1, at, 0, 1000), .fixed = (size_t)draw(2, at, 0, 300), .first = a,
                              .last = b}; /* a > b: not used */
            at++;
            bool used = a <= b && (i >= n_values || tape.values[i].region == THAW_REGION_ARENA);
            bytes[i] = used ? p->per_image * (size_t)images + p->fixed : 0;
            sum += thaw_align(bytes[i]);
        }
        OK(thaw_layout(&tape, images));
        for (int i = 0; i < n; i++) {
            if (!bytes[i])
                continue;
            assert_int_equal(places[i]->offset % 64, 0);
            assert_true(places[i]->offset + bytes[i] <= tape.arena_bytes);
            for (int k = 0; k < i; k++)
                if (bytes[k] && places[i]->first <= places[k]->last && places[k]->first <= places[i]->last)
                    assert_true(places[i]->offset + bytes[i] <= places[k]->offset ||
                                places[k]->offset + bytes[k] <= places[i]->offset);
        }
        for (int time = 0; time < times; time++) {
            size_t alive = 0;
            for (int i = 0; i < n; i++)
                alive += bytes[i] && places[i]->first <= time && time <= places[i]->last ? thaw_align(bytes[i]) : 0;
            most = alive > most ? alive : most;
        }
        assert_true(tape.arena_bytes >= most && tape.arena_bytes <= sum);
        assert_true((double)tape.arena_bytes <= 1.5 * (double)most); /* first fit by size wastes little */
        thaw_free(tape.values);
        thaw_free(tape.places);
    }
}

/* The same for the tapes of real networks, and that they reuse memory. */
static void test_layout_networks(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL);
        const thaw_tape *tape = s->plan->tape_train;
        int n = tape->n_values + tape->n_places;
        for (int a = 0; a < n; a++)
            for (int b = 0; b < a; b++) {
                const thaw_place *p = a < tape->n_values ? &tape->values[a].place : &tape->places[a - tape->n_values];
                const thaw_place *q = b < tape->n_values ? &tape->values[b].place : &tape->places[b - tape->n_values];
                if (p->first > p->last || q->first > q->last || p->first > q->last || q->first > p->last ||
                    (a < tape->n_values && tape->values[a].region != THAW_REGION_ARENA) ||
                    (b < tape->n_values && tape->values[b].region != THAW_REGION_ARENA))
                    continue;
                assert_true(p->offset + p->per_image * IMAGES + p->fixed <= q->offset ||
                            q->offset + q->per_image * IMAGES + q->fixed <= p->offset);
            }
        /* Losses and metrics read z while its gradient is written. */
        const thaw_value *z = &tape->values[tape->output];
        const thaw_place *dz = &tape->places[z->gradient];
        assert_true(z->place.first <= dz->last && dz->first <= z->place.last);
        tear_down(s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vgg16),         cmocka_unit_test(test_together),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_marks),         cmocka_unit_test(test_folding),
        cmocka_unit_test(test_packs),         cmocka_unit_test(test_final),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_layout_random), cmocka_unit_test(test_layout_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
