/* Optimizers in Keras' order of operations and in float32 as Keras computes them (optimizers/base_optimizer.py, sgd.py,
 * adam.py, adamw.py, rmsprop.py): gradient of the loss with regularizers, clipping, weight decay, update.
 *
 * A segment is walked in pieces that stay in the cache while all of its operations run. Pieces and the blocks of a norm
 * are cut by the segment's length alone, so bits do not depend on the number of threads. */
#include "train/optimizer.h"

#include <math.h>

#include "base/memory.h"
#include "base/threads.h"

#define PIECE 8192      /* floats: parameters, gradients and two slots are 128 KB */
#define BLOCKS 64       /* partial sums of a norm */
#define PARALLEL 65536  /* floats from which threads pay */

int thaw_optimizer_slots(const thaw_job_optimizer *config) {
    switch (config->kind) {
    case THAW_SGD: return config->momentum != 0.0 ? 1 : 0;
    case THAW_RMSPROP: return config->momentum > 0.0 ? 2 : 1;
    case THAW_ADAM:
    case THAW_ADAMW: break;
    }
    return 2;
}

thaw_status thaw_optimizer_create(thaw_optimizer **out, const thaw_job_optimizer *config, size_t count, float *slots) {
    const size_t n = (size_t)thaw_optimizer_slots(config);
    *out = NULL;
    if (config->amsgrad || config->centered)
        return thaw_fail(THAW_USAGE, "optimizer: %s: true is not supported; remove it",
                         config->amsgrad ? "amsgrad" : "centered");
    thaw_optimizer *optimizer = thaw_calloc(1, sizeof *optimizer);
    float *memory = slots || !n || count > SIZE_MAX / n ? NULL : thaw_calloc(n * count, sizeof *memory);
    if (!optimizer || (n && !slots && !memory)) {
        thaw_free(optimizer);
        thaw_free(memory);
        return thaw_fail(THAW_RESOURCE, "no memory for the optimizer: %zu floats for each of %zu parameters; freeze more "
                                        "layers, or use sgd", n, count);
    }
    *optimizer = (thaw_optimizer){.config = *config, .learning_rate = config->learning_rate, .n_slots = (int)n,
                                  .memory = memory, .count = count};
    for (size_t i = 0; i < n; i++)
        optimizer->slots[i] = (slots ? slots : memory) + i * count;
    *out = optimizer;
    return THAW_OK;
}

void thaw_optimizer_free(thaw_optimizer *optimizer) {
    if (!optimizer)
        return;
    thaw_free(optimizer->memory);
    thaw_free(optimizer);
}

static size_t piece_floats(size_t count, size_t at) { return count - at < PIECE ? count - at : PIECE; }

static int any_bad(const float *x, size_t n) {
    int bad = 0; /* whether, not how many: nothing depends on the threads */
    for (size_t i = 0; i < n; i++)
        bad |= !isfinite(x[i]);
    return bad;
}

bool thaw_all_finite(const float *values, size_t count) {
    int bad = 0;
#pragma omp parallel for schedule(static) reduction(| : bad) if (count >= PARALLEL)
    for (size_t at = 0; at < count; at += PIECE)
        bad |= any_bad(values + at, piece_floats(count, at));
    return !bad;
}

typedef enum { SUM_ABSOLUTE, SUM_SQUARES } sum_kind;

