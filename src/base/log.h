/* Messages of the run: to standard error through a sink that the program sets; rank 0 only by default. */
#ifndef THAW_BASE_LOG_H
#define THAW_BASE_LOG_H
typedef enum thaw_log_level { THAW_LOG_INFO, THAW_LOG_WARNING } thaw_log_level;
typedef void (*thaw_log_sink)(thaw_log_level level, const char *line, void *payload);
/* NULL: silent (the library's default). The sink must be thread-safe. */
void thaw_log_set(thaw_log_sink sink, void *payload);
void thaw_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void thaw_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
#endif
