/* What the user is told: the plan at the start of a stage, what freezing avoided at its end, how to use the model. */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "graph/freeze.h"
#include "train/cache.h"
#include "train/run.h"

char *thaw_report_draws(const thaw_run *run) {
    const long long draws = (long long)run->job->cache_variants, epochs = (long long)run->job->stages[run->at.stage].epochs;
    if (draws == 0)
        return NULL;
    const thaw_loader_options options = thaw_stage_loader_options(run, false);
    if (!options.augment || (run->train->arrays && run->train->x_rank == 2))
        return thaw_format("cache.variants: %lld: nothing is augmented, each image has one form", draws);
    return thaw_format("cache.variants: each image has %lld draw%s, used %.3g times in %lld epoch%s%s", draws,
                       draws == 1 ? "" : "s", (double)epochs / (double)draws, epochs, epochs == 1 ? "" : "s",
                       draws > 2 ? " (mirroring alone has two forms, which are kept without cache.variants)" : "");
}

void thaw_report_plan(const thaw_run *run) {
    const thaw_plan *plan = run->plan;
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    thaw_info("stage %s (%lld of %d): %s; %lld parameters train, %lld do not", stage->name, (long long)run->at.stage + 1,
              run->job->n_stages, thaw_freeze_describe(run->trainable, run->model), (long long)plan->trainable_params,
              (long long)plan->frozen_params);
    for (int i = 0; i < plan->n_boundary && i < 4; i++)
        thaw_info("  boundary: %s", run->model->layers[run->model->nodes[plan->boundary[i]].layer].name);
    const int together = thaw_stage_together(run);
    if (together > 1)
        thaw_info("  what is frozen in front takes the images of %d %s at once", together,
                  run->job->accumulate > 1 ? "parts of steps" : "steps");
    const int ranks = thaw_comm_size(run->comm), sharers = thaw_exchange_sharers(run->exchange);
    if (ranks > 1)
        thaw_info("  gradients are summed %s%s%s",
                  sharers > 1 ? "in memory that the ranks of a host have in common" : "by messages",
                  sharers > 1 && ranks > sharers ? ", between hosts by messages" : "",
                  run->update.owned ? ", and each weight is updated by the rank that has the sum" : "");
    const thaw_cache *const caches[] = {run->cache, run->validation_cache};
    for (int i = 0; i < 2; i++)
        if (caches[i] && caches[i]->note)
            thaw_info("  %s", caches[i]->note);
    char *draws = thaw_report_draws(run);
    if (draws)
        thaw_info("  %s", draws);
    thaw_free(draws);
    bool pretrained_moving = false;
    for (int i = 0; i < run->model->n_layers; i++)
        pretrained_moving = pretrained_moving || (run->model->layers[i].kind == THAW_LAYER_BATCH_NORMALIZATION &&
                                                  run->trainable[i] && !run->batch_statistics[i]);
    if (pretrained_moving && stage->batch_norm_statistics < 0)
        thaw_info("  batch_norm_statistics: moving: unfrozen batch norms of the base keep their moving statistics and learn "
                  "gamma and beta; plain Keras fit would use batch statistics (batch_norm_statistics: batch)");
}

const char *thaw_bytes_text(double bytes, char text[32]) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    int unit = 0;
    while (bytes >= 1000.0 && unit < 4) {
        bytes /= 1000.0;
        unit++;
    }
    snprintf(text, 32, unit ? "%.2f %s" : "%.0f %s", bytes, units[unit]);
    return text;
}

