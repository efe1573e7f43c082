/* Copies of samples on a disk of this host. Private to src/data. */
#ifndef THAW_DATA_STAGING_H
#define THAW_DATA_STAGING_H

#include "thaw/data.h"

/* Where the copy of an image with these bytes lies in a folder of copies. thaw_free. */
char *thaw_staged_name(const char *folder, uint64_t content);
/* Bytes of sample i's copy; false: there is none with the right content, so read the original. [out] bytes: thaw_free. */
bool thaw_staged_read(void **bytes, size_t *size, const thaw_dataset *dataset, int64_t sample);

#endif
