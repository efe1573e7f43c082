/* Are the kernels that are about to be timed right on this machine? Each shape of the network against the reference. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "bench.h"
#include "graph/tape.h"

enum { CROP = 6, DENSE_ROWS = 4, DENSE_IN = 2048, DENSE_UNITS = 512 };

typedef struct shape {
    thaw_window s; /* a dense layer: cin inputs, cout units, `oh` rows; the rest 1 */
    bool dense;
} shape;

/* One place in the three directions: inputs and what the reference says. */
typedef struct trial {
    shape of;
    int64_t in, out, size; /* floats of x, y, kernel */
    float *x, *dy, *kernel, *got, *packed;
    float *want[3];
    void *scratch;
} trial;

static bool same_algorithms(const thaw_window *a, const thaw_window *b) {
    for (int d = THAW_FORWARD; d <= THAW_BACKWARD_WEIGHTS; d++)
        if (thaw_conv_algorithm(a, (thaw_direction)d) != thaw_conv_algorithm(b, (thaw_direction)d))
            return false;
    return true;
}

/* The smallest part with the window's edges that is computed in the same way. */
static thaw_window crop(const thaw_window *s) {
    for (int64_t most = CROP; most < s->oh || most < s->ow; most *= 2) {
        thaw_window part = *s;
        part.oh = s->oh < most ? s->oh : most;
        part.ow = s->ow < most ? s->ow : most;
        part.h -= (s->oh - part.oh) * s->sh;
        part.w -= (s->ow - part.ow) * s->sw;
        if (part.h > 0 && part.w > 0 && same_algorithms(&part, s))
            return part;
    }
    return *s;
}

static shape shape_of(const thaw_op *op) {
    shape found = {.dense = op->kind == THAW_OP_DENSE};
    if (!found.dense) {
        thaw_window whole = op->window;
        whole.pool = 0; /* the maxima of what is compared */
        found.s = crop(&whole);
    } else {
        found.s = (thaw_window){.h = 1, .w = 1, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .ow = 1};
        found.s.oh = DENSE_ROWS;
        found.s.cin = op->in_c < DENSE_IN ? op->in_c : DENSE_IN;
        found.s.cout = op->c < DENSE_UNITS ? op->c : DENSE_UNITS;
    }
    return found;
}

