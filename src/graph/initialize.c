/* Initial weights: every element is a function of (seed, name of the tensor, element), so any rank gets the same. */
#include <math.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "graph/build.h"

#define PI 3.14159265358979323846
/* Standard deviation of a standard normal truncated at 2 (Keras: VarianceScaling divides by it). */
#define TRUNCATED_STDDEV 0.87962566103423978
#define MAX_DRAWS 64 /* one draw in 22 is refused: 2^-285 for this many */

typedef enum shape_of_draw { UNIFORM, NORMAL, TRUNCATED } shape_of_draw;

typedef struct distribution {
    shape_of_draw kind;
    double low, width; /* UNIFORM: low + width*u */
    double stddev;
} distribution;

/* Keras: compute_fans. (kh,kw,Cin,Cout) receptive field times channels, (in,units), (n). */
static void fans_of(const thaw_tensor *tensor, double *in, double *out) {
    double field = 1.0;
    for (int i = 0; i < tensor->rank - 2; i++)
        field *= (double)tensor->shape[i];
    *in = field * (double)tensor->shape[tensor->rank >= 2 ? tensor->rank - 2 : 0];
    *out = field * (double)tensor->shape[tensor->rank - 1];
}

static distribution uniform_within(double limit) { return (distribution){.kind = UNIFORM, .low = -limit, .width = 2 * limit}; }

static distribution truncated(double stddev) { return (distribution){.kind = TRUNCATED, .stddev = stddev}; }

static distribution distribution_of(const thaw_tensor *tensor) {
    double in, out, a = (double)tensor->init_a, b = (double)tensor->init_b;
    fans_of(tensor, &in, &out);
    switch (tensor->initializer) {
    case THAW_INIT_GLOROT_UNIFORM: return uniform_within(sqrt(6.0 / (in + out)));
    case THAW_INIT_HE_UNIFORM: return uniform_within(sqrt(6.0 / in));
    case THAW_INIT_LECUN_UNIFORM: return uniform_within(sqrt(3.0 / in));
    case THAW_INIT_GLOROT_NORMAL: return truncated(sqrt(2.0 / (in + out)) / TRUNCATED_STDDEV);
    case THAW_INIT_HE_NORMAL: return truncated(sqrt(2.0 / in) / TRUNCATED_STDDEV);
    case THAW_INIT_LECUN_NORMAL: return truncated(sqrt(1.0 / in) / TRUNCATED_STDDEV);
    case THAW_INIT_RANDOM_NORMAL: return (distribution){.kind = NORMAL, .stddev = a};
    case THAW_INIT_TRUNCATED_NORMAL: return truncated(a);
    case THAW_INIT_RANDOM_UNIFORM: return (distribution){.kind = UNIFORM, .low = a, .width = b - a};
    case THAW_INIT_CONSTANT: break;
    }
    return (distribution){.kind = UNIFORM, .low = a};
}

/* Standard normal for word `lane` of a draw: Box and Muller (1958), words 0 and 1 give lanes 0 and 1, 2 and 3 the rest. */
static double normal(const thaw_draw *draw, int lane) {
    double u = ((double)draw->word[lane & 2] + 0.5) * 0x1p-32, v = (double)draw->word[lane | 1] * 0x1p-32;
    double radius = sqrt(-2.0 * log(u));
    return lane & 1 ? radius * sin(2.0 * PI * v) : radius * cos(2.0 * PI * v);
}

static double value_of(const distribution *d, uint64_t seed, uint32_t key, uint64_t quad, int lane, const thaw_draw *first) {
    if (d->kind == UNIFORM)
        return d->low + d->width * (double)thaw_uniform(first->word[lane]);
    double z = normal(first, lane);
    for (uint32_t draw = 1; d->kind == TRUNCATED && fabs(z) > 2.0; draw++) {
        if (draw == MAX_DRAWS)
            return 0.0;
        thaw_draw again = thaw_philox(seed, THAW_DRAW_INIT, key, quad, draw);
        z = normal(&again, lane);
    }
    return z * d->stddev;
}

static void fill(thaw_tensor *tensor, uint64_t seed, uint32_t key) {
    const distribution d = distribution_of(tensor);
    int64_t count = (int64_t)tensor->count, quads = (count + 3) / 4;
    float *data = tensor->data;
    if (tensor->initializer == THAW_INIT_CONSTANT) {
        for (int64_t i = 0; i < count; i++)
            data[i] = tensor->init_a;
        return;
    }
#pragma omp parallel for schedule(static) num_threads(thaw_threads()) if (quads > 4096)
    for (int64_t q = 0; q < quads; q++) {
        thaw_draw draw = thaw_philox(seed, THAW_DRAW_INIT, key, (uint64_t)q, 0);
        for (int lane = 0; lane < 4 && 4 * q + lane < count; lane++)
            data[4 * q + lane] = (float)value_of(&d, seed, key, (uint64_t)q, lane, &draw);
    }
}

void thaw_model_initialize(thaw_model *model, uint64_t seed) {
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++) {
            thaw_tensor *tensor = &model->layers[i].tensors[t];
            /* hash of "layer/tensor", chained so that no memory is needed */
            uint64_t hash = thaw_hash_text(tensor->name, thaw_hash_text("/", thaw_hash_text(model->layers[i].name, 0)));
            if (!tensor->loaded && tensor->data)
                fill(tensor, seed, (uint32_t)hash);
        }
}
