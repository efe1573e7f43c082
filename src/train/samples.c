#include "train/samples.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/text.h"
#include "base/threads.h"
#include "thaw/train.h"

bool thaw_samples_are_arrays(const char *input) {
    const char *colon = strstr(input, ":/");
    return colon && colon > input && !thaw_io_exists(input);
}

thaw_status thaw_samples_share(thaw_dataset **dataset, thaw_comm *comm, thaw_status mine) {
    void *bytes = NULL;
    size_t size = 0;
    bool root = thaw_comm_rank(comm) == 0, alone = thaw_comm_size(comm) == 1;
    thaw_status status = mine;
    if (status == THAW_OK && root && !alone)
        status = thaw_dataset_pack(&bytes, &size, *dataset);
    status = thaw_comm_agree(comm, status);
    if (status == THAW_OK && !alone) {
        status = thaw_comm_broadcast_buffer(comm, &bytes, &size, 0);
        if (status == THAW_OK && !root)
            status = thaw_dataset_unpack(dataset, bytes, size);
        status = thaw_comm_agree(comm, status);
    }
    thaw_free(bytes);
    if (status != THAW_OK) {
        thaw_dataset_free(*dataset);
        *dataset = NULL;
    }
    return status;
}

/* "(150,150,3)"; thaw_free. */
static char *shape_text(int rank, const int64_t dim[3]) {
    thaw_buffer text = {0};
    for (int i = 0; i < rank && i < 3; i++)
        thaw_buffer_printf(&text, "%s%lld", i ? "," : "(", (long long)dim[i]);
    thaw_buffer_printf(&text, ")");
    return text.data;
}

thaw_status thaw_samples_fit(const thaw_dataset *dataset, const thaw_model *model) {
    const thaw_shape *in = &model->nodes[model->input].shape;
    int rank = dataset->x_rank - 1; /* x_rank counts N */
    bool fits = !dataset->arrays || rank == in->rank;
    for (int i = 0; fits && dataset->arrays && i < in->rank; i++)
        fits = dataset->x_shape[i] == in->dim[i];
    if (fits)
        return THAW_OK;
    char *found = shape_text(rank, dataset->x_shape), *wanted = shape_text(in->rank, in->dim);
    thaw_status status = thaw_fail(THAW_DATA, "%s:%s: a sample has shape %s, the network takes %s; arrays are not resized",
                                   dataset->x_file, dataset->x_dataset, found ? found : "?", wanted ? wanted : "?");
    thaw_free(found);
    thaw_free(wanted);
    return status;
}

