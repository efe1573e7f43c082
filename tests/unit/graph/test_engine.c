/* The engine in float: fast against reference kernels, bits that depend on nothing but the job, no memory while running. */
#include <sys/wait.h>
#include <unistd.h>

#include "naive.h"

#include "base/threads.h"
#include "kernels/isa.h"
#include "kernels/kernels_fast.h"

/* What the reference kernels make of every network, computed by a process of its own: the table is chosen once. */
typedef struct reference {
    char kernels[16];
    double loss[N_NETWORKS];
    size_t count[N_NETWORKS];
    float *gradients[N_NETWORKS];
} reference;
static reference expected;

static void write_all(int file, const void *bytes, size_t size) {
    for (const char *at = bytes; size > 0;) {
        ssize_t n = write(file, at, size);
        if (n <= 0)
            _exit(3);
        at += n;
        size -= (size_t)n;
    }
}

static void read_all(int file, void *bytes, size_t size) {
    for (char *at = bytes; size > 0;) {
        ssize_t n = read(file, at, size);
        if (n <= 0)
            fail_msg("the process with the reference kernels ended early");
        at += n;
        size -= (size_t)n;
    }
}

static void run_reference(int file) {
    char name[16] = {0};
    setenv("THAW_KERNELS", "reference", 1);
    snprintf(name, sizeof name, "%s", thaw_kernels_get()->name);
    write_all(file, name, sizeof name);
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL);
        double loss = run_step(s, true);
        write_all(file, &loss, sizeof loss);
        write_all(file, &s->plan->count, sizeof s->plan->count);
        write_all(file, s->gradients, s->plan->count * sizeof(float));
        tear_down(s);
    }
}

/* Forks before the first thread exists. */
static int read_reference(void **state) {
    (void)state;
    int ends[2];
    if (pipe(ends) != 0)
        return -1;
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        run_reference(ends[1]);
        _exit(0);
    }
    close(ends[1]);
    unsetenv("THAW_KERNELS");
    read_all(ends[0], expected.kernels, sizeof expected.kernels);
    for (int i = 0; i < N_NETWORKS; i++) {
        read_all(ends[0], &expected.loss[i], sizeof expected.loss[i]);
        read_all(ends[0], &expected.count[i], sizeof expected.count[i]);
        expected.gradients[i] = calloc(expected.count[i] + 1, sizeof(float));
        read_all(ends[0], expected.gradients[i], expected.count[i] * sizeof(float));
    }
    close(ends[0]);
    int status = -1;
    waitpid(child, &status, 0);
    thaw_kernels_init();
    thaw_threads_set(3); /* plans are made for the most threads that are used below */
    return status;
}

static int free_reference(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++)
        free(expected.gradients[i]);
    return 0;
}

static void test_fast_against_reference(void **state) {
    (void)state;
    assert_string_equal(expected.kernels, "reference");
    assert_string_equal(thaw_kernels_get()->name, "fast");
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL);
        double loss = run_step(s, true);
        assert_int_equal(s->plan->count, expected.count[i]);
        if (!(fabs(loss - expected.loss[i]) <= 1e-5 * fabs(loss)))
            fail_msg("%s: loss %.9g, with reference kernels %.9g", NETWORKS[i].name, loss, expected.loss[i]);
        for (int t = 0; t < s->plan->n_tensors; t++) {
            const thaw_plan_tensor *tensor = &s->plan->tensors[t];
            const float *got = s->gradients + tensor->offset, *want = expected.gradients[i] + tensor->offset;
            char name[128];
            snprintf(name, sizeof name, "%s/%s", s->model->layers[tensor->layer].name,
                     s->model->layers[tensor->layer].tensors[tensor->tensor].name);
            double largest = listed_in(NETWORKS[i].zero, name) ? 1e-2 : 1e-4; /* sums that cancel to 0 */
            for (size_t k = 0; k < tensor->count; k++)
                largest = fmax(largest, fabs((double)want[k]));
            for (size_t k = 0; k < tensor->count; k++)
                if (!(fabs((double)got[k] - (double)want[k]) <= 1e-4 * largest))
                    fail_msg("%s: %s[%zu]: gradient %.9g, with reference kernels %.9g", NETWORKS[i].name, name, k,
                             (double)got[k], (double)want[k]);
        }
        tear_down(s);
    }
}

