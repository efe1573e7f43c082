/* What thaw bench --scaling prints and writes. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "scaling.h"

extern char **environ;

const char *const thaw_scaling_names[2] = {"strong", "weak"};
const char *const thaw_exchange_names[4] = {"auto", "overlap", "mpi", "fp16"};

double thaw_scaling_rate(const thaw_scaling_point *p) { return (double)p->images / p->step.median; }
double thaw_scaling_wait_share(const thaw_scaling_point *p) { return p->phases.exchange / p->step.median; }

static cJSON *point_json(const thaw_scaling *s, const thaw_scaling_point *p) {
    const thaw_step_phases *t = &p->phases;
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "scaling", thaw_scaling_names[p->kind]);
    cJSON_AddStringToObject(row, "plan", s->plans[p->plan].name);
    thaw_json_int(row, "ranks", p->ranks);
    thaw_json_int(row, "hosts", p->hosts);
    thaw_json_int(row, "images", p->images);
    cJSON_AddNumberToObject(row, "seconds", p->step.median);
    cJSON_AddNumberToObject(row, "min", p->step.least);
    cJSON_AddNumberToObject(row, "max", p->step.most);
    cJSON_AddNumberToObject(row, "images_per_second", thaw_scaling_rate(p));
    cJSON_AddNumberToObject(row, "efficiency", p->efficiency);
    thaw_json_int(row, "exchanged_bytes", (int64_t)p->handed);
    cJSON_AddNumberToObject(row, "wait_share", thaw_scaling_wait_share(p));
    if (p->ranks > 1)
        cJSON_AddNumberToObject(row, "hidden_share", p->hidden);
    else
        cJSON_AddNullToObject(row, "hidden_share");
    cJSON *phases = cJSON_AddObjectToObject(row, "phases");
    cJSON_AddNumberToObject(phases, "forward", t->forward);
    cJSON_AddNumberToObject(phases, "loss", t->loss);
    cJSON_AddNumberToObject(phases, "backward", t->backward);
    cJSON_AddNumberToObject(phases, "prefix", t->prefix);
    cJSON_AddNumberToObject(phases, "wait", t->exchange);
    cJSON_AddNumberToObject(phases, "update", t->update);
    if (!s->has_network)
        return row;
    cJSON *forecast = cJSON_AddObjectToObject(row, "predicted");
    cJSON_AddNumberToObject(forecast, "seconds", p->forecast.seconds);
    cJSON_AddNumberToObject(forecast, "images_per_second", (double)p->images / p->forecast.seconds);
    cJSON_AddNumberToObject(forecast, "efficiency", p->forecast_efficiency);
    cJSON_AddNumberToObject(forecast, "wait_share", p->forecast.wait / p->forecast.seconds);
    cJSON_AddNumberToObject(forecast, "hidden_share", p->forecast.hidden);
    cJSON_AddNumberToObject(forecast, "sent_bytes", p->forecast.sent);
    return row;
}

static thaw_status make_json(cJSON **out, const thaw_scaling *s) {
    cJSON *object = cJSON_CreateObject();
    *out = object;
    cJSON_AddStringToObject(object, "model", s->name);
    cJSON_AddItemToObject(object, "input_shape", thaw_json_shape(&s->model->nodes[s->model->input].shape));
    THAW_TRY(thaw_bench_put_scene(object, s->app));
    thaw_json_int(object, "threads", thaw_threads());
    thaw_json_int(object, "batch", s->batch);
    thaw_json_int(object, "global_batch", s->global_batch);
    thaw_json_int(object, "repeat", s->repeat);
    cJSON_AddStringToObject(object, "exchange", thaw_exchange_names[s->exchange]);
    if (s->has_network) {
        cJSON *network = cJSON_AddObjectToObject(object, "network");
        cJSON_AddNumberToObject(network, "latency", s->network.latency);
        cJSON_AddNumberToObject(network, "bandwidth", s->network.bandwidth);
    }
    cJSON *plans = cJSON_AddArrayToObject(object, "plans");
    for (int i = 0; i < s->n_plans; i++) {
        cJSON *row = cJSON_CreateObject();
        cJSON_AddItemToArray(plans, row);
        cJSON_AddStringToObject(row, "name", s->plans[i].name);
        cJSON_AddStringToObject(row, "spec", s->plans[i].spec);
        cJSON_AddStringToObject(row, "freeze", s->plans[i].frozen);
        thaw_json_int(row, "trainable_params", s->plans[i].trainable_params);
        thaw_json_int(row, "gradient_bytes", s->plans[i].gradient_bytes);
        thaw_json_int(row, "full_gradient_bytes", s->plans[i].full_gradient_bytes);
    }
    cJSON *points = cJSON_AddArrayToObject(object, "points");
    for (int i = 0; i < s->n_points; i++)
        cJSON_AddItemToArray(points, point_json(s, &s->points[i]));
    return THAW_OK;
}

static const char *share_words(thaw_words *words, bool known, double share) {
    words->text[0] = '-';
    words->text[1] = 0;
    if (known)
        snprintf(words->text, sizeof words->text, "%.1f", 100.0 * share);
    return words->text;
}

static void put_table(thaw_buffer *text, const thaw_scaling *s, int plan) {
    const thaw_scaling_plan *of = &s->plans[plan];
    thaw_words a, b;
    thaw_buffer_printf(text, "\n%s: %s; %s parameters train, %s of gradients\n", of->name, of->frozen,
                       thaw_commas(&a, of->trainable_params), thaw_megabytes(&b, (double)of->gradient_bytes));
    thaw_buffer_printf(text, "%-7s %6s %6s %8s %10s %11s %7s %7s %8s", "scaling", "ranks", "hosts", "images", "ms a step",
                       "images/s", "eff. %", "wait %", "hidden %");
    thaw_buffer_printf(text, s->has_network ? " %22s\n" : "\n", "predicted images/s, %");
    for (int i = 0; i < s->n_points; i++) {
        const thaw_scaling_point *p = &s->points[i];
        if (p->plan != plan)
            continue;
        thaw_buffer_printf(text, "%-7s %6d %6d %8lld %10.2f %11.2f %7.1f %7s %8s", thaw_scaling_names[p->kind], p->ranks,
                           p->hosts, (long long)p->images, 1e3 * p->step.median, thaw_scaling_rate(p), 100.0 * p->efficiency,
                           share_words(&a, p->ranks > 1, thaw_scaling_wait_share(p)),
                           share_words(&b, p->ranks > 1, p->hidden));
        if (s->has_network)
            thaw_buffer_printf(text, " %14.2f %7.1f", (double)p->images / p->forecast.seconds, 100.0 * p->forecast_efficiency);
        thaw_buffer_printf(text, "\n");
    }
}

static void put_text(thaw_buffer *text, const thaw_scaling *s) {
    const int ranks = thaw_comm_size(s->app->comm);
    thaw_words a;
    thaw_buffer_printf(text, "%s %s on 1 to %d rank%s x %d thread%s, exchange %s, median of %lld steps\n", s->name,
                       thaw_shape_words(&a, &s->model->nodes[s->model->input].shape), ranks, ranks == 1 ? "" : "s",
                       thaw_threads(), thaw_threads() == 1 ? "" : "s", thaw_exchange_names[s->exchange], (long long)s->repeat);
    thaw_buffer_printf(text, "strong: %lld images over all ranks; weak: %lld images on each\n", (long long)s->global_batch,
                       (long long)s->batch);
    for (int i = 0; i < s->n_plans; i++)
        put_table(text, s, i);
    thaw_buffer_printf(text, "\neff. %%: images/s of a rank over those of one rank alone. wait %%: of a step, for sums of "
                             "gradients from other\nranks. hidden %%: of the gradients, summed before they were waited for.\n");
}

thaw_status thaw_scaling_print(const thaw_scaling *s, bool json) {
    if (!json) {
        thaw_buffer text = {0};
        put_text(&text, s);
        return thaw_app_print_buffer(s->app, &text);
    }
    cJSON *object;
    const thaw_status status = make_json(&object, s);
    if (status == THAW_OK)
        return thaw_app_print_json(s->app, object);
    cJSON_Delete(object);
    return status;
}

/* A name between quotes, which are doubled inside. */
static void put_quoted(thaw_buffer *text, char quote, const char *name) {
    thaw_buffer_put(text, &quote, 1);
    for (; *name; name++) {
        if (*name == quote)
            thaw_buffer_put(text, &quote, 1);
        thaw_buffer_put(text, name, 1);
    }
    thaw_buffer_put(text, &quote, 1);
}

