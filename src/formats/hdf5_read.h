/* HDF5 files that are not trusted: opened in memory, hard links only, plain storage only, sizes checked before use. */
#ifndef THAW_FORMATS_HDF5_READ_H
#define THAW_FORMATS_HDF5_READ_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "thaw/status.h"

typedef struct thaw_h5 {
    char *path;  /* for messages */
    void *image; /* the file's bytes, which `file` reads */
    size_t size;
    hid_t file;
} thaw_h5;

/* Reads a whole file into memory and opens it. THAW_NO_INPUT, or THAW_DATA with what the file is instead. */
thaw_status thaw_h5_open(thaw_h5 *h5, const char *path);
void thaw_h5_close(thaw_h5 *h5);

/* Group below `parent`, one component of `name` after the other. `layer` is for messages, may be NULL. [out] group: to be
 * closed with H5Gclose. */
thaw_status thaw_h5_group(hid_t *group, const thaw_h5 *h5, hid_t parent, const char *name, const char *layer);
bool thaw_h5_has_link(hid_t group, const char *name);
bool thaw_h5_has_attribute(hid_t object, const char *name);

/* Text attribute; [out] text NULL if there is none. */
thaw_status thaw_h5_text(char **text, const thaw_h5 *h5, hid_t object, const char *name);
/* List of texts, plain or in chunks name0, name1 ...; [out] n -1 if there is none. texts: thaw_h5_free_texts. */
thaw_status thaw_h5_texts(char ***texts, int *n, const thaw_h5 *h5, hid_t object, const char *name);
void thaw_h5_free_texts(char **texts, int n);

/* Opens a dataset of numbers and checks that it has exactly `shape` and honest storage. Close with H5Dclose. */
thaw_status thaw_h5_dataset(hid_t *dataset, const thaw_h5 *h5, hid_t group, const char *name, const char *layer,
                            const int64_t *shape, int rank);
/* Reads it as float and refuses NaN and infinity. */
thaw_status thaw_h5_floats(float *data, size_t count, const thaw_h5 *h5, hid_t dataset, const char *name,
                           const char *layer);
#endif