static float *copy(const float *values, size_t count) {
    float *kept = thaw_calloc(count, sizeof *kept);
    memcpy(kept, values, count * sizeof *kept);
    return kept;
}

static void test_threads(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL);
        float *first = NULL;
        double loss = 0.0;
        for (int threads = 1; threads <= 3; threads++) {
            thaw_threads_set(threads);
            double now = run_step(s, true);
            if (!first) {
                first = copy(s->gradients, s->plan->count);
                loss = now;
            }
            assert_true(now == loss);
            if (memcmp(first, s->gradients, s->plan->count * sizeof *first))
                fail_msg("%s: other bits with %d threads", NETWORKS[i].name, threads);
        }
        thaw_free(first);
        tear_down(s);
    }
}

/* Outputs p(IMAGES, outputs) from z by the final activation, against the definitions. */
static void expect_outputs(const char *what, const setup *s, const float *z, bool training) {
    int64_t n = IMAGES * s->plan->outputs;
    float *p = thaw_calloc((size_t)n, sizeof *p);
    double *want = evaluate(s, training), largest = 1e-3;
    thaw_objective objective = {.final = s->plan->final, .units = s->plan->outputs};
    thaw_objective_output(&objective, IMAGES, z, p);
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(want[i]));
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)p[i] - want[i]) <= 1e-5 * largest))
            fail_msg("%s: output %d: %.9g, by definition %.9g", what, (int)i, (double)p[i], want[i]);
    thaw_free(p);
    free(want);
}

static void test_definitions(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL), *folded = set_up(make_model(NETWORKS[i].build), NULL, false, NULL);
        thaw_engine_prefix(s->engine, IMAGES, s->x);
        expect_outputs(NETWORKS[i].name, s, thaw_engine_forward(s->engine, 0, IMAGES, &s->draws), true);
        expect_outputs(NETWORKS[i].name, s, thaw_engine_infer(s->engine, IMAGES), false);
        thaw_engine_prefix(folded->engine, IMAGES, folded->x);
        expect_outputs(NETWORKS[i].name, folded, thaw_engine_infer(folded->engine, IMAGES), false);
        tear_down(s);
        tear_down(folded);
    }
}

static void expect_close(const char *what, const float *a, const float *b, int64_t n) {
    double largest = 1e-3;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)b[i]));
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= 1e-5 * largest))
            fail_msg("%s: output %d: %.9g and %.9g", what, (int)i, (double)a[i], (double)b[i]);
}

static bool draws_or_batch(const setup *s) {
    for (int i = 0; i < s->model->n_nodes; i++)
        if (s->plan->varies[i])
            return true;
    return false;
}

/* Without draws and batch statistics training and inference form agree; the folded form of a whole network agrees with the
 * unfolded one. */
static void test_forms(void **state) {
    (void)state;
    int compared = 0;
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL), *folded = set_up(make_model(NETWORKS[i].build), NULL, false, NULL);
        int64_t outputs = IMAGES * s->plan->outputs;
        run_step(s, false);
        float *trained = copy(thaw_engine_forward(s->engine, 0, IMAGES, &s->draws), (size_t)outputs);
        float *inferred = copy(thaw_engine_infer(s->engine, IMAGES), (size_t)outputs);
        if (!draws_or_batch(s)) {
            expect_close(NETWORKS[i].name, trained, inferred, outputs);
            compared++;
        }
        thaw_engine_prefix(folded->engine, IMAGES, folded->x);
        expect_close(NETWORKS[i].name, thaw_engine_infer(folded->engine, IMAGES), inferred, outputs);
        thaw_free(trained);
        thaw_free(inferred);
        tear_down(s);
        tear_down(folded);
    }
    assert_true(compared > 10);
}

