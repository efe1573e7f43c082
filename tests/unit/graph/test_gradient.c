/* Gradients against central differences, in double (see tests/support/in_double.h): every layer, argument and loss.
 *
 * For each trained tensor: the derivative along a random direction of the whole tensor, and along single elements. The
 * loss is piecewise smooth; a step of 1e-6 from values drawn once crosses no kink. */
#include "networks.h"

_Static_assert(sizeof(float) == 8, "built by the special case in tests/CMakeLists.txt");

#define STEP 1e-6
#define RELATIVE 1e-6
#define ABSOLUTE 1e-9

static double loss_at(setup *s, const thaw_plan_tensor *t, const double *direction, double step) {
    for (size_t i = 0; i < t->count; i++)
        s->parameters[t->offset + i] += step * direction[i];
    thaw_engine_refresh(s->engine);
    double loss = run_step(s, false);
    for (size_t i = 0; i < t->count; i++)
        s->parameters[t->offset + i] -= step * direction[i];
    thaw_engine_refresh(s->engine);
    return loss;
}

static void check_direction(setup *s, const char *what, const thaw_plan_tensor *t, const double *gradient,
                            const double *direction) {
    const char *layer = s->model->layers[t->layer].name, *tensor = s->model->layers[t->layer].tensors[t->tensor].name;
    double numeric = (loss_at(s, t, direction, STEP) - loss_at(s, t, direction, -STEP)) / (2.0 * STEP), analytic = 0.0;
    for (size_t i = 0; i < t->count; i++)
        analytic += gradient[t->offset + i] * direction[i];
    double bound = RELATIVE * fmax(fabs(numeric), fabs(analytic)) + ABSOLUTE;
    if (!(fabs(numeric - analytic) <= bound))
        fail_msg("%s: %s/%s: gradient %.12g, difference %.12g", what, layer, tensor, analytic, numeric);
}

static void check_tensor(setup *s, const char *what, const char *zero, int index, const double *gradient) {
    const thaw_plan_tensor *t = &s->plan->tensors[index];
    double *direction = thaw_calloc(t->count, sizeof *direction), norm = 0.0;
    char name[128];
    snprintf(name, sizeof name, "%s/%s", s->model->layers[t->layer].name, s->model->layers[t->layer].tensors[t->tensor].name);
    for (size_t i = 0; i < t->count; i++) {
        direction[i] = draw(2000 + (uint32_t)index, i, -1.0, 1.0);
        norm += gradient[t->offset + i] * gradient[t->offset + i];
    }
    if (listed_in(zero, name))
        assert_true(norm < 1e-20);
    else if (!(norm > 1e-14)) /* else a gradient of nothing would pass */
        fail_msg("%s: the gradient of %s vanishes: %g", what, name, norm);
    check_direction(s, what, t, gradient, direction);
    for (int k = 0; k < 3; k++) {
        memset(direction, 0, t->count * sizeof *direction);
        direction[(size_t)draw(3000 + (uint32_t)index, (uint64_t)k, 0.0, (double)t->count)] = 1.0;
        check_direction(s, what, t, gradient, direction);
    }
    thaw_free(direction);
}

static void check_gradients(setup *s, const char *what, const char *zero) {
    const thaw_plan *plan = s->plan;
    double *gradient = thaw_calloc(plan->count, sizeof *gradient);
    for (int i = 0; i < plan->n_tensors; i++) /* what backward does not write shows */
        for (size_t k = 0; k < plan->tensors[i].count; k++)
            s->gradients[plan->tensors[i].offset + k] = NAN;
    run_step(s, true);
    memcpy(gradient, s->gradients, plan->count * sizeof *gradient);
    for (int i = 0; i < plan->n_tensors; i++)
        check_tensor(s, what, zero, i, gradient);
    size_t inside = 0;
    for (int i = 0; i < plan->n_tensors; i++)
        inside += plan->tensors[i].count;
    size_t untouched = 0;
    for (size_t i = 0; i < plan->count; i++)
        untouched += gradient[i] == 0.0;
    assert_true(untouched >= plan->count - inside); /* pads stay 0 */
    thaw_free(gradient);
}

/* Exactly the trainable tensors lie in the flat block. */
static void check_block(const setup *s) {
    const thaw_plan *plan = s->plan;
    int found = 0;
    for (int i = 0; i < s->model->n_layers; i++)
        for (int t = 0; t < s->model->layers[i].n_tensors; t++) {
            bool trains = s->trainable[i] && !s->model->layers[i].tensors[t].statistic;
            int places = 0;
            for (int k = 0; k < plan->n_tensors; k++)
                places += plan->tensors[k].layer == i && plan->tensors[k].tensor == t;
            assert_int_equal(places, trains);
            found += trains;
            const float *data = s->model->layers[i].tensors[t].data;
            assert_int_equal(data >= s->parameters && data < s->parameters + plan->count, trains);
        }
    assert_int_equal(plan->n_tensors, found);
}