static void put_csv(thaw_buffer *text, const thaw_scaling *s) {
    thaw_buffer_printf(text, "scaling,plan,ranks,hosts,images,seconds,min,max,images_per_second,efficiency,exchanged_bytes,"
                             "wait_share,hidden_share%s\n",
                       s->has_network ? ",predicted_seconds,predicted_images_per_second,predicted_efficiency,"
                                        "predicted_hidden_share" : "");
    for (int i = 0; i < s->n_points; i++) {
        const thaw_scaling_point *p = &s->points[i];
        thaw_buffer_printf(text, "%s,", thaw_scaling_names[p->kind]);
        put_quoted(text, '"', s->plans[p->plan].name);
        thaw_buffer_printf(text, ",%d,%d,%lld,%.9g,%.9g,%.9g,%.9g,%.9g,%.0f,%.9g,", p->ranks, p->hosts, (long long)p->images,
                           p->step.median, p->step.least, p->step.most, thaw_scaling_rate(p), p->efficiency, p->handed,
                           thaw_scaling_wait_share(p));
        if (p->ranks > 1)
            thaw_buffer_printf(text, "%.9g", p->hidden);
        if (s->has_network)
            thaw_buffer_printf(text, ",%.9g,%.9g,%.9g,%.9g", p->forecast.seconds, (double)p->images / p->forecast.seconds,
                               p->forecast_efficiency, p->forecast.hidden);
        thaw_buffer_printf(text, "\n");
    }
}