/* An image's outputs have the same bits in any batch, folded and unfolded; so do its draws. */
static void test_image_alone(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++)
        for (int folded = 0; folded < 2; folded++) {
            setup *s = folded ? set_up(make_model(NETWORKS[i].build), NULL, false, NULL) : set_up_network(&NETWORKS[i], NULL);
            int64_t values = thaw_shape_count(&s->model->nodes[s->model->input].shape), outputs = s->plan->outputs;
            bool batch = NETWORKS[i].batch_statistics, training = !folded && !batch;
            thaw_engine_prefix(s->engine, IMAGES, s->x);
            float *together = copy(thaw_engine_infer(s->engine, IMAGES), (size_t)(IMAGES * outputs));
            float *trained = NULL;
            if (training)
                trained = copy(thaw_engine_forward(s->engine, 0, IMAGES, &s->draws), (size_t)(IMAGES * outputs));
            for (int image = 0; image < IMAGES; image++) {
                thaw_draws draws = s->draws;
                draws.samples += image;
                thaw_engine_prefix(s->engine, 1, s->x + image * values);
                if (memcmp(thaw_engine_infer(s->engine, 1), together + image * outputs, (size_t)outputs * sizeof(float)))
                    fail_msg("%s: image %d alone has other bits%s", NETWORKS[i].name, image, folded ? ", folded" : "");
                if (training && memcmp(thaw_engine_forward(s->engine, 0, 1, &draws), trained + image * outputs,
                                       (size_t)outputs * sizeof(float)))
                    fail_msg("%s: image %d alone has other bits in training", NETWORKS[i].name, image);
            }
            thaw_free(together);
            thaw_free(trained);
            tear_down(s);
        }
}

/* A prefix that takes the batch in pieces gives the step the same bits, also after its memory has rested. */
static void test_pieces(void **state) {
    (void)state;
    int with_prefix = 0;
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL);
        with_prefix += s->plan->n_boundary > 0;
        double loss = run_step(s, true);
        float *whole = copy(s->gradients, s->plan->count);
        for (int64_t piece = 1; piece < IMAGES; piece++) {
            s->plan->prefix_batch = piece;
            thaw_engine_rest(s->engine);
            if (run_step(s, true) != loss || memcmp(s->gradients, whole, s->plan->count * sizeof(float)))
                fail_msg("%s: other bits in pieces of %d images", NETWORKS[i].name, (int)piece);
        }
        thaw_free(whole);
        tear_down(s);
    }
    assert_true(with_prefix > 3);
}

/* A step on image i of the slots, which is image `number` of the batch. */
static double step_on(setup *s, int i, int number) {
    thaw_draws draws = s->draws;
    thaw_sums sums = {0};
    draws.samples += number;
    const float *z = thaw_engine_forward(s->engine, i, 1, &draws);
    OK(thaw_objective_batch(&s->objective, 1, z, s->y + number * s->objective.y_width, 1.0,
                            thaw_engine_output_gradient(s->engine), &sums));
    thaw_engine_backward(s->engine);
    return sums.loss;
}

/* Steps of an image each have the same bits where their prefix is run together, meanwhile little by little for the next ones,
 * which are the images turned around. */
