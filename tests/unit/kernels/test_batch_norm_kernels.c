/* Batch normalization: fast against reference, several ranks against one, gradients against differences, threads. */
#include "kernel_case.h"

enum { MOST_CALLS = 8, MOST_RANKS = 3, MOST_VALUES = 1200 };

/* Ranks that run one after the other. In the first rounds a call records what each rank gives; the call that comes next is
 * known only when all ranks have answered the one before, so each round runs all ranks and completes one call more. */
typedef struct ranks {
    int rank, call;      /* running */
    int complete;        /* calls whose sums are known */
    size_t count[MOST_CALLS];
    double given[MOST_CALLS][MOST_RANKS][MOST_VALUES];
    double sum[MOST_CALLS][MOST_VALUES];
} ranks;

static void reduce(void *payload, double *values, size_t count) {
    ranks *r = payload;
    int call = r->call++;
    assert_true(call < MOST_CALLS && count <= MOST_VALUES);
    memcpy(r->given[call][r->rank], values, count * sizeof *values);
    if (call < r->complete) {
        assert_int_equal(count, r->count[call]); /* all ranks ask for the same */
        memcpy(values, r->sum[call], count * sizeof *values);
    }
    r->count[call] = count;
}

typedef struct batch {
    int64_t rows, c;
    const float *x, *dy, *gamma, *beta;
    float *y, *mean, *inv_std, *var, *dx, *dgamma, *dbeta;
} batch;

static void run(const thaw_kernels *k, const batch *b, const thaw_hooks *hooks, bool accumulate) {
    void *scratch = scratch_of(k->batch_norm_scratch(b->rows, b->c, 1));
    k->batch_norm_forward(b->rows, b->c, 1e-3f, b->x, b->gamma, b->beta, b->y, b->mean, b->inv_std, b->var, hooks, scratch);
    k->batch_norm_backward(b->rows, b->c, b->x, b->gamma, b->mean, b->inv_std, b->dy, b->dx, accumulate, b->dgamma, b->dbeta,
                           hooks, scratch);
    thaw_free(scratch);
}

static batch batch_of(int64_t rows, int64_t c, bool plain) {
    float *x = fractions(rows * c);
    for (int64_t i = 0; i < rows * c; i++) /* a mean far from 0 */
        x[i] = x[i] * (float)(i % c % 5 + 1) + 10.0f * (float)(i % c % 3);
    return (batch){.rows = rows, .c = c, .x = x, .dy = fractions(rows * c), .gamma = plain ? NULL : fractions(c),
                   .beta = plain ? NULL : fractions(c), .y = unset(rows * c), .mean = unset(c), .inv_std = unset(c),
                   .var = unset(c), .dx = unset(rows * c), .dgamma = unset(c), .dbeta = unset(c)};
}

static void free_results(batch *b) {
    thaw_free(b->y), thaw_free(b->mean), thaw_free(b->inv_std), thaw_free(b->var), thaw_free(b->dx), thaw_free(b->dgamma);
    thaw_free(b->dbeta);
}

static void free_batch(batch *b) {
    thaw_free((void *)(uintptr_t)b->x), thaw_free((void *)(uintptr_t)b->dy), thaw_free((void *)(uintptr_t)b->gamma);
    thaw_free((void *)(uintptr_t)b->beta);
    free_results(b);
}

/* The same inputs, other places for results. */
static batch twin(const batch *b, int64_t first, int64_t rows) {
    batch t = *b;
    t.rows = rows;
    t.x += first * b->c, t.dy += first * b->c;
    t.y = unset(rows * b->c), t.dx = unset(rows * b->c), t.mean = unset(b->c), t.inv_std = unset(b->c), t.var = unset(b->c);
    t.dgamma = unset(b->c), t.dbeta = unset(b->c);
    return t;
}