/* Sum over x(n) of |x| or x^2 in double, in eight fixed lanes. */
static double sum_block(const float *x, size_t n, sum_kind kind) {
    double lane[8] = {0};
    size_t i = 0;
    if (kind == SUM_SQUARES) {
        for (; i + 8 <= n; i += 8)
            for (size_t k = 0; k < 8; k++)
                lane[k] += (double)x[i + k] * (double)x[i + k];
        for (; i < n; i++)
            lane[0] += (double)x[i] * (double)x[i];
    } else {
        for (; i + 8 <= n; i += 8)
            for (size_t k = 0; k < 8; k++)
                lane[k] += fabs((double)x[i + k]);
        for (; i < n; i++)
            lane[0] += fabs((double)x[i]);
    }
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static double sum_all(const float *x, size_t n, sum_kind kind) {
    double part[BLOCKS] = {0}, sum = 0.0;
    size_t length = ((n + BLOCKS - 1) / BLOCKS + 15) / 16 * 16;
#pragma omp parallel for schedule(static) if (n >= PARALLEL)
    for (size_t b = 0; b < BLOCKS; b++)
        if (b * length < n)
            part[b] = sum_block(x + b * length, n - b * length < length ? n - b * length : length, kind);
    for (size_t b = 0; b < BLOCKS; b++)
        sum += part[b];
    return sum;
}

/* Gradient of l1*|w| + l2*w^2; the sign of 0 is 0. */
static void add_penalty(size_t n, const float *restrict w, float *restrict g, float l1, float l2) {
    for (size_t i = 0; i < n; i++) {
        float sign = (float)((w[i] > 0.0f) - (w[i] < 0.0f));
        g[i] += l1 * sign + l2 * (2.0f * w[i]);
    }
}

static void clip_values(size_t n, float *g, float limit) {
    for (size_t i = 0; i < n; i++)
        g[i] = g[i] > limit ? limit : g[i] < -limit ? -limit : g[i];
}

/* w -= w * decay * rate (decoupled: not part of the gradient). */
static void decay_weights(size_t n, float *w, float decay, float rate) {
    for (size_t i = 0; i < n; i++)
        w[i] -= w[i] * decay * rate;
}

/* Numbers of a step that all segments share, in float32 as Keras casts them. */
typedef struct step_numbers {
    float rate, decay;
    float momentum;           /* SGD, RMSprop */
    float keep, take;         /* RMSprop: rho and 1 - rho */
    float take_1, take_2;     /* Adam: 1 - beta */
    float alpha, epsilon;     /* Adam: rate with bias correction */
    float scale, divisor;     /* g * scale / divisor; clipnorm */
    bool clipped;             /* scale and divisor apply */
} step_numbers;

static void update_sgd(const thaw_optimizer *o, const step_numbers *s, size_t at, size_t n, float *restrict w,
                       const float *restrict g) {
    float rate = s->rate, momentum = s->momentum;
    if (!o->n_slots) {
        for (size_t i = 0; i < n; i++)
            w[i] -= g[i] * rate;
        return;
    }
    float *restrict m = o->slots[0] + at;
    for (size_t i = 0; i < n; i++)
        m[i] = m[i] * momentum - g[i] * rate;
    if (o->config.nesterov)
        for (size_t i = 0; i < n; i++)
            w[i] += m[i] * momentum - g[i] * rate;
    else
        for (size_t i = 0; i < n; i++)
            w[i] += m[i];
}

static void update_adam(const thaw_optimizer *o, const step_numbers *s, size_t at, size_t n, float *restrict w,
                        const float *restrict g) {
    float *restrict m = o->slots[0] + at, *restrict v = o->slots[1] + at;
    float take_1 = s->take_1, take_2 = s->take_2, alpha = s->alpha, epsilon = s->epsilon;
    for (size_t i = 0; i < n; i++) {
        m[i] += (g[i] - m[i]) * take_1;
        v[i] += (g[i] * g[i] - v[i]) * take_2;
        w[i] -= m[i] * alpha / (sqrtf(v[i]) + epsilon);
    }
}

/* epsilon lies inside the root. */
static void update_rmsprop(const thaw_optimizer *o, const step_numbers *s, size_t at, size_t n, float *restrict w,
                           const float *restrict g) {
    float *restrict v = o->slots[0] + at;
    float keep = s->keep, take = s->take, rate = s->rate, epsilon = s->epsilon, momentum = s->momentum;
    if (o->n_slots == 1) {
        for (size_t i = 0; i < n; i++) {
            v[i] = keep * v[i] + take * (g[i] * g[i]);
            w[i] -= rate * g[i] / sqrtf(v[i] + epsilon);
        }
        return;
    }
    float *restrict m = o->slots[1] + at;
    for (size_t i = 0; i < n; i++) {
        v[i] = keep * v[i] + take * (g[i] * g[i]);
        m[i] = momentum * m[i] + rate * g[i] / sqrtf(v[i] + epsilon);
        w[i] -= m[i];
    }
}

/* n values from place `at` of the flat blocks: all operations while they are in the cache. Whether any gradient is not finite. */
static int update_piece(const thaw_optimizer *o, const step_numbers *s, size_t at, size_t n, float *w, float *g) {
    const int bad = any_bad(g, n);
    if (s->clipped)
        for (size_t i = 0; i < n; i++)
            g[i] = g[i] * s->scale / s->divisor;
    else if (o->config.clipvalue > 0.0)
        clip_values(n, g, (float)o->config.clipvalue);
    if (s->decay > 0.0f)
        decay_weights(n, w, s->decay, s->rate);
    switch (o->config.kind) {
    case THAW_SGD: update_sgd(o, s, at, n, w, g); break;
    case THAW_RMSPROP: update_rmsprop(o, s, at, n, w, g); break;
    case THAW_ADAM:
    case THAW_ADAMW: update_adam(o, s, at, n, w, g); break;
    }
    return bad;
}

/* beta^t as Keras' float32 power: beta is rounded first. */
static float power(double beta, int64_t t) { return (float)pow((double)(float)beta, (double)(float)t); }

static step_numbers prepare(const thaw_optimizer *o) {
    const thaw_job_optimizer *c = &o->config;
    int64_t t = o->step + 1;
    step_numbers s = {
        .rate = (float)o->learning_rate,
        .decay = (float)c->weight_decay,
        .momentum = (float)c->momentum,
        .keep = (float)c->rho,
        .take = (float)(1.0 - c->rho),
        .take_1 = (float)(1.0 - c->beta_1),
        .take_2 = (float)(1.0 - c->beta_2),
        .epsilon = (float)c->epsilon,
        .scale = 1.0f,
        .divisor = 1.0f,
    };
    if (c->kind == THAW_ADAM || c->kind == THAW_ADAMW)
        s.alpha = s.rate * sqrtf(1.0f - power(c->beta_2, t)) / (1.0f - power(c->beta_1, t));
    return s;
}

void thaw_optimizer_prepare(thaw_optimizer *o, const float *parameters, float *gradients, const thaw_segment *segments,
                            int n_segments) {
    o->squares = 0.0;
    for (int i = 0; i < n_segments; i++) { /* before any norm is taken */
        const thaw_segment *segment = &segments[i];
        float *g = gradients + segment->offset;
        if (segment->l1 > 0.0f || segment->l2 > 0.0f)
            add_penalty(segment->count, parameters + segment->offset, g, segment->l1, segment->l2);
        if (o->config.clipnorm <= 0.0 && o->config.global_clipnorm > 0.0)
            o->squares += sum_all(g, segment->count, SUM_SQUARES);
    }
}

/* Piece by piece a part of n values from place `at` on; whether any gradient is not finite. */
static int update_pieces(const thaw_optimizer *o, const step_numbers *s, size_t at, size_t n, float *parameters, float *gradients,
                         thaw_part part) {
    const int64_t pieces = (int64_t)((n + PIECE - 1) / PIECE);
    int bad = 0;
#pragma omp parallel for schedule(static) reduction(| : bad) if (n >= PARALLEL && !thaw_threads_busy())
    for (int64_t piece = thaw_part_begin(part, pieces); piece < thaw_part_end(part, pieces); piece++) {
        const size_t from = (size_t)piece * PIECE;
        bad |= update_piece(o, s, at + from, piece_floats(n, from), parameters + at + from, gradients + at + from);
    }
    return bad;
}

bool thaw_optimizer_update(thaw_optimizer *o, float *parameters, float *gradients, const thaw_segment *segments,
                           int n_segments, thaw_part part) {
    const thaw_job_optimizer *c = &o->config;
    step_numbers s = prepare(o);
    int bad = 0;
    if (c->clipnorm <= 0.0 && c->global_clipnorm > 0.0) {
        float norm = (float)sqrt(o->squares), limit = (float)c->global_clipnorm;
        s.scale = limit * fminf(1.0f / norm, 1.0f / limit);
        s.clipped = true;
    }
    for (int i = 0; i < n_segments; i++) {
        const size_t offset = segments[i].offset, count = segments[i].count;
        if (c->clipnorm > 0.0) { /* g * c / max(norm, c) */
            s.scale = (float)c->clipnorm;
            s.divisor = fmaxf((float)sqrt(sum_all(gradients + offset, count, SUM_SQUARES)), s.scale);
            s.clipped = true;
        }
        bad |= update_pieces(o, &s, offset, count, parameters, gradients, part);
    }
    thaw_optimizer_stepped(o);
    return !bad;
}

bool thaw_optimizer_update_span(thaw_optimizer *o, float *parameters, float *gradients, size_t at, size_t count,
                                const thaw_segment *segments, int n_segments) {
    const step_numbers s = prepare(o);
    int bad = 0;
    for (int i = 0; i < n_segments; i++) { /* no padding: 0 / 0 of some optimizer would be no number */
        const size_t begin = segments[i].offset > at ? segments[i].offset : at, there = segments[i].offset + segments[i].count;
        const size_t end = there < at + count ? there : at + count;
        if (begin < end)
            bad |= update_pieces(o, &s, begin, end - begin, parameters, gradients, THAW_WHOLE);
    }
    return !bad;
}

void thaw_optimizer_stepped(thaw_optimizer *o) { o->step++; }

double thaw_regularizer_loss(const float *parameters, const thaw_segment *segments, int n_segments) {
    double loss = 0.0;
    for (int i = 0; i < n_segments; i++) {
        const float *w = parameters + segments[i].offset;
        if (segments[i].l1 > 0.0f)
            loss += (double)segments[i].l1 * sum_all(w, segments[i].count, SUM_ABSOLUTE);
        if (segments[i].l2 > 0.0f)
            loss += (double)segments[i].l2 * sum_all(w, segments[i].count, SUM_SQUARES);
    }
    return loss;
}
