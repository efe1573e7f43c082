/* Text as a JSON string. Private to src/train. */
#ifndef THAW_TRAIN_JSON_TEXT_H
#define THAW_TRAIN_JSON_TEXT_H

#include "base/text.h"

/* Appends `text` in quotes, escaped. Bytes that are no UTF-8 (file names may hold any) become U+FFFD, so that every reader
 * takes the line. */
void thaw_buffer_json(thaw_buffer *out, const char *text);
#endif