static int compare_numbers(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Gives every rank what each has computed: `mine` (own entries), concatenated in rank order. [out] all: thaw_free.
 * Collective. */
static thaw_status share_numbers(thaw_comm *comm, const void *mine, size_t bytes, void **all, size_t *size) {
    size_t *sizes = NULL;
    thaw_status status;
    *all = NULL;
    *size = 0;
    THAW_GOTO(thaw_comm_gather_buffers(comm, mine, bytes, all, &sizes));
    for (int r = 0; sizes && r < thaw_comm_size(comm); r++)
        *size += sizes[r];
    THAW_GOTO(thaw_comm_broadcast_buffer(comm, all, size, 0));
out:
    thaw_free(sizes);
    return status;
}

/* Hashes of the images' bytes, of which this rank has every P-th, to dataset->content on all ranks. Collective. */
static thaw_status share_content(thaw_dataset *dataset, thaw_comm *comm, uint64_t *content) {
    int rank = thaw_comm_rank(comm), ranks = thaw_comm_size(comm);
    int64_t n = 0;
    void *all = NULL;
    size_t size;
    for (int64_t i = rank; i < dataset->n; i += ranks)
        content[n++] = content[i];
    THAW_TRY(share_numbers(comm, content, (size_t)n * sizeof *content, &all, &size));
    const uint64_t *from = all;
    for (int r = 0; r < ranks; r++)
        for (int64_t i = r; i < dataset->n; i += ranks)
            content[i] = *from++;
    thaw_free(all);
    return THAW_OK;
}

/* Numbers of all unreadable images on every rank, ascending; hashes of all images. [out] list: thaw_free. Collective. */
static thaw_status find_bad(thaw_dataset *dataset, thaw_comm *comm, int64_t **list, int64_t *n) {
    int64_t *mine = NULL, n_mine = 0;
    void *all = NULL;
    size_t size = 0;
    uint64_t *content = thaw_calloc((size_t)dataset->n, sizeof *content);
    thaw_status status = content ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to check %lld images", (long long)dataset->n);
    if (status == THAW_OK)
        status = thaw_dataset_verify(dataset, thaw_threads(), thaw_comm_rank(comm), thaw_comm_size(comm), &mine, &n_mine,
                                     content);
    THAW_GOTO(thaw_comm_agree(comm, status));
    THAW_GOTO(share_content(dataset, comm, content));
    thaw_free(dataset->content);
    dataset->content = content;
    content = NULL;
    THAW_GOTO(share_numbers(comm, mine, (size_t)n_mine * sizeof *mine, &all, &size));
    *list = all;
    *n = (int64_t)(size / sizeof **list);
    all = NULL;
    if (*n) /* ranks took every P-th sample */
        qsort(*list, (size_t)*n, sizeof **list, compare_numbers);
out:
    thaw_free(content);
    thaw_free(mine);
    thaw_free(all);
    return status;
}

thaw_status thaw_samples_content(thaw_dataset *dataset, thaw_comm *comm) {
    if (dataset->content)
        return THAW_OK;
    int64_t first = thaw_share(dataset->n, thaw_comm_rank(comm), thaw_comm_size(comm));
    int64_t end = thaw_share(dataset->n, thaw_comm_rank(comm) + 1, thaw_comm_size(comm));
    void *all = NULL;
    size_t size;
    uint64_t *mine = thaw_calloc((size_t)(end - first), sizeof *mine);
    thaw_status status = mine ? thaw_dataset_hash_rows(dataset, first, end, mine)
                              : thaw_fail(THAW_RESOURCE, "no memory to hash %lld rows", (long long)dataset->n);
    status = thaw_comm_agree(comm, status);
    if (status == THAW_OK)
        status = share_numbers(comm, mine, (size_t)(end - first) * sizeof *mine, &all, &size);
    thaw_free(mine);
    dataset->content = all;
    return status;
}

/* The failure to decode an image that was found bad, with its own words; THAW_OK if it can be decoded here and now. */
static thaw_status fail_image(const thaw_dataset *dataset, int64_t sample, int64_t n) {
    uint8_t *pixels = NULL;
    int64_t height, width;
    char *path = thaw_path_join(dataset->root, dataset->paths[sample]);
    thaw_status status = path ? thaw_image_decode(&pixels, &height, &width, path)
                              : thaw_fail(THAW_RESOURCE, "no memory to name a bad image");
    thaw_free(pixels);
    thaw_free(path);
    if (n == 1 || status != THAW_DATA)
        return status;
    char *first = thaw_strdup(thaw_message());
    status = thaw_fail(THAW_DATA, "%s (and %lld more; data.on_bad_image: skip leaves them out)", first ? first : "bad image",
                       (long long)n - 1);
    thaw_free(first);
    return status;
}

/* The first of n bad images, with the words of rank 0, or of the rank that found it if rank 0 can read it. Collective. */
static thaw_status report_bad(const thaw_dataset *dataset, thaw_comm *comm, int64_t first, int64_t n) {
    const int rank = thaw_comm_rank(comm), ranks = thaw_comm_size(comm);
    thaw_status status = rank == 0 ? fail_image(dataset, first, n) : THAW_OK;
    double readable = rank == 0 && status == THAW_OK;
    THAW_TRY(thaw_comm_max(comm, &readable, 1));
    if (readable > 0.0 && rank == (int)(first % ranks))
        status = fail_image(dataset, first, n);
    if (readable > 0.0 && rank == (int)(first % ranks) && status == THAW_OK) /* a file system that fails at times */
        status = thaw_fail(THAW_DATA, "%s/%s cannot be decoded every time it is read", dataset->root, dataset->paths[first]);
    return thaw_comm_agree(comm, status);
}

/* A sample's bytes, hashed as dataset->content is. */
static thaw_status hash_sample(const thaw_dataset *dataset, int64_t sample, uint64_t *hash) {
    if (dataset->arrays)
        return thaw_dataset_hash_rows(dataset, sample, sample + 1, hash);
    void *bytes = NULL;
    size_t size = 0;
    char *path = thaw_path_join(dataset->root, dataset->paths[sample]);
    const thaw_status status = path ? thaw_io_read(&bytes, &size, path, 0) : thaw_fail(THAW_RESOURCE, "no memory for a path");
    if (status == THAW_OK)
        *hash = thaw_hash(bytes, size, 0);
    thaw_free(bytes);
    thaw_free(path);
    return status;
}

enum { COMPARED = 16 }; /* samples: more are compared when they are read */

/* Every rank reads some samples and compares them with rank 0's: a path need not lead to the same data on all hosts.
 * Collective. */
static thaw_status compare_samples(const thaw_dataset *dataset, thaw_comm *comm) {
    uint64_t mine[COMPARED] = {0}, zeros[COMPARED];
    const int64_t n = dataset->n < COMPARED ? dataset->n : COMPARED;
    thaw_status status = THAW_OK;
    if (thaw_comm_size(comm) == 1)
        return THAW_OK;
    for (int64_t k = 0; k < n && status == THAW_OK; k++)
        status = hash_sample(dataset, k * dataset->n / n, &mine[k]);
    THAW_TRY(thaw_comm_agree(comm, status));
    memcpy(zeros, mine, sizeof zeros);
    THAW_TRY(thaw_comm_broadcast(comm, zeros, sizeof zeros, 0));
    for (int64_t k = 0; k < n && status == THAW_OK; k++)
        if (mine[k] != zeros[k] && dataset->arrays)
            status = thaw_fail(THAW_MISMATCH, "row %lld of %s:%s differs from rank 0's: give all hosts the same data",
                               (long long)dataset->rows[k * dataset->n / n], dataset->x_file, dataset->x_dataset);
        else if (mine[k] != zeros[k])
            status = thaw_fail(THAW_MISMATCH, "%s/%s differs from rank 0's: give all hosts the same data", dataset->root,
                               dataset->paths[k * dataset->n / n]);
    return thaw_comm_agree(comm, status);
}

thaw_status thaw_samples_check(thaw_dataset *dataset, thaw_comm *comm, bool skip) {
    int64_t *bad = NULL, n = 0;
    if (dataset->arrays)
        return compare_samples(dataset, comm);
    THAW_TRY(find_bad(dataset, comm, &bad, &n));
    thaw_status status = THAW_OK;
    if (n && !skip) {
        status = report_bad(dataset, comm, bad[0], n);
    } else if (n == dataset->n) {
        status = thaw_fail(THAW_DATA, "%s: none of the %lld images can be decoded", dataset->root, (long long)n);
    } else if (n) {
        thaw_dataset_drop(dataset, bad, n);
        if (thaw_comm_rank(comm) == 0)
            thaw_warn("%lld unreadable images are left out (data.on_bad_image: skip)", (long long)n);
    }
    thaw_free(bad);
    THAW_TRY(thaw_comm_agree(comm, status));
    return compare_samples(dataset, comm);
}

static void tell_alive(void *comm) { thaw_comm_alive(comm); }

thaw_status thaw_samples_stage(thaw_dataset *dataset, thaw_comm *comm, const char *parent) {
    const char *temporary = getenv("TMPDIR");
    const int place = thaw_comm_local_rank(comm), neighbours = thaw_comm_local_size(comm);
    thaw_staging done = {.alive = tell_alive, .payload = comm};
    const double began = thaw_clock();
    char *folder = thaw_stage_folder(parent ? parent : temporary && *temporary ? temporary : "/tmp");
    thaw_status status = folder ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to copy the data");
    if (status == THAW_OK && dataset->arrays)
        status = place == 0 ? thaw_dataset_stage_arrays(dataset, folder, true, &done) : THAW_OK;
    else if (status == THAW_OK)
        status = thaw_dataset_stage_images(dataset, folder, thaw_threads(), place, neighbours, &done);
    status = thaw_comm_agree(comm, status);
    if (status == THAW_OK && dataset->arrays && place != 0)
        status = thaw_dataset_stage_arrays(dataset, folder, false, &done);
    double sums[2] = {(double)done.files, (double)done.bytes};
    status = thaw_comm_agree(comm, status);
    if (status == THAW_OK)
        status = thaw_comm_sum(comm, sums, 2);
    if (status == THAW_OK && thaw_comm_rank(comm) == 0)
        thaw_info("data.stage_data: %.0f file%s (%.1f MB) copied to %s on %d host%s in %.1f s; the others were there", sums[0],
                  sums[0] > 1.0 || sums[0] < 1.0 ? "s" : "", sums[1] * 1e-6, folder, thaw_comm_hosts(comm),
                  thaw_comm_hosts(comm) == 1 ? "" : "s", thaw_clock() - began);
    thaw_free(folder);
    return status;
}