/* Two drawings side by side, strong and weak, from the file with the numbers. */
static void put_gnuplot(thaw_buffer *text, const thaw_scaling *s) {
    thaw_buffer_printf(text, "# gnuplot scaling.gp, in the folder of scaling.csv\n"
                             "set terminal svg size 1000,420 background 'white'\nset output 'scaling.svg'\n"
                             "set datafile separator ','\nset key left top\nset grid\nset logscale x 2\n"
                             "set xlabel 'ranks'\nset ylabel 'images/s'\nset yrange [0:*]\nset multiplot layout 1,2\n");
    for (int kind = 0; kind < 2; kind++) {
        if (!s->kinds[kind])
            continue;
        const char *name = thaw_scaling_names[kind];
        thaw_buffer_printf(text, "set title '%s scaling: %lld images %s'\nplot ", name,
                           (long long)(kind == THAW_WEAK ? s->batch : s->global_batch),
                           kind == THAW_WEAK ? "on each rank" : "over all ranks");
        for (int i = 0; i < s->n_plans; i++)
            for (int predicted = 0; predicted <= (s->has_network ? 1 : 0); predicted++) {
                thaw_buffer_printf(text, "%s\\\n  'scaling.csv' using 3:(strcol(1) eq '%s' && strcol(2) eq ",
                                   i || predicted ? ", " : "", name);
                put_quoted(text, '\'', s->plans[i].name);
                thaw_buffer_printf(text, " ? column(%d) : 1/0) with linespoints lc %d%s title ", predicted ? 15 : 9, i + 1,
                                   predicted ? " dt 2" : "");
                put_quoted(text, '\'', s->plans[i].name);
                thaw_buffer_printf(text, predicted ? ".', predicted' noenhanced" : " noenhanced");
            }
        thaw_buffer_printf(text, "\n");
    }
    thaw_buffer_printf(text, "unset multiplot\n");
}

static thaw_status write_buffer(thaw_buffer *text, const char *folder, const char *name) {
    char *path = thaw_path_join(folder, name);
    thaw_status status = text->failed || !path ? thaw_fail(THAW_RESOURCE, "not enough memory for %s", name)
                                               : thaw_io_write_atomic(path, text->data, text->size);
    thaw_free(path);
    thaw_buffer_free(text);
    return status;
}

/* The picture is an extra: without gnuplot, or with one that cannot draw it, the script remains. */
static void draw(const char *folder) {
    char *const arguments[] = {(char *)"gnuplot", (char *)"scaling.gp", NULL};
    posix_spawn_file_actions_t actions;
    pid_t child = 0;
    int ended = 0, error = posix_spawn_file_actions_init(&actions);
    if (error == 0)
        error = posix_spawn_file_actions_addchdir_np(&actions, folder);
    if (error == 0)
        error = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", 1 /* O_WRONLY */, 0);
    if (error == 0)
        error = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", 1, 0);
    if (error == 0)
        error = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    while (error == 0 && waitpid(child, &ended, 0) < 0)
        error = errno == EINTR ? 0 : errno;
    if (error == ENOENT || (error == 0 && WIFEXITED(ended) && WEXITSTATUS(ended) == 127))
        thaw_info("no gnuplot: scaling.gp draws the picture where there is one");
    else if (error != 0 || !WIFEXITED(ended) || WEXITSTATUS(ended) != 0)
        thaw_warn("gnuplot could not draw scaling.gp; scaling.html has drawings of its own");
}

thaw_status thaw_scaling_write(const thaw_scaling *s, const char *folder) {
    thaw_buffer text = {0};
    cJSON *object;
    thaw_status status = make_json(&object, s);
    char *json = status == THAW_OK ? cJSON_Print(object) : NULL;
    cJSON *scene = cJSON_GetObjectItem(object, "machine");
    thaw_buffer page = {0};
    if (status == THAW_OK)
        thaw_scaling_page(&page, s, scene ? scene->valuestring : "");
    if (status == THAW_OK && !json)
        status = thaw_fail(THAW_RESOURCE, "not enough memory for scaling.json");
    if (status == THAW_OK) {
        thaw_buffer_printf(&text, "%s\n", json);
        status = write_buffer(&text, folder, "scaling.json");
    }
    cJSON_free(json);
    cJSON_Delete(object);
    if (status == THAW_OK)
        status = write_buffer(&page, folder, "scaling.html");
    thaw_buffer_free(&page);
    THAW_TRY(status);
    put_csv(&text, s);
    THAW_TRY(write_buffer(&text, folder, "scaling.csv"));
    put_gnuplot(&text, s);
    THAW_TRY(write_buffer(&text, folder, "scaling.gp"));
    draw(folder);
    return THAW_OK;
}
