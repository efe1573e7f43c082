/* Predictions as an HDF5 image. */
#ifndef THAW_FORMATS_PREDICTIONS_H
#define THAW_FORMATS_PREDICTIONS_H
#include <stddef.h>
#include <stdint.h>

#include "thaw/status.h"

/* /y (n,outputs) float32, and /files (n texts, UTF-8) unless `files` is NULL. [out] bytes: thaw_free. */
thaw_status thaw_predictions_image(void **bytes, size_t *size, const float *y, int64_t n, int64_t outputs,
                                   const char *const *files);
#endif
