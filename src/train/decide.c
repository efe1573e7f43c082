/* Keras 3.15 callbacks: early_stopping.py, reduce_lr_on_plateau.py, model_checkpoint.py, monitor_callback.py. */
#include "train/decide.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/log.h"

/* Place of a name, -1 if there is none. */
static int find(const thaw_values *values, const char *name) {
    for (int i = 0; i < values->n; i++)
        if (strcmp(values->names[i], name) == 0)
            return i;
    return -1;
}

double thaw_values_get(const thaw_values *values, const char *name) {
    int i = find(values, name);
    return i < 0 ? (double)NAN : values->values[i];
}

void thaw_decisions_init(thaw_decisions *decisions) {
    memset(decisions, 0, sizeof *decisions); /* padding too: it is saved byte by byte */
    decisions->best_epoch = -1;
    thaw_decisions_stage(decisions);
}

void thaw_decisions_stage(thaw_decisions *decisions) {
    decisions->stop_wait = 0;
    decisions->stop_best_epoch = -1;
    decisions->stop_best = 0.0;
    decisions->plateau_wait = decisions->plateau_cooldown = 0;
    decisions->plateau_best = 0.0;
    decisions->plateau_seen = 0;
}

/* A monitored value; with no validation data val_X is read as X, which is said once in a run. */
static bool monitored(thaw_decisions *decisions, const thaw_values *values, const char *monitor, double *value) {
    int i = find(values, monitor);
    if (i < 0 && strncmp(monitor, "val_", 4) == 0) {
        i = find(values, monitor + 4);
        if (i >= 0 && !decisions->warned) {
            thaw_warn("there is no %s without validation data; %s is watched instead", monitor, monitor + 4);
            decisions->warned = 1;
        }
    }
    if (i >= 0)
        *value = values->values[i];
    return i >= 0;
}

/* Mode auto: accuracy is maximised, losses and errors are minimised. */
static bool maximised(const char *monitor, const char *mode) {
    static const char word[] = "accuracy";
    size_t length = strlen(monitor), tail = sizeof word - 1;
    if (mode && strcmp(mode, "auto") != 0)
        return strcmp(mode, "max") == 0;
    return length >= tail && strcmp(monitor + length - tail, word) == 0;
}

/* Keras compares in float32. Never true with NaN. */
static bool better(double value, double reference, double min_delta, bool maximise) {
    double delta = fabs(min_delta);
    return maximise ? (float)(value - delta) > (float)reference : (float)(value + delta) < (float)reference;
}

static void early_stopping(thaw_decisions *d, const thaw_job_early_stopping *s, int64_t epoch, const thaw_values *values,
                           thaw_verdict *verdict) {
    double value;
    if (!s->on || !monitored(d, values, s->monitor, &value) || epoch < s->start_from_epoch)
        return;
    bool maximise = maximised(s->monitor, s->mode);
    d->stop_wait++;
    if (d->stop_best_epoch < 0 || better(value, d->stop_best, s->min_delta, maximise)) {
        d->stop_best = value;
        d->stop_best_epoch = epoch;
        verdict->improved_in_stage = true;
        if (!s->has_baseline || better(value, s->baseline, s->min_delta, maximise))
            d->stop_wait = 0;
        return; /* Keras: no stop in an epoch that improves */
    }
    verdict->stop = d->stop_wait >= s->patience && epoch > 0;
}

static void plateau(thaw_decisions *d, const thaw_job_plateau *s, const thaw_values *values, thaw_verdict *verdict) {
    double value;
    if (!s->on || !monitored(d, values, s->monitor, &value))
        return;
    if (d->plateau_cooldown > 0) {
        d->plateau_cooldown--;
        d->plateau_wait = 0;
    }
    if (!d->plateau_seen || better(value, d->plateau_best, s->min_delta, maximised(s->monitor, s->mode))) {
        d->plateau_best = value;
        d->plateau_seen = 1;
        d->plateau_wait = 0;
    } else if (d->plateau_cooldown == 0 && ++d->plateau_wait >= s->patience &&
               (float)verdict->learning_rate > (float)s->min_lr) {
        verdict->learning_rate = fmax(verdict->learning_rate * s->factor, s->min_lr);
        verdict->lower_rate = true;
        d->plateau_cooldown = s->cooldown;
        d->plateau_wait = 0;
    }
}

thaw_verdict thaw_decide(thaw_decisions *decisions, const thaw_job *job, const thaw_job_stage *stage, int64_t epoch,
                         const thaw_values *values, double learning_rate) {
    thaw_verdict verdict = {.learning_rate = learning_rate};
    double value;
    early_stopping(decisions, &stage->early_stopping, epoch, values, &verdict);
    plateau(decisions, &stage->plateau, values, &verdict);
    if (!monitored(decisions, values, job->monitor, &value)) {
        verdict.improved = true; /* Keras: nothing to compare, so every epoch is kept */
    } else if (decisions->best_epoch < 0 ||
               better(value, decisions->best, 0.0, maximised(job->monitor, job->monitor_mode))) {
        decisions->best = value;
        decisions->best_epoch = epoch;
        verdict.improved = true;
    }
    return verdict;
}