static void free_trial(trial *t) {
    thaw_free(t->x);
    thaw_free(t->dy);
    thaw_free(t->kernel);
    thaw_free(t->got);
    thaw_free(t->packed);
    thaw_free(t->scratch);
    for (int i = 0; i < 3; i++)
        thaw_free(t->want[i]);
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static bool make_trial(trial *t, const shape *of) {
    const thaw_kernels *k = thaw_kernels_get();
    const thaw_window *s = &of->s;
    *t = (trial){.of = *of, .out = s->oh * s->ow * s->cout, .size = s->kh * s->kw * s->cin * s->cout};
    t->in = of->dense ? s->oh * s->cin : s->h * s->w * s->cin;
    const int64_t counts[] = {t->out, t->in, t->size};
    size_t packed = of->dense ? 0 : k->conv_pack_floats(s, false), turned = of->dense ? 0 : k->conv_pack_floats(s, true);
    t->x = thaw_bench_values(t->in, 1);
    t->dy = thaw_bench_values(t->out, 2);
    t->kernel = thaw_bench_values(t->size, 3);
    t->got = thaw_calloc((size_t)larger(t->out, larger(t->in, t->size)), sizeof *t->got);
    t->packed = thaw_calloc(packed > turned ? packed : turned, sizeof *t->packed);
    t->scratch = thaw_malloc(of->dense ? k->dense_scratch(s->oh, s->cin, s->cout) : k->conv_scratch(s, 1, 1));
    bool ok = t->x && t->dy && t->kernel && t->got && t->packed && t->scratch;
    for (int i = 0; i < 3; i++)
        ok = (t->want[i] = thaw_calloc((size_t)counts[i], sizeof(float))) != NULL && ok;
    for (int64_t i = 0; ok && i < t->in; i++) /* as behind a relu */
        t->x[i] = t->x[i] > 0.0f ? t->x[i] : 0.0f;
    return ok;
}

/* One direction by the kernels `k`, to `to`. `packed`: with a kernel packed for it, as the engine does where there is one. */
static void compute(const thaw_kernels *k, const trial *t, thaw_direction direction, float *packed, float *to, void *scratch) {
    const thaw_window *s = &t->of.s;
    const bool data = direction == THAW_BACKWARD_DATA;
    if (t->of.dense) {
        if (direction == THAW_FORWARD)
            k->dense_forward(s->oh, s->cin, s->cout, t->x, t->kernel, NULL, THAW_ACTIVATION_LINEAR, to, scratch);
        else if (data)
            k->dense_backward_data(s->oh, s->cin, s->cout, t->dy, t->kernel, to, false, scratch);
        else
            k->dense_backward_weights(s->oh, s->cin, s->cout, t->x, t->dy, to, NULL, scratch);
        return;
    }
    const bool has_form = packed && direction != THAW_BACKWARD_WEIGHTS && k->conv_pack_floats(s, data) > 0;
    if (has_form)
        k->conv_pack(s, data, t->kernel, NULL, packed, THAW_WHOLE);
    if (direction == THAW_BACKWARD_WEIGHTS)
        k->conv_backward_weights(s, 1, t->x, t->dy, to, NULL, scratch);
    else if (data && has_form)
        k->conv_backward_data_packed(s, 1, t->dy, packed, to, false, scratch);
    else if (data)
        k->conv_backward_data(s, 1, t->dy, t->kernel, to, false, scratch);
    else if (has_form)
        k->conv_forward_packed(s, 1, t->x, packed, NULL, NULL, THAW_ACTIVATION_LINEAR, to, scratch);
    else
        k->conv_forward(s, 1, t->x, t->kernel, NULL, THAW_ACTIVATION_LINEAR, to, scratch);
}

/* |a - b| / |b| */
static double difference(const float *a, const float *b, int64_t count) {
    double off = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return size > 0.0 ? sqrt(off / size) : sqrt(off);
}

static thaw_status run_trial(thaw_check *check, const trial *t) {
    static const char *const names[] = {"forward", "data gradient", "weight gradient"};
    const thaw_window *s = &t->of.s;
    const thaw_kernels *reference = thaw_kernels_reference();
    const int64_t counts[] = {t->out, t->in, t->size};
    /* The definitions run on one thread and use no scratch. */
#pragma omp parallel for num_threads(thaw_threads()) schedule(dynamic)
    for (int d = 0; d < 3; d++)
        compute(reference, t, (thaw_direction)d, NULL, t->want[d], NULL);
    for (int d = 0; d < 3; d++) {
        const thaw_direction direction = (thaw_direction)d;
        compute(thaw_kernels_get(), t, direction, t->packed, t->got, t->scratch);
        const double error = difference(t->got, t->want[d], counts[d]);
        if (!(error <= THAW_CHECK_BOUND))
            return thaw_fail(THAW_INTERNAL, "kernels %s are wrong on this machine: %s by %s of %lldx%lld, %lld to %lld channels "
                                            "is off the reference by %.1e (relative L2, at most %.0e); try --conv direct, "
                                            "THAW_ISA=portable or THAW_KERNELS=reference, and report it",
                             thaw_kernels_describe(), names[d],
                             t->of.dense ? thaw_dense_algorithm(direction) : thaw_conv_algorithm(s, direction),
                             (long long)s->kh, (long long)s->kw, (long long)s->cin, (long long)s->cout, error,
                             THAW_CHECK_BOUND);
        check->error[d] = error > check->error[d] ? error : check->error[d];
    }
    check->shapes++;
    return THAW_OK;
}

thaw_status thaw_bench_check(thaw_check *check, const thaw_plan *plan) {
    const thaw_tape *const tapes[] = {plan->tape_prefix, plan->tape_train};
    *check = (thaw_check){0};
    if (thaw_kernels_get() == thaw_kernels_reference())
        return THAW_OK;
    int room = 0, n = 0;
    for (int i = 0; i < 2; i++)
        room += tapes[i] ? tapes[i]->n_ops : 0;
    shape *seen = thaw_calloc((size_t)room + 1, sizeof *seen);
    thaw_status status = seen ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory to check %d operations", room);
    for (int i = 0; i < 2 && status == THAW_OK; i++)
        for (int at = 0; tapes[i] && at < tapes[i]->n_ops && status == THAW_OK; at++) {
            const thaw_op *op = &tapes[i]->ops[at];
            if (op->kind != THAW_OP_CONV && op->kind != THAW_OP_DENSE)
                continue;
            const shape of = shape_of(op);
            bool known = false;
            for (int k = 0; k < n && !known; k++)
                known = seen[k].dense == of.dense && memcmp(&seen[k].s, &of.s, sizeof of.s) == 0;
            if (known)
                continue;
            seen[n++] = of;
            trial t;
            status = make_trial(&t, &of) ? run_trial(check, &t)
                                         : thaw_fail(THAW_RESOURCE, "not enough memory to check the kernels");
            free_trial(&t);
        }
    thaw_free(seen);
    return status;
}