void thaw_report_stage(const thaw_run *run) {
    if (thaw_comm_rank(run->comm) != 0)
        return;
    const thaw_plan *plan = run->plan;
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    double forward = plan->forward_flop * 1e-9, backward = plan->backward_flop * 1e-9;
    double full = plan->forward_flop * 1e-9 + plan->full_backward_flop * 1e-9;
    int slots = run->optimizer->n_slots;
    char a[32], b[32];
    thaw_info("stage %s, avoided by freezing:", stage->name);
    thaw_info("  %-34s %12s %12s %9s", "", "this stage", "unfrozen", "avoided");
    thaw_info("  %-34s %12.3f %12.3f %8.1f%%", "GFLOP per image and step", forward + backward, full,
              100.0 * (1.0 - (forward + backward) / (full > 0.0 ? full : 1.0)));
    double part = 100.0 * (1.0 - (double)plan->gradient_bytes /
                                     (double)(plan->full_gradient_bytes ? plan->full_gradient_bytes : 1));
    thaw_info("  %-34s %12s %12s %8.1f%%", "gradient bytes per step", thaw_bytes_text((double)plan->gradient_bytes, a),
              thaw_bytes_text((double)plan->full_gradient_bytes, b), part);
    thaw_info("  %-34s %12s %12s %8.1f%%", "optimizer memory", thaw_bytes_text((double)plan->gradient_bytes * slots, a),
              thaw_bytes_text((double)plan->full_gradient_bytes * slots, b), slots ? part : 0.0);
    const thaw_tally *tally = &run->stage_tally;
    thaw_info("  %-34s %12s %12s %8.1f%%", "exchanged by this rank", thaw_bytes_text((double)tally->exchanged, a),
              thaw_bytes_text((double)tally->steps * (double)thaw_job_wire_bytes(run->job, plan->full_gradient_bytes), b), part);
    if (run->peak)
        thaw_info("  peak memory of a rank so far: %s; this stage was estimated at %s", thaw_bytes_text((double)run->peak, a),
                  thaw_bytes_text((double)run->memory.total, b));
    const thaw_phases *t = &tally->phases;
    thaw_info("  seconds: input %.2f, prefix %.2f, suffix %.2f, backward %.2f, exchange wait %.2f, update %.2f", t->input,
              t->prefix, t->suffix, t->backward, t->wait, t->update);
}

static void put_preprocess(thaw_buffer *out, const thaw_run *run) {
    switch (run->preprocess) {
    case THAW_PREPROCESS_NONE: return;
    case THAW_PREPROCESS_CAFFE:
        thaw_buffer_printf(out, "x = x[..., ::-1] - np.array([103.939, 116.779, 123.68], 'float32')  # caffe\n");
        return;
    case THAW_PREPROCESS_TF: thaw_buffer_printf(out, "x = x / 127.5 - 1.0  # tf\n"); return;
    case THAW_PREPROCESS_TORCH:
        thaw_buffer_printf(out, "x = (x / 255.0 - np.array([0.485, 0.456, 0.406], 'float32')) / "
                                "np.array([0.229, 0.224, 0.225], 'float32')  # torch\n");
        return;
    case THAW_PREPROCESS_RESCALE: thaw_buffer_printf(out, "x = x / 255.0  # rescale\n"); return;
    }
}

/* A Python string literal of a name. */
static void put_quoted(thaw_buffer *out, const char *name) {
    thaw_buffer_put(out, "'", 1);
    for (const char *c = name; *c; c++) {
        if (*c == '\'' || *c == '\\')
            thaw_buffer_put(out, "\\", 1);
        thaw_buffer_put(out, c, 1);
    }
    thaw_buffer_put(out, "'", 1);
}

char *thaw_report_snippet(const thaw_run *run) {
    thaw_buffer out = {0};
    const thaw_shape *in = &run->model->nodes[run->model->input].shape;
    thaw_buffer_printf(&out, "# The model is %s/model.h5; in Keras:\nimport numpy as np, keras\nmodel = keras.models.load_model(",
                       run->folder);
    char *path = thaw_path_join(run->folder, "model.h5");
    put_quoted(&out, path ? path : "model.h5");
    thaw_buffer_printf(&out, ", compile=False)\n");
    thaw_free(path);
    if (in->rank == 3 && !run->train->arrays) {
        thaw_buffer_printf(&out,
                           "data = keras.utils.image_dataset_from_directory('images', labels=None, image_size=(%lld, %lld), "
                           "shuffle=False)\nx = np.concatenate([batch.numpy() for batch in data])\n",
                           (long long)in->dim[0], (long long)in->dim[1]);
    } else {
        thaw_buffer_printf(&out, "x = np.load('x.npy').astype('float32')\n");
    }
    put_preprocess(&out, run);
    thaw_buffer_printf(&out, "y = model.predict(x)\n");
    if (run->train->n_classes) {
        thaw_buffer_printf(&out, "classes = [");
        for (int i = 0; i < run->train->n_classes; i++) {
            thaw_buffer_printf(&out, i ? ", " : "");
            put_quoted(&out, run->train->class_names[i]);
        }
        thaw_buffer_printf(&out, "]\n");
        if (run->objective.units == 1)
            thaw_buffer_printf(&out, "print([classes[int(p > 0.5)] for p in y[:, 0]])\n");
        else
            thaw_buffer_printf(&out, "print([classes[i] for i in y.argmax(-1)])\n");
    }
    if (out.failed) {
        thaw_buffer_free(&out);
        return NULL;
    }
    return out.data;
}
