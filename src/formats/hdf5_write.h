/* HDF5 images in memory: earliest file format, no object times, so that equal contents give equal bytes. */
#ifndef THAW_FORMATS_HDF5_WRITE_H
#define THAW_FORMATS_HDF5_WRITE_H

#include <hdf5.h>
#include <stdint.h>

#include "thaw/status.h"

/* Where an open file's bytes lie; stays in its place until the file is closed. */
typedef struct thaw_h5_image {
    void *bytes;
    size_t capacity;
} thaw_h5_image;

/* Empty image; `expected`: bytes of data to come, saves copying. [out] image: has a meaning until finish or drop.
 * THAW_RESOURCE. */
thaw_status thaw_h5_create(hid_t *file, thaw_h5_image *image, size_t expected);
/* Gives the image itself (thaw_free), no copy, and closes `file`, also on failure. */
thaw_status thaw_h5_finish(void **bytes, size_t *size, hid_t file, thaw_h5_image *image);
/* Closes `file` (-1: none) and frees the image. */
void thaw_h5_drop(hid_t file, thaw_h5_image *image);

thaw_status thaw_h5_make_group(hid_t *group, hid_t parent, const char *name); /* with intermediate groups */
/* Text attributes: one variable-length UTF-8 text; one fixed-length text; a list of fixed-length texts, cut into chunks
 * where HDF5's limit of an attribute asks for it (Keras' save_attributes_to_hdf5_group); the same of variable length. */
thaw_status thaw_h5_put_text(hid_t object, const char *name, const char *text);
thaw_status thaw_h5_put_fixed(hid_t object, const char *name, const char *text);
thaw_status thaw_h5_put_names(hid_t object, const char *name, const char *const *names, int n);
thaw_status thaw_h5_put_texts(hid_t object, const char *name, const char *const *texts, int n);
/* Datasets: float32 little-endian, contiguous; a list of variable-length UTF-8 texts. */
thaw_status thaw_h5_put_floats(hid_t group, const char *path, const float *data, const int64_t *shape, int rank);
thaw_status thaw_h5_put_text_list(hid_t group, const char *path, const char *const *texts, int64_t n);
#endif