static void test_together(void **state) {
    (void)state;
    int compared = 0;
    for (int i = 0; i < N_NETWORKS; i++)
        for (int64_t piece = 2; piece <= 16; piece += 14) {
            setup *s = set_up_network(&NETWORKS[i], NULL), *t = set_up_steps(make_model(NETWORKS[i].build), NETWORKS[i].frozen,
                                                                             NETWORKS[i].batch_statistics, NULL, 1);
            set_objective(t, NETWORKS[i].loss, NETWORKS[i].one_hot, NULL);
            const int64_t values = thaw_shape_count(&s->model->nodes[s->model->input].shape);
            double loss[IMAGES];
            float *gradients[IMAGES], *x[2] = {t->x, thaw_calloc((size_t)(IMAGES * values), sizeof(float))};
            for (int k = 0; k < IMAGES; k++) {
                loss[k] = run_part(s, k, 1, 1, true);
                gradients[k] = copy(s->gradients, s->plan->count);
                memcpy(x[1] + (IMAGES - 1 - k) * values, x[0] + k * values, (size_t)values * sizeof(float));
            }
            assert_int_equal(t->plan->together, thaw_plan_boundary_suffices(t->plan) ? 16 : 1);
            const int blocks = t->plan->together > 1 ? 4 : 0;
            t->plan->prefix_batch = piece;
            thaw_engine_prefix(t->engine, IMAGES, x[0]);
            for (int block = 0; block < blocks; block++) {
                thaw_engine_prefix_begin(t->engine, IMAGES, x[(block + 1) % 2]);
                for (int k = 0; k < IMAGES; k++) {
                    const int number = block % 2 ? IMAGES - 1 - k : k;
                    if (step_on(t, k, number) != loss[number] ||
                        memcmp(t->gradients, gradients[number], t->plan->count * sizeof(float)))
                        fail_msg("%s: step %d of block %d has other bits", NETWORKS[i].name, k, block);
                    thaw_engine_prefix_run(t->engine, (k + 1.0) / IMAGES);
                    compared++;
                }
                thaw_engine_prefix_turn(t->engine);
            }
            for (int k = 0; k < IMAGES; k++)
                thaw_free(gradients[k]);
            thaw_free(x[1]);
            tear_down(s);
            tear_down(t);
        }
    assert_true(compared > 3 * 2 * 4 * IMAGES);
}

static void count_poll(void *calls) { ++*(int *)calls; }

/* Calls of poll, one behind each operation on each run of images, until a share of the prefix is done. */
static int calls_until(setup *s, int *calls, double share) {
    *calls = 0;
    thaw_engine_prefix_run(s->engine, share);
    return *calls;
}

/* A share of the prefix is that share of its work: it stops inside of an operation, and what is done stays so. */
static void test_share(void **state) {
    (void)state;
    int calls = 0;
    const thaw_hooks hooks = {.poll = count_poll, .payload = &calls};
    setup *s = set_up_steps(make_model(build_deep), "one two norm_two three norm_three", false, &hooks, 1);
    const int operations = s->plan->tape_prefix->n_ops;
    thaw_engine_prefix_begin(s->engine, IMAGES, s->x);
    assert_int_equal(calls_until(s, &calls, 0.0), 0);
    const int half = calls_until(s, &calls, 0.5);
    assert_in_range(half, 1, operations - 1);
    assert_int_equal(calls_until(s, &calls, 0.5), 0);
    const int rest = calls_until(s, &calls, 1.0);
    assert_int_equal(half + rest, operations + 1); /* one was cut */
    assert_int_equal(calls_until(s, &calls, 1.0), 0);
    tear_down(s);
}

static void test_nothing_allocated(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL);
        run_step(s, true);
        const uint64_t requests = thaw_memory_requests();
        for (int step = 0; step < 3; step++) {
            run_step(s, true);
            thaw_engine_update_statistics(s->engine);
            thaw_engine_refresh(s->engine);
            thaw_engine_infer(s->engine, IMAGES);
        }
        assert_int_equal(thaw_memory_requests(), requests);
        tear_down(s);
    }
}

static void test_no_images(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL);
        for (int t = 0; t < s->plan->n_tensors; t++)
            for (size_t k = 0; k < s->plan->tensors[t].count; k++)
                s->gradients[s->plan->tensors[t].offset + k] = NAN;
        assert_true(run_part(s, 0, 0, IMAGES, true) == 0.0);
        for (size_t k = 0; k < s->plan->count; k++)
            if (s->gradients[k] != 0.0f)
                fail_msg("%s: gradient %zu of no images is %g", NETWORKS[i].name, k, (double)s->gradients[k]);
        thaw_engine_infer(s->engine, 0);
        tear_down(s);
    }
}

