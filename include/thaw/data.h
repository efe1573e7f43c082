/* Samples: index of images and labels, decoding, batches. Knows nothing of ranks: whoever calls gives sample numbers. */
#ifndef THAW_DATA_H
#define THAW_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* keras.applications' preprocess_input modes, plus rescale (x/255). Applied to RGB 0..255 float32 pixels. */
typedef enum thaw_preprocess {
    THAW_PREPROCESS_NONE,
    THAW_PREPROCESS_CAFFE,   /* RGB -> BGR, minus 103.939 116.779 123.68 */
    THAW_PREPROCESS_TF,      /* x/127.5 - 1 */
    THAW_PREPROCESS_TORCH,   /* x/255, minus mean, over std per channel */
    THAW_PREPROCESS_RESCALE  /* x/255 */
} thaw_preprocess;
bool thaw_preprocess_parse(thaw_preprocess *out, const char *name);
const char *thaw_preprocess_name(thaw_preprocess preprocess);

typedef struct thaw_dataset {
    bool arrays;  /* samples are rows of HDF5 datasets, else image files */
    int64_t n;    /* samples */
    /* images: */
    char *root;         /* folder that paths are relative to; "" for predict */
    char **paths;       /* n relative paths; pointers and text are one block (class_names too) */
    int32_t *labels;    /* n class indices; -1 unlabelled (predict) */
    char **class_names; /* n_classes, in order of the indices */
    uint64_t *content;  /* hash of each sample's bytes, n; NULL: not computed. No part of thaw_dataset_pack */
    int n_classes;
    /* arrays: "FILE.h5:/dataset" */
    char *x_file, *x_dataset, *y_file, *y_dataset; /* y_* NULL: unlabelled */
    int x_rank;          /* of the dataset, N included: 2 or 4 */
    int64_t x_shape[3];  /* of one sample, H W C or (features) */
    int64_t y_width;     /* values a sample: 1 or outputs */
    int64_t *rows;       /* n row numbers in the file (ascending before a split) */
    /* On this host alone, no part of thaw_dataset_pack; NULL: no copies. */
    char *staged;                /* folder of copies of the images */
    char *x_staged, *y_staged;   /* copies of the files of arrays */
} thaw_dataset;

/* Walks class folders as Keras' image_dataset_from_directory (classes sorted by code point, files recursively, sorted).
 * `class_names` (n_names entries) gives the order; NULL/0: sorted folders. Errors: THAW_NO_INPUT, THAW_DATA (empty class,
 * no images; a folder not in class_names or a name without folder), THAW_USAGE. File system access by one rank only. */
thaw_status thaw_dataset_scan_folders(thaw_dataset **out, const char *path, const char *const *class_names, int n_names);
/* Images without labels: files and folders (walked as above, without classes when a folder holds images itself). */
thaw_status thaw_dataset_scan_inputs(thaw_dataset **out, const char *const *inputs, int n_inputs);
/* Rows of HDF5 datasets; y may be NULL. "FILE.h5:/x". Errors: THAW_NO_INPUT (file, dataset), THAW_DATA (lengths differ). */
thaw_status thaw_dataset_open_arrays(thaw_dataset **out, const char *x, const char *y);
void thaw_dataset_free(thaw_dataset *dataset); /* NULL is accepted */

/* Bytes for broadcast, and back. [out] bytes by thaw_malloc, owned by the caller. */
thaw_status thaw_dataset_pack(void **bytes, size_t *size, const thaw_dataset *dataset);
thaw_status thaw_dataset_unpack(thaw_dataset **out, const void *bytes, size_t size);
/* Hash of names, labels, class order and sizes (rows for arrays). */
uint64_t thaw_dataset_hash(const thaw_dataset *dataset);
/* Splits off the last int(fraction*n) samples after a seeded shuffle (Philox(seed, SPLIT)). Both parts keep the order of the
 * index. [out] validation: new, perhaps without samples. */
thaw_status thaw_dataset_split(thaw_dataset *dataset, double fraction, uint64_t seed, thaw_dataset **validation);
/* Decodes every image with `threads` threads; *bad receives sample numbers (thaw_malloc) and *n_bad their number; the
 * messages (one line each, same order) are logged as warnings. `first`/`stride`: this caller's share. `content` (n entries,
 * may be NULL) receives the hash of the bytes of each file of the share. */
thaw_status thaw_dataset_verify(const thaw_dataset *dataset, int threads, int64_t first, int64_t stride, int64_t **bad,
                                int64_t *n_bad, uint64_t *content);
/* Reads samples first..end-1 of arrays and hashes their values: content[0..end-first). Errors: THAW_DATA, THAW_NO_INPUT,
 * THAW_RESOURCE. */
thaw_status thaw_dataset_hash_rows(const thaw_dataset *dataset, int64_t first, int64_t end, uint64_t *content);
/* What copying samples did, and somebody who is told now and then, from any thread, that it goes on. */
typedef struct thaw_staging {
    int64_t files, bytes; /* copied; the others were there */
    void (*alive)(void *payload);
    void *payload;
} thaw_staging;
/* The folder of this user's copies in a folder for temporary files. thaw_free. */
char *thaw_stage_folder(const char *parent);
/* Copies images first, first + stride, ... to a folder on a disk of this host, those whose bytes are not there yet; from then on
 * loaders of this dataset read all images there, and the original where a copy is missing or damaged. dataset->content must be
 * known. A failure removes what was copied. Errors: THAW_IO (full), THAW_CANT_CREATE, THAW_NO_INPUT, THAW_DATA (changed),
 * THAW_RESOURCE. */