static void test_networks(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++) {
        setup *s = set_up_network(&NETWORKS[i], NULL);
        check_block(s);
        check_gradients(s, NETWORKS[i].name, NETWORKS[i].zero);
        tear_down(s);
    }
}

/* Losses: every loss on every final activation that it takes, targets as indices and as values, with class weights. */
static int units;
static thaw_activation last;

static int build_small(thaw_model *m) {
    int x = add_input(m, "input", 1, 5, 0, 0);
    x = DENSE("a", x, .filters = 6, .act = THAW_ACTIVATION_TANH);
    return DENSE("out", x, .filters = units, .act = last);
}

static void check_loss(thaw_loss loss, int n_units, thaw_activation final, bool one_hot, bool weighted, bool soft) {
    static const double weights[] = {0.5, 2.0, 1.25};
    char what[128];
    units = n_units;
    last = final;
    snprintf(what, sizeof what, "%s, %d units, %s, %s%s%s", thaw_loss_name(loss), n_units, thaw_activation_name(final),
             one_hot ? "values" : "indices", weighted ? ", weights" : "", soft ? ", soft" : "");
    setup *s = set_up(make_model(build_small), "", false, NULL);
    set_objective(s, loss, one_hot, weighted ? weights : NULL);
    if (weighted && n_units == 1)
        s->objective.n_classes = 2;
    if (loss == THAW_LOSS_BINARY_CROSSENTROPY || loss == THAW_LOSS_CATEGORICAL_CROSSENTROPY)
        if (final == THAW_ACTIVATION_LINEAR) /* outputs inside (0, 1), where the clip passes a gradient */
            for (int k = 0; k < n_units; k++) /* but for the third in the weighted cases */
                thaw_layer_tensor(&s->model->layers[2], "bias")->data[k] = k == 2 && weighted ? -0.4 : 0.4 + 0.1 * k;
    if (final == THAW_ACTIVATION_LINEAR)
        for (size_t k = 0; k < thaw_layer_tensor(&s->model->layers[2], "kernel")->count; k++)
            thaw_layer_tensor(&s->model->layers[2], "kernel")->data[k] *= 0.1;
    thaw_engine_refresh(s->engine);
    if (soft) /* the three of an image still sum to 1, as softmax with cross-entropy assumes */
        for (int i = 0; i < IMAGES * n_units; i++)
            s->y[i] = 0.1 + 0.7 * s->y[i];
    check_gradients(s, what, "");
    tear_down(s);
}

static void test_losses(void **state) {
    (void)state;
    const thaw_activation finals[] = {THAW_ACTIVATION_LINEAR, THAW_ACTIVATION_SIGMOID, THAW_ACTIVATION_SOFTMAX,
                                      THAW_ACTIVATION_TANH};
    const thaw_loss losses[] = {THAW_LOSS_BINARY_CROSSENTROPY, THAW_LOSS_CATEGORICAL_CROSSENTROPY, THAW_LOSS_MSE,
                                THAW_LOSS_MAE};
    for (int l = 0; l < 4; l++)
        for (int f = 0; f < 4; f++)
            for (int weighted = 0; weighted < 2; weighted++) {
                if (finals[f] == THAW_ACTIVATION_TANH && l < 2) /* mostly outside of the clip */
                    continue;
                if (finals[f] != THAW_ACTIVATION_SOFTMAX && losses[l] != THAW_LOSS_CATEGORICAL_CROSSENTROPY)
                    check_loss(losses[l], 1, finals[f], true, weighted, false);
                check_loss(losses[l], 3, finals[f], true, weighted, false);
                check_loss(losses[l], 3, finals[f], true, weighted, true);
                check_loss(losses[l], 3, finals[f], false, weighted, false);
            }
}

/* Class weights multiply the loss of an image. */
static void test_weights_count(void **state) {
    (void)state;
    static const double weights[] = {1.0, 3.0, 1.0}, ones[] = {1.0, 1.0, 1.0};
    double loss[2];
    for (int k = 0; k < 2; k++) {
        units = 3;
        last = THAW_ACTIVATION_SOFTMAX;
        setup *s = set_up(make_model(build_small), "", false, NULL);
        set_objective(s, THAW_LOSS_CATEGORICAL_CROSSENTROPY, false, k ? weights : ones);
        for (int i = 0; i < IMAGES; i++)
            s->y[i] = 1.0;
        loss[k] = run_step(s, true);
        tear_down(s);
    }
    assert_true(fabs(loss[1] - 3.0 * loss[0]) < 1e-12);
}