/* Buckets: three large layers and small ones, frozen and not. */
static int build_large(thaw_model *m) {
    int x = add_input(m, "input", 1, 700, 0, 0);
    x = DENSE("a", x, .filters = 3, .act = THAW_ACTIVATION_TANH);
    x = DENSE("b", x, .filters = 1500, .act = THAW_ACTIVATION_TANH);
    x = DENSE("c", x, .filters = 700, .act = THAW_ACTIVATION_TANH);
    x = DENSE("d", x, .filters = 1500, .act = THAW_ACTIVATION_TANH);
    x = DENSE("e", x, .filters = 5, .act = THAW_ACTIVATION_TANH);
    x = DENSE("f", x, .filters = 700, .act = THAW_ACTIVATION_TANH);
    x = call_again(m, "d", x); /* complete only where it was called first */
    return DENSE("g", x, .filters = 2);
}

typedef struct announced {
    setup *s;
    int n, polls;
    float *final; /* the block as each bucket was when it was announced */
} announced;

static void bucket_ready(void *payload, int bucket) {
    announced *seen = payload;
    const thaw_bucket *b = &seen->s->plan->buckets[bucket];
    assert_int_equal(bucket, seen->n);
    seen->n++;
    memcpy(seen->final + b->offset, seen->s->gradients + b->offset, b->count * sizeof(float));
}

static void poll(void *payload) { ((announced *)payload)->polls++; }

static void check_buckets(setup *s, announced *seen, int least) {
    const thaw_plan *plan = s->plan;
    size_t end = 0, payload = 0;
    for (int b = 0; b < plan->n_buckets; b++) {
        assert_int_equal(plan->buckets[b].offset, end);
        assert_true(plan->buckets[b].count > 0 && plan->buckets[b].payload <= plan->buckets[b].count);
        end += plan->buckets[b].count;
        payload += plan->buckets[b].payload;
    }
    assert_int_equal(end, plan->count);
    assert_int_equal(payload * 4, plan->gradient_bytes);
    assert_true(plan->n_buckets >= least);
    for (int step = 0; step < 2; step++) {
        *seen = (announced){.s = s, .final = seen->final};
        memset(seen->final, 0xff, plan->count * sizeof(float));
        run_step(s, true);
        assert_int_equal(seen->n, plan->n_buckets);
        assert_true(seen->polls > plan->n_buckets);
        assert_memory_equal(seen->final, s->gradients, plan->count * sizeof(float)); /* nothing is written behind */
    }
}

static void test_buckets(void **state) {
    (void)state;
    announced seen = {0};
    thaw_hooks hooks = {.poll = poll, .bucket_ready = bucket_ready, .payload = &seen};
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], &hooks);
        seen.final = thaw_calloc(s->plan->count, sizeof(float));
        check_buckets(s, &seen, 1);
        thaw_free(seen.final);
        tear_down(s);
    }
    const char *frozen[] = {"", "a g", "d"};
    for (int i = 0; i < 3; i++) {
        setup *s = set_up(make_model(build_large), frozen[i], false, &hooks);
        set_objective(s, THAW_LOSS_MSE, true, NULL);
        seen.final = thaw_calloc(s->plan->count, sizeof(float));
        check_buckets(s, &seen, i == 2 ? 1 : 2);
        thaw_free(seen.final);
        tear_down(s);
    }
}

/* Trained tensors live in the flat block while there is an engine, and come home with what was learned. */
static void test_parameters(void **state) {
    (void)state;
    setup *s = set_up_network(&NETWORKS[0], NULL);
    thaw_tensor *kernel = thaw_layer_tensor(&s->model->layers[1], "kernel");
    float *home = kernel->home, *place = kernel->data;
    assert_ptr_not_equal(home, place);
    assert_int_equal((uintptr_t)place % 64, (uintptr_t)s->parameters % 64);
    assert_true(place[0] == home[0]);
    run_step(s, true);
    thaw_engine_prefix(s->engine, IMAGES, s->x);
    float before = thaw_engine_infer(s->engine, IMAGES)[0];
    const uint64_t frozen = thaw_engine_frozen_hash(s->engine), trained = thaw_engine_trained_hash(s->engine);
    for (size_t i = 0; i < s->plan->count; i++)
        s->parameters[i] -= 0.1f * s->gradients[i];
    thaw_engine_refresh(s->engine);
    assert_true(thaw_engine_frozen_hash(s->engine) == frozen);
    assert_true(thaw_engine_trained_hash(s->engine) != trained);
    assert_true(thaw_engine_infer(s->engine, IMAGES)[0] != before);
    float learned = place[0];
    thaw_engine_free(s->engine);
    s->engine = NULL;
    assert_ptr_equal(kernel->data, home);
    assert_true(home[0] == learned);
    tear_down(s);
}