thaw_status thaw_dataset_stage_images(thaw_dataset *dataset, const char *folder, int threads, int64_t first, int64_t stride,
                                      thaw_staging *done);
/* The same for the files of arrays. `copy` false: uses the copies that are there. */
thaw_status thaw_dataset_stage_arrays(thaw_dataset *dataset, const char *folder, bool copy, thaw_staging *done);
/* Bytes that reading the samples holds besides batches: chunks of an array that are kept inflated, pixels of the largest of
 * the first images on `threads` threads. 0 where that cannot be known. */
size_t thaw_dataset_reading_bytes(const thaw_dataset *dataset, int threads);
/* Drops samples (ascending numbers). */
void thaw_dataset_drop(thaw_dataset *dataset, const int64_t *samples, int64_t n);
/* Position -> sample of an epoch: Philox(seed, SHUFFLE, epoch) Fisher-Yates, or identity without shuffle. `order` has n
 * entries. */
void thaw_epoch_order(int64_t *order, int64_t n, uint64_t seed, int64_t epoch, bool shuffle);

typedef struct thaw_loader_options {
    int64_t shape[3];          /* H W C that the network takes (rank 1 inputs: features,0,0) */
    thaw_preprocess preprocess;
    bool augment;              /* draw augmentation for these batches */
    bool horizontal_flip;
    uint64_t seed;
    int threads;               /* decoding threads, >= 1 */
    int depth;                 /* batches decoded ahead, >= 1 */
    int held;                  /* batches that the caller holds: the last one, and so many less one before it; 0: 1 */
    int64_t max_batch;         /* largest batch that will be asked for (this rank) */
    bool by_variant;           /* every sample in the variant that thaw_loader_begin's `epoch` names, instead of drawn */
    bool labels_only;          /* x is not read and NULL in batches */
    int draws;                 /* augmentation takes one of so many fixed draws of a sample; 0: a new one in every epoch */
    bool scaled;               /* JPEG is decoded at the smallest M/8 of its size that is not below `shape` */
} thaw_loader_options;

/* Forms that augmentation gives one sample: 1 without, `draws` if they are given, 2 with horizontal_flip (0: as it is, 1:
 * mirrored); 0: not finite. `flat`: samples have no width. */
int thaw_augment_variants(const thaw_loader_options *options, bool flat);
/* The variant of a sample in an epoch: Philox(seed, AUGMENT; epoch, sample); of `draws`, the one that Philox(seed, CHOICE;
 * epoch, sample) names, which looks as Philox(seed, FIXED; variant, sample) says in every epoch. */
int thaw_augment_variant(const thaw_loader_options *options, bool flat, int64_t sample, int64_t epoch);

/* One batch. x (n,H,W,C) preprocessed; y (n,y_width): class index as float, or the row of y. Borrowed until the next
 * call of thaw_loader_next (options.held: the call that is so many on) or thaw_loader_free. */
typedef struct thaw_batch {
    int64_t n;
    float *x, *y;
    const int64_t *samples; /* n sample numbers */
} thaw_batch;

typedef struct thaw_loader thaw_loader;
/* Starts the decoding threads; all memory is allocated here. [in] dataset: borrowed, must outlive the loader.
 * Errors: THAW_RESOURCE, THAW_DATA (the samples do not fit `shape`), THAW_USAGE (preprocessing that needs 3 channels). */
thaw_status thaw_loader_create(thaw_loader **out, const thaw_dataset *dataset, const thaw_loader_options *options);
void thaw_loader_free(thaw_loader *loader); /* joins the threads; NULL is accepted */
/* Announces the batches of a pass: batch b takes samples[starts[b] .. starts[b+1]) (starts has n_batches+1 entries; both
 * arrays are copied). An earlier pass may have been left before its end. `epoch` keys the augmentation draws:
 * Philox(seed, AUGMENT; epoch, sample). */
thaw_status thaw_loader_begin(thaw_loader *loader, const int64_t *samples, const int64_t *starts, int64_t n_batches,
                              int64_t epoch);
/* Next batch in order, waiting for it. An image that cannot be decoded gives THAW_DATA with its name (THAW_NO_INPUT if it is
 * gone), the first of the batch whatever the threads did; `batch` ends before it then (of arrays it is empty), and the next call
 * gives the next batch. */
thaw_status thaw_loader_next(thaw_loader *loader, thaw_batch *batch);

/* One image file to RGB bytes as TensorFlow's decode_image gives them (JPEG, PNG, BMP by content). [out] pixels (H,W,3)
 * uint8 by thaw_malloc, owned by the caller. Errors: THAW_NO_INPUT, THAW_DATA with the file's name. */
thaw_status thaw_image_decode(uint8_t **pixels, int64_t *height, int64_t *width, const char *path);

#ifdef __cplusplus
}
#endif
#endif