static const int64_t shapes[][2] = {{1, 1}, {2, 3}, {50, 17}, {777, 64}, {3000, 33}, {9, 500}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void test_fast_equals_reference(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++)
        for (int plain = 0; plain < 2; plain++)
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                batch a = batch_of(shapes[i][0], shapes[i][1], plain != 0), b = twin(&a, 0, a.rows);
                memset(a.dx, 0, (size_t)(a.rows * a.c) * sizeof *a.dx);
                memset(b.dx, 0, (size_t)(a.rows * a.c) * sizeof *a.dx);
                run(thaw_kernels_fast(), &a, NULL, accumulate != 0);
                run(thaw_kernels_reference(), &b, NULL, accumulate != 0);
                assert_same(a.mean, b.mean, a.c, "mean");
                assert_near(a.var, b.var, a.c, 1e-6, "variance");
                assert_near(a.inv_std, b.inv_std, a.c, 1e-6, "1/std");
                assert_near(a.y, b.y, a.rows * a.c, 2e-6, "y");
                assert_near(a.dx, b.dx, a.rows * a.c, 1e-5, "dx");
                assert_near(a.dgamma, b.dgamma, a.c, 1e-5, "dgamma");
                assert_near(a.dbeta, b.dbeta, a.c, 1e-6, "dbeta");
                for (int64_t c = 0; c < a.c; c++) { /* by hand */
                    double sum = 0.0, squares = 0.0;
                    for (int64_t r = 0; r < a.rows; r++)
                        sum += (double)a.x[r * a.c + c];
                    for (int64_t r = 0; r < a.rows; r++)
                        squares += pow((double)a.x[r * a.c + c] - sum / (double)a.rows, 2.0);
                    assert_true(fabs((double)a.var[c] - squares / (double)a.rows) <= 1e-6 * (1.0 + (double)a.var[c]));
                }
                free_results(&b);
                free_batch(&a);
            }
}

static void test_accumulate_and_parts(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        const thaw_kernels *k = which ? thaw_kernels_fast() : thaw_kernels_reference();
        batch a = batch_of(50, 17, false), b = twin(&a, 0, 50);
        run(k, &a, NULL, false);
        float *before = integers(50 * 17, 4);
        memcpy(b.dx, before, 50 * 17 * sizeof *before);
        run(k, &b, NULL, true);
        for (int i = 0; i < 50 * 17; i++)
            assert_true(fabsf(b.dx[i] - before[i] - a.dx[i]) < 1e-5f);
        void *scratch = scratch_of(k->batch_norm_scratch(50, 17, 1));
        memset(b.dgamma, 0x5a, 17 * sizeof(float));
        k->batch_norm_backward(50, 17, a.x, a.gamma, a.mean, a.inv_std, a.dy, NULL, false, b.dgamma, NULL, NULL, scratch);
        assert_same(b.dgamma, a.dgamma, 17, "dgamma alone");
        k->batch_norm_backward(50, 17, a.x, a.gamma, a.mean, a.inv_std, a.dy, b.dx, false, NULL, NULL, NULL, scratch);
        assert_same(b.dx, a.dx, 50 * 17, "dx alone");
        thaw_free(scratch), thaw_free(before);
        free_results(&b);
        free_batch(&a);
    }
}

/* Three ranks, one of them without images, have the whole batch's statistics and gradients; their parameter gradients add
 * up to the whole batch's. */