/* A change in any tensor shows in one of the two hashes; training leaves the frozen one alone. */
static void test_frozen_hash(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL);
        const uint64_t frozen = thaw_engine_frozen_hash(s->engine);
        for (int step = 0; step < 2; step++) {
            run_step(s, true);
            for (size_t k = 0; k < s->plan->count; k++)
                s->parameters[k] -= 0.1f * s->gradients[k];
            thaw_engine_update_statistics(s->engine);
            thaw_engine_refresh(s->engine);
        }
        if (thaw_engine_frozen_hash(s->engine) != frozen)
            fail_msg("%s: training moved something frozen", NETWORKS[i].name);
        const uint64_t trained = thaw_engine_trained_hash(s->engine);
        for (int k = 0; k < s->model->n_layers; k++)
            for (int t = 0; t < s->model->layers[k].n_tensors; t++) {
                thaw_tensor *tensor = &s->model->layers[k].tensors[t];
                bool moves = s->trainable[k] && (!tensor->statistic || NETWORKS[i].batch_statistics);
                float *last = &tensor->data[tensor->count - 1], kept = *last;
                *last += 1.0f;
                assert_int_equal(thaw_engine_frozen_hash(s->engine) != frozen, !moves);
                assert_int_equal(thaw_engine_trained_hash(s->engine) != trained, moves);
                *last = kept;
            }
        const thaw_tape *tapes[] = {s->plan->tape_prefix, s->plan->tape_train, s->plan->tape_infer};
        for (int k = 0; k < 3; k++) /* packed forms of frozen tensors are hashed and never made again */
            for (int p = 0; p < tapes[k]->n_packs; p++) {
                int layer = tapes[k]->packs[p].layer;
                bool weights = s->model->layers[layer].n_tensors > 0;
                assert_int_equal(tapes[k]->packs[p].refresh, weights && s->trainable[layer]);
            }
        tear_down(s);
    }
}

/* Keras: moving = moving*momentum + batch*(1 - momentum), with the biased variance. */
static int build_norm(thaw_model *m) {
    int x = PLAIN(BATCH_NORMALIZATION, "norm", add_input(m, "input", 3, 2, 2, 3));
    return DENSE("out", PLAIN(FLATTEN, "flatten", x), .filters = 1);
}

static void test_moving_statistics(void **state) {
    (void)state;
    setup *s = set_up(make_model(build_norm), "", true, NULL);
    set_objective(s, THAW_LOSS_MSE, true, NULL);
    thaw_tensor *mean = thaw_layer_tensor(&s->model->layers[1], "moving_mean");
    thaw_tensor *variance = thaw_layer_tensor(&s->model->layers[1], "moving_variance");
    double want[6], momentum = (double)s->model->layers[1].config.momentum;
    for (int c = 0; c < 3; c++) {
        double m = 0.0, v = 0.0;
        for (int k = 0; k < IMAGES * 4; k++)
            m += (double)s->x[3 * k + c] / (IMAGES * 4);
        for (int k = 0; k < IMAGES * 4; k++)
            v += ((double)s->x[3 * k + c] - m) * ((double)s->x[3 * k + c] - m) / (IMAGES * 4);
        want[c] = (double)mean->data[c] * momentum + m * (1.0 - momentum);
        want[3 + c] = (double)variance->data[c] * momentum + v * (1.0 - momentum);
    }
    run_step(s, true);
    thaw_engine_update_statistics(s->engine);
    for (int c = 0; c < 3; c++) {
        assert_true(fabs((double)mean->data[c] - want[c]) < 1e-6);
        assert_true(fabs((double)variance->data[c] - want[3 + c]) < 1e-6);
    }
    /* The inference form takes them in with the next refresh. */
    thaw_engine_prefix(s->engine, IMAGES, s->x);
    float before = thaw_engine_infer(s->engine, IMAGES)[0];
    thaw_engine_refresh(s->engine);
    assert_true(thaw_engine_infer(s->engine, IMAGES)[0] != before);
    tear_down(s);
}

