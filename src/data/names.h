/* Lists of names in one block of memory: n pointers, then the text. A million paths are one allocation. */
#ifndef THAW_DATA_NAMES_H
#define THAW_DATA_NAMES_H

#include <stddef.h>
#include <stdint.h>

/* n names that stand one after the other in `text`, each with its zero byte. [out] block: one thaw_free; NULL without memory,
 * or if `text` does not hold n names. */
char **thaw_names_split(const char *text, size_t size, int64_t n);
/* The names with these numbers. */
char **thaw_names_pick(char *const *names, const int64_t *numbers, int64_t n);

#endif