static void test_ranks_equal_one(void **state) {
    (void)state;
    static ranks r;
    static const int64_t cuts[][4] = {{0, 20, 50, 50}, {0, 0, 13, 50}, {0, 50, 50, 50}};
    for (int which = 0; which < 2; which++)
        for (int cut = 0; cut < 3; cut++) {
            const thaw_kernels *k = which ? thaw_kernels_fast() : thaw_kernels_reference();
            batch whole = batch_of(50, 17, false), part[MOST_RANKS];
            run(k, &whole, NULL, false);
            for (int rank = 0; rank < MOST_RANKS; rank++)
                part[rank] = twin(&whole, cuts[cut][rank], cuts[cut][rank + 1] - cuts[cut][rank]);
            memset(&r, 0, sizeof r);
            thaw_hooks hooks = {.reduce_sum = reduce, .payload = &r};
            for (int round = 0; round < 4; round++) { /* mean, squares, gradients; then all are known */
                for (r.rank = 0; r.rank < MOST_RANKS; r.rank++) {
                    r.call = 0;
                    run(k, &part[r.rank], &hooks, false);
                    assert_int_equal(r.call, 3);
                }
                if (round == 3)
                    continue;
                for (size_t i = 0; i < r.count[round]; i++)
                    for (int rank = 0; rank < MOST_RANKS; rank++)
                        r.sum[round][i] += r.given[round][rank][i];
                r.complete = round + 1;
            }
            for (int rank = 0; rank < MOST_RANKS; rank++) {
                int64_t first = cuts[cut][rank] * 17, count = part[rank].rows * 17;
                assert_near(part[rank].mean, whole.mean, 17, 1e-7, "mean over ranks");
                assert_near(part[rank].var, whole.var, 17, 1e-7, "variance over ranks");
                assert_same(part[rank].mean, part[0].mean, 17, "mean, equal bits");
                assert_same(part[rank].inv_std, part[0].inv_std, 17, "1/std, equal bits");
                assert_near(part[rank].y, whole.y + first, count, 1e-6, "y over ranks");
                assert_near(part[rank].dx, whole.dx + first, count, 1e-6, "dx over ranks");
            }
            for (int c = 0; c < 17; c++) {
                double dgamma = 0.0, dbeta = 0.0;
                for (int rank = 0; rank < MOST_RANKS; rank++) {
                    dgamma += (double)part[rank].dgamma[c];
                    dbeta += (double)part[rank].dbeta[c];
                }
                assert_true(fabs(dgamma - (double)whole.dgamma[c]) < 1e-5 && fabs(dbeta - (double)whole.dbeta[c]) < 1e-5);
            }
            for (int rank = 0; rank < MOST_RANKS; rank++)
                free_results(&part[rank]);
            free_batch(&whole);
        }
}

/* Nobody has an image: finite results, calls are made all the same. */
static void test_no_rows(void **state) {
    (void)state;
    static ranks r;
    for (int which = 0; which < 2; which++) {
        memset(&r, 0, sizeof r);
        thaw_hooks hooks = {.reduce_sum = reduce, .payload = &r};
        batch b = batch_of(0, 4, false);
        run(which ? thaw_kernels_fast() : thaw_kernels_reference(), &b, &hooks, false);
        assert_int_equal(r.call, 3);
        for (int c = 0; c < 4; c++)
            assert_true(b.mean[c] == 0 && b.var[c] == 0 && isfinite(b.inv_std[c]) && b.dgamma[c] == 0 && b.dbeta[c] == 0);
        free_batch(&b);
    }
}

/* <dy, y> by central differences in x, gamma, beta; the reference in float, so loosely. */
static void test_gradients(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        const thaw_kernels *k = which ? thaw_kernels_fast() : thaw_kernels_reference();
        enum { ROWS = 12, C = 3 };
        batch b = batch_of(ROWS, C, false), probe = twin(&b, 0, ROWS);
        run(k, &b, NULL, false);
        float *x = copy_of(b.x, ROWS * C), *gamma = copy_of(b.gamma, C), *beta = copy_of(b.beta, C);
        probe.x = x, probe.gamma = gamma, probe.beta = beta;
        for (int at = 0; at < ROWS * C + 2 * C; at++) {
            float *value = at < ROWS * C ? &x[at] : at < ROWS * C + C ? &gamma[at - ROWS * C] : &beta[at - ROWS * C - C];
            float expected = at < ROWS * C ? b.dx[at] : at < ROWS * C + C ? b.dgamma[at - ROWS * C] : b.dbeta[at - ROWS * C - C];
            float keep = *value, step = 0x1p-6f;
            double loss[2] = {0.0, 0.0};
            for (int side = 0; side < 2; side++) {
                *value = keep + (side ? step : -step);
                run(k, &probe, NULL, false);
                for (int i = 0; i < ROWS * C; i++)
                    loss[side] += (double)probe.y[i] * (double)b.dy[i];
            }
            *value = keep;
            double difference = (loss[1] - loss[0]) / (2.0 * (double)step);
            if (!(fabs(difference - (double)expected) < 3e-3))
                fail_msg("%s, value %d: gradient %g, differences %g", k->name, at, (double)expected, difference);
        }
        thaw_free(x), thaw_free(gamma), thaw_free(beta);
        free_results(&probe);
        free_batch(&b);
    }
}