/* Every request for memory fails in turn: an error, nothing lost, and the model as it was. */
static void test_memory_failures(void **state) {
    (void)state;
    const char *names[] = {"two branches, frozen front", "shared, batch"};
    for (int i = 0; i < N_NETWORKS; i++) {
        if (strcmp(NETWORKS[i].name, names[0]) && strcmp(NETWORKS[i].name, names[1]))
            continue;
        setup *s = set_up_network(&NETWORKS[i], NULL);
        thaw_engine_free(s->engine);
        s->engine = NULL;
        thaw_plan_request request = {s->model, s->trainable, s->batch_statistics, IMAGES, 0, 1, 1};
        const size_t live = thaw_memory_live();
        bool done = false;
        for (int64_t n = 1; !done; n++) {
            thaw_plan *plan = NULL;
            thaw_engine *engine = NULL;
            thaw_memory_fail_after(n);
            thaw_status status = thaw_plan_compile(&plan, &request);
            if (status == THAW_OK)
                status = thaw_engine_create(&engine, plan, s->model, NULL, s->parameters, s->gradients);
            done = status == THAW_OK;
            thaw_memory_fail_after(-1);
            assert_true(done || status == THAW_RESOURCE);
            assert_true(done || !engine);
            thaw_engine_free(engine);
            thaw_plan_free(plan);
            assert_int_equal(thaw_memory_live(), live);
            assert_true(n < 2000);
        }
        for (int k = 0; k < s->model->n_layers; k++)
            for (int t = 0; t < s->model->layers[k].n_tensors; t++)
                assert_ptr_equal(s->model->layers[k].tensors[t].data, s->model->layers[k].tensors[t].home);
        tear_down(s);
    }
}

/* All of the above that computes, with every instruction set that the processor has and every algorithm of convolution. */
static void test_algorithms(void **state) {
    static const char *const isas[] = {"avx512", "avx2", "portable"};
    static const thaw_conv_mode modes[] = {THAW_CONV_WINOGRAD, THAW_CONV_DIRECT, THAW_CONV_BLAS};
    for (int isa = 0; isa < 3; isa++)
        for (int mode = 0; mode < 3 && thaw_isa_choose(isas[isa]); mode++) {
            thaw_conv_mode_set(modes[mode]);
            test_fast_against_reference(state);
            test_threads(state);
            test_forms(state);
            test_image_alone(state);
            test_nothing_allocated(state);
            test_no_images(state);
            test_parameters(state);
            test_frozen_hash(state);
        }
    thaw_conv_mode_set(THAW_CONV_AUTO);
}

static void test_refusals(void **state) {
    (void)state;
    setup *s = set_up_network(&NETWORKS[0], NULL), *other = set_up_network(&NETWORKS[0], NULL);
    thaw_engine *engine = NULL;
    expect(thaw_engine_create(&engine, s->plan, other->model, NULL, s->parameters, s->gradients), THAW_INTERNAL,
           "another model");
    assert_null(engine);
    expect(thaw_engine_create(&engine, s->plan, s->model, NULL, NULL, NULL), THAW_INTERNAL, "no memory for them");
    assert_null(engine);
    thaw_engine_free(NULL);
    tear_down(s);
    tear_down(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definitions),
        cmocka_unit_test(test_fast_against_reference),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_image_alone),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_nothing_allocated),
        cmocka_unit_test(test_no_images),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_frozen_hash),
        cmocka_unit_test(test_moving_statistics),
        cmocka_unit_test(test_memory_failures),
        cmocka_unit_test(test_algorithms),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, read_reference, free_reference);
}
