/* The one message of a failure, kept per thread, and the meanings of the statuses. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "thaw/status.h"

enum { MESSAGE_BYTES = 4096 };

static _Thread_local char message[MESSAGE_BYTES];

thaw_status thaw_fail(thaw_status status, const char *format, ...) {
    /* Formatted aside first: an argument may be the old message itself. */
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0)
        text[0] = 0;
    else if (length >= MESSAGE_BYTES)
        memcpy(text + MESSAGE_BYTES - 4, "...", 4);
    /* A message is one line without terminal controls, also when a file name or a library's text inside it is not. */
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = ' ';
    memcpy(message, text, strlen(text) + 1);
    return status;
}

const char *thaw_message(void) { return message; }

const char *thaw_status_meaning(thaw_status status) {
    switch (status) {
#define STATUS_MEANING(name, code, meaning) \
    case THAW_##name:                       \
        return meaning;
        THAW_STATUS_LIST(STATUS_MEANING)
#undef STATUS_MEANING
    }
    return "unknown status";
}