static void test_moving_backward(void **state) {
    (void)state;
    const thaw_kernels *fast = thaw_kernels_fast(), *ref = thaw_kernels_reference();
    for (int64_t rows = 0; rows <= 3000; rows = rows * 7 + 1)
        for (int plain = 0; plain < 4; plain++) {
            int64_t c = 30, count = rows * c;
            float *y = plain < 2 ? NULL : integers(count, 2); /* of a relu behind */
            float *x = integers(count, 5), *dy = integers(count, 5), *mean = integers(c, 3), *inv_std = integers(c, 2);
            float *gamma = plain % 2 ? NULL : integers(c, 3), *da = integers(count, 9), *db = copy_of(da, count);
            float *ga = unset(c), *gb = unset(c), *ba = unset(c), *bb = unset(c);
            void *sa = scratch_of(fast->batch_norm_scratch(rows, c, 1)), *sb = scratch_of(ref->batch_norm_scratch(rows, c, 1));
            for (int accumulate = 1; accumulate >= 0; accumulate--) {
                fast->batch_norm_moving_backward(rows, c, x, y, gamma, mean, inv_std, dy, da, accumulate != 0, ga, ba, sa);
                ref->batch_norm_moving_backward(rows, c, x, y, gamma, mean, inv_std, dy, db, accumulate != 0, gb, bb, sb);
                assert_same(da, db, count, "dx");
                assert_same(ga, gb, c, "dgamma");
                assert_same(ba, bb, c, "dbeta");
            }
            /* Only dx: x and mean are not read. */
            fast->batch_norm_moving_backward(rows, c, NULL, y, gamma, NULL, inv_std, dy, da, false, NULL, NULL, sa);
            assert_same(da, db, count, "dx alone");
            ref->batch_norm_moving_backward(rows, c, NULL, y, gamma, NULL, inv_std, dy, da, false, NULL, NULL, sb);
            assert_same(da, db, count, "dx alone");
            fast->batch_norm_moving_backward(rows, c, NULL, y, gamma, NULL, inv_std, dy, NULL, false, NULL, ba, sa);
            assert_same(ba, bb, c, "dbeta alone");
            float *all[] = {x, y, dy, mean, inv_std, gamma, da, db, ga, gb, ba, bb};
            for (size_t i = 0; i < sizeof all / sizeof *all; i++)
                thaw_free(all[i]);
            thaw_free(sa), thaw_free(sb);
        }
}

static void test_threads_never_change_bits(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        batch one = batch_of(shapes[i][0] * 9, shapes[i][1], false);
        size_t bytes = (size_t)(one.rows * one.c) * sizeof(float), width = (size_t)one.c * sizeof(float);
        thaw_threads_set(1);
        run(thaw_kernels_fast(), &one, NULL, false);
        for (int threads = 2; threads <= 3; threads++) {
            batch more = twin(&one, 0, one.rows);
            thaw_threads_set(threads);
            run(thaw_kernels_fast(), &more, NULL, false);
            assert_memory_equal(more.y, one.y, bytes);
            assert_memory_equal(more.dx, one.dx, bytes);
            assert_memory_equal(more.var, one.var, width);
            assert_memory_equal(more.dgamma, one.dgamma, width);
            assert_memory_equal(more.dbeta, one.dbeta, width);
            free_results(&more);
        }
        free_batch(&one);
    }
    thaw_threads_set(2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_equals_reference), cmocka_unit_test(test_accumulate_and_parts),
        cmocka_unit_test(test_ranks_equal_one),       cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_gradients),             cmocka_unit_test(test_moving_backward),
        cmocka_unit_test(test_threads_never_change_bits),
    };
    thaw_threads_set(2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
