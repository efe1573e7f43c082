#include "train/json_text.h"

#include <string.h>

/* Length of the UTF-8 sequence at `at` (RFC 3629: shortest form, no surrogates, up to U+10FFFF); 0 if it is none. */
static size_t sequence(const unsigned char *at) {
    static const struct {
        unsigned char first, last, low, high; /* first byte from..to, second byte from..to */
        size_t length;
    } forms[] = {{0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
                 {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                 {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (at[0] < forms[i].first || at[0] > forms[i].last)
            continue;
        if (forms[i].length > 1 && (at[1] < forms[i].low || at[1] > forms[i].high))
            return 0;
        for (size_t k = 2; k < forms[i].length; k++) /* the zero behind the text ends this too */
            if (at[k] < 0x80 || at[k] > 0xbf)
                return 0;
        return forms[i].length;
    }
    return 0;
}

void thaw_buffer_json(thaw_buffer *out, const char *text) {
    thaw_buffer_put(out, "\"", 1);
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        size_t length = sequence(at);
        if (length == 0)
            thaw_buffer_put(out, "\xef\xbf\xbd", 3);
        else if (*at == '"' || *at == '\\')
            thaw_buffer_printf(out, "\\%c", *at);
        else if (*at < 0x20 || *at == 0x7f)
            thaw_buffer_printf(out, "\\u%04x", *at);
        else
            thaw_buffer_put(out, at, length);
        at += length ? length : 1;
    }
    thaw_buffer_put(out, "\"", 1);
}