/* Two ranks of one process: a reduce_sum that adds the values of two threads. */
typedef struct pair {
    pthread_barrier_t barrier;
    const double *values[2];
} pair;

typedef struct member {
    pair *shared;
    int rank, first, n, reductions;
    const network *net;
    double *gradients;
    double loss;
    size_t count;
    double *statistics; /* all moving statistics after the update */
    size_t n_statistics;
} member;

static void reduce_sum(void *payload, double *values, size_t count) {
    member *me = payload;
    double *sum = thaw_calloc(count, sizeof *sum);
    me->shared->values[me->rank] = values;
    me->reductions++;
    pthread_barrier_wait(&me->shared->barrier);
    for (size_t i = 0; i < count; i++)
        sum[i] = me->shared->values[0][i] + me->shared->values[1][i];
    pthread_barrier_wait(&me->shared->barrier);
    memcpy(values, sum, count * sizeof *sum);
    thaw_free(sum);
}

static void run_member(member *me, const thaw_hooks *hooks) {
    setup *s = set_up_network(me->net, hooks);
    me->loss = run_part(s, me->first, me->n, IMAGES, true);
    me->count = s->plan->count;
    me->gradients = thaw_calloc(me->count, sizeof *me->gradients);
    memcpy(me->gradients, s->gradients, me->count * sizeof *me->gradients);
    thaw_engine_update_statistics(s->engine);
    me->n_statistics = 0;
    me->statistics = thaw_calloc(1000, sizeof *me->statistics);
    for (int i = 0; i < s->model->n_layers; i++)
        for (int t = 0; t < s->model->layers[i].n_tensors; t++)
            for (size_t k = 0; s->model->layers[i].tensors[t].statistic && k < s->model->layers[i].tensors[t].count; k++)
                me->statistics[me->n_statistics++] = s->model->layers[i].tensors[t].data[k];
    tear_down(s);
}

static void *member_thread(void *payload) {
    thaw_hooks hooks = {.reduce_sum = reduce_sum, .payload = payload};
    run_member(payload, &hooks);
    return NULL;
}

/* Batch statistics are those of the global batch, however it is split, also when a rank has no image. */
static void test_batch_statistics_over_ranks(void **state) {
    (void)state;
    for (int i = 0; i < N_NETWORKS; i++)
        for (int cut = 0; cut < IMAGES; cut++) {
            if (!NETWORKS[i].batch_statistics)
                continue;
            pair shared;
            pthread_barrier_init(&shared.barrier, NULL, 2);
            member all = {.n = IMAGES, .net = &NETWORKS[i]};
            member ranks[2] = {{&shared, 0, 0, cut, 0, &NETWORKS[i], NULL, 0.0, 0, NULL, 0},
                               {&shared, 1, cut, IMAGES - cut, 0, &NETWORKS[i], NULL, 0.0, 0, NULL, 0}};
            pthread_t threads[2];
            run_member(&all, NULL);
            for (int r = 0; r < 2; r++)
                assert_int_equal(pthread_create(&threads[r], NULL, member_thread, &ranks[r]), 0);
            for (int r = 0; r < 2; r++)
                assert_int_equal(pthread_join(threads[r], NULL), 0);
            assert_true(ranks[0].reductions > 0);
            assert_int_equal(ranks[0].reductions, ranks[1].reductions);
            assert_true(fabs(all.loss - ranks[0].loss - ranks[1].loss) < 1e-12);
            for (size_t k = 0; k < all.count; k++)
                if (!(fabs(all.gradients[k] - ranks[0].gradients[k] - ranks[1].gradients[k]) < 1e-11))
                    fail_msg("%s, %d + %d images: gradient %zu: %.15g, %.15g + %.15g", NETWORKS[i].name, cut, IMAGES - cut, k,
                             all.gradients[k], ranks[0].gradients[k], ranks[1].gradients[k]);
            for (size_t k = 0; k < all.n_statistics; k++) {
                assert_true(fabs(all.statistics[k] - ranks[0].statistics[k]) < 1e-12);
                assert_true(ranks[1].statistics[k] == ranks[0].statistics[k]);
            }
            for (int r = 0; r < 2; r++) {
                thaw_free(ranks[r].gradients);
                thaw_free(ranks[r].statistics);
            }
            thaw_free(all.gradients);
            thaw_free(all.statistics);
            pthread_barrier_destroy(&shared.barrier);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_weights_count),
        cmocka_unit_test(test_batch_statistics_over_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
