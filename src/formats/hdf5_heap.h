/* Attributes, looked at in the file's bytes.
 *
 * HDF5 1.10 copies an attribute's data and follows the references of variable-length texts without checking them (one
 * flipped bit ends the process), and all of Keras' files have both. So sizes are checked before HDF5 sees them, and
 * references are followed here, within bounds. Files in the newer layout are left to HDF5: their headers carry checksums.
 * Format: HDF5 File Format
 * Specification 3.0, IV.A.1 (object headers), IV.A.2.m (attributes), III.E (global heap). */
#ifndef THAW_FORMATS_HDF5_HEAP_H
#define THAW_FORMATS_HDF5_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file's bytes. */
typedef struct thaw_h5_bytes {
    const unsigned char *data;
    size_t size;
} thaw_h5_bytes;

/* Do the attributes in the object header at `address` hold the data that they declare? */
bool thaw_h5_check_header(const thaw_h5_bytes *file, uint64_t address);
/* Where the references of attribute `name` stand, `n` of them of 16 bytes, in the object header at `address`. NULL if they
 * are not found: a damaged file, or one in the newer layout. [out] newer: which of them. */
const unsigned char *thaw_h5_find_references(const thaw_h5_bytes *file, uint64_t address, const char *name, size_t n,
                                             bool *newer);
/* The text of a reference, not terminated. NULL if it does not lie in the file. [out] length. */
const char *thaw_h5_follow_reference(const thaw_h5_bytes *file, const unsigned char *reference, size_t *length);
#endif
