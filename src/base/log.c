#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "base/log.h"

enum { LINE_BYTES = 4096 };

static struct {
    pthread_mutex_t lock; /* sink and payload change together */
    thaw_log_sink sink;
    void *payload;
} target = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void put(thaw_log_level level, const char *format, va_list args) {
    pthread_mutex_lock(&target.lock);
    const thaw_log_sink sink = target.sink;
    void *payload = target.payload;
    pthread_mutex_unlock(&target.lock);
    if (!sink)
        return;
    char line[LINE_BYTES];
    if (vsnprintf(line, sizeof line, format, args) >= 0)
        sink(level, line, payload);
}

void thaw_log_set(thaw_log_sink sink, void *payload) {
    pthread_mutex_lock(&target.lock);
    target.sink = sink;
    target.payload = payload;
    pthread_mutex_unlock(&target.lock);
}

void thaw_info(const char *format, ...) {
    va_list args;
    va_start(args, format);
    put(THAW_LOG_INFO, format, args);
    va_end(args);
}

void thaw_warn(const char *format, ...) {
    va_list args;
    va_start(args, format);
    put(THAW_LOG_WARNING, format, args);
    va_end(args);
}
