#include "train/history.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/memory.h"
#include "base/text.h"

enum { COLUMNS = 4 + 2 * THAW_METRICS };

struct thaw_history {
    char *path;
    uint64_t size;
    int n;
    char *columns[COLUMNS]; /* behind epoch and stage, sorted */
};

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The columns of training, and again with val_ in front. */
static bool add_columns(thaw_history *history, const thaw_objective *objective, const char *prefix) {
    history->columns[history->n++] = thaw_format("%sloss", prefix);
    for (int m = 0; m < objective->n_metrics; m++)
        history->columns[history->n++] = thaw_format("%s%s", prefix, thaw_metric_name(objective->metrics[m]));
    for (int i = 0; i < history->n; i++)
        if (!history->columns[i])
            return false;
    return true;
}

thaw_status thaw_history_open(thaw_history **out, const char *folder, const thaw_objective *objective, bool validation) {
    thaw_history *history = thaw_calloc(1, sizeof *history);
    *out = NULL;
    if (!history)
        return thaw_fail(THAW_RESOURCE, "no memory for the history of %s", folder);
    history->path = thaw_path_join(folder, "history.csv");
    history->columns[history->n++] = thaw_strdup("learning_rate");
    if (!history->path || !add_columns(history, objective, "") ||
        (validation && !add_columns(history, objective, "val_"))) {
        thaw_history_free(history);
        return thaw_fail(THAW_RESOURCE, "no memory for the history of %s", folder);
    }
    qsort(history->columns, (size_t)history->n, sizeof *history->columns, compare_names);
    history->size = thaw_io_size(history->path);
    *out = history;
    return THAW_OK;
}

void thaw_history_free(thaw_history *history) {
    if (!history)
        return;
    for (int i = 0; i < history->n; i++)
        thaw_free(history->columns[i]);
    thaw_free(history->path);
    thaw_free(history);
}

/* A field as RFC 4180 quotes it: where it must be, and "" for a quote. */
static void put_field(thaw_buffer *row, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        thaw_buffer_put(row, text, strlen(text));
        return;
    }
    thaw_buffer_put(row, "\"", 1);
    for (const char *c = text; *c; c++)
        thaw_buffer_put(row, *c == '"' ? "\"\"" : c, *c == '"' ? 2 : 1);
    thaw_buffer_put(row, "\"", 1);
}

static void put_value(thaw_buffer *row, const char *column, const thaw_values *values) {
    for (int i = 0; i < values->n; i++)
        if (strcmp(values->names[i], column) == 0) {
            thaw_buffer_printf(row, ",%.9g", values->values[i]);
            return;
        }
    thaw_buffer_printf(row, ",NA");
}

thaw_status thaw_history_row(thaw_history *history, int64_t epoch, const char *stage, const thaw_values *values) {
    if (!history)
        return THAW_OK;
    thaw_buffer row = {0};
    if (history->size == 0) {
        thaw_buffer_printf(&row, "epoch,stage");
        for (int i = 0; i < history->n; i++)
            thaw_buffer_printf(&row, ",%s", history->columns[i]);
        thaw_buffer_printf(&row, "\n");
    }
    thaw_buffer_printf(&row, "%lld,", (long long)epoch);
    put_field(&row, stage);
    for (int i = 0; i < history->n; i++)
        put_value(&row, history->columns[i], values);
    thaw_buffer_printf(&row, "\n");
    thaw_status status = row.failed ? thaw_fail(THAW_RESOURCE, "no memory for a row of %s", history->path)
                                    : thaw_io_append(history->path, row.data, row.size);
    if (status == THAW_OK)
        history->size += row.size;
    thaw_buffer_free(&row);
    return status;
}

uint64_t thaw_history_size(const thaw_history *history) { return history ? history->size : 0; }

thaw_status thaw_history_rewind(thaw_history *history, uint64_t size) {
    if (!history)
        return THAW_OK;
    THAW_TRY(thaw_io_truncate(history->path, size));
    history->size = thaw_io_size(history->path);
    return THAW_OK;
}
