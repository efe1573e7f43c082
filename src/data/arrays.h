/* HDF5 datasets read as rows of floats. HDF5 runs one call at a time, so one thread reads a dataset. */
#ifndef THAW_DATA_ARRAYS_H
#define THAW_DATA_ARRAYS_H

#include <stdint.h>

#include "thaw/status.h"

enum { THAW_ARRAY_RANK = 4 };

typedef struct thaw_array {
    char *name;                    /* "FILE.h5:/dataset", for messages */
    int64_t file, dataset;         /* HDF5's handles */
    int rank;
    int64_t dims[THAW_ARRAY_RANK]; /* dims[0] rows */
    int64_t width;                 /* values of a row */
    size_t kept;                   /* bytes of chunks that HDF5 keeps inflated at most */
} thaw_array;

/* Opens a dataset of integers or floats of rank 1..4 that lies in this file: no links to other places, no external storage.
 * Errors: THAW_NO_INPUT (file or dataset missing), THAW_DATA, THAW_RESOURCE. */
thaw_status thaw_array_open(thaw_array *out, const char *file, const char *dataset);
void thaw_array_close(thaw_array *array); /* accepts one that was never opened and is all zero */
/* out (count,width): rows first.. in float. Errors: THAW_DATA. Call thaw_arrays_quiet once in each thread that reads. */
thaw_status thaw_array_read(thaw_array *array, float *out, int64_t first, int64_t count);
/* HDF5 keeps its own messages to itself in this thread. */
void thaw_arrays_quiet(void);
/* A thread may read while another one writes a checkpoint. Errors: THAW_RESOURCE (HDF5 was built without locks). */
thaw_status thaw_arrays_check_threads(void);

#endif
