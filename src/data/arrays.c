/* The array reader: HDF5 datasets, the only HDF5 of this folder. Files are hostile: nothing is followed out of the file,
 * and what a dataset declares must be backed by bytes before memory is asked for. */
#include <stdio.h>
#include <string.h>

#include <hdf5.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/memory.h"
#include "data/arrays.h"
#include "data/image.h"
#include "thaw/data.h"

enum { NAME_LONGEST = 1024, MOST_FILTERS = 8, HASHED_FLOATS = 1 << 20 };

#define CACHE_BYTES ((size_t)64 << 20) /* chunks kept decompressed, so that shuffled rows do not inflate a chunk each time */
#define CHUNK_BYTES (UINT64_C(1) << 30)
#define INFLATION 1100 /* deflate makes 1032 bytes of one at most */

void thaw_arrays_quiet(void) {
    H5dont_atexit(); /* before the first other call, as src/formats does: the end of the program is not the end of files */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static herr_t see_memory(unsigned n, const H5E_error2_t *error, void *payload) {
    (void)n;
    if (error->maj_num == H5E_RESOURCE && (error->min_num == H5E_NOSPACE || error->min_num == H5E_CANTALLOC))
        *(bool *)payload = true;
    return 0;
}

/* The call that just failed had no memory: then the file is not to blame. */
static bool no_memory(void) {
    bool found = false;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, see_memory, &found);
    return found;
}

static thaw_status refuse(const thaw_array *a, const char *what) { return thaw_fail(THAW_DATA, "%s %s", a->name, what); }

thaw_status thaw_arrays_check_threads(void) {
    hbool_t safe = 0;
    if (H5is_library_threadsafe(&safe) >= 0 && safe)
        return THAW_OK;
    return thaw_fail(THAW_RESOURCE, "this HDF5 library is not thread-safe, which reading arrays ahead needs; build thaw with one "
                                    "that is (configure --enable-threadsafe)");
}

/* First names of a group, for the message that a dataset is missing. */
typedef struct listing {
    char text[200];
    int n;
} listing;

static herr_t add_name(hid_t group, const char *name, const H5L_info_t *info, void *payload) {
    listing *l = payload;
    (void)group;
    (void)info;
    const size_t used = strlen(l->text);
    snprintf(l->text + used, sizeof l->text - used, "%s/%s", l->n ? ", " : "", name);
    return ++l->n == 8;
}

static thaw_status missing(const thaw_array *a) {
    listing l = {0};
    H5Literate(a->file, H5_INDEX_NAME, H5_ITER_INC, NULL, add_name, &l);
    return thaw_fail(THAW_NO_INPUT, "%s does not exist; the file has %s", a->name, l.n ? l.text : "no datasets");
}

/* Follows the path one part at a time; each must be a hard link, whose object lies in this file. */
static thaw_status check_links(const thaw_array *a, const char *dataset) {
    char prefix[NAME_LONGEST + 1];
    const size_t length = strlen(dataset);
    if (length > NAME_LONGEST)
        return refuse(a, "has a name longer than 1024 bytes");
    memcpy(prefix, dataset, length + 1);
    bool any = false;
    for (char *at = prefix; *at;) {
        at += strspn(at, "/");
        char *end = at + strcspn(at, "/");
        if (end == at)
            break;
        const char kept = *end;
        *end = '\0';
        if (strcmp(at, "..") == 0 || strcmp(at, ".") == 0)
            return refuse(a, "has a '.' in its path; write the path in full");
        H5L_info_t info;
        const htri_t exists = H5Lexists(a->file, prefix, H5P_DEFAULT);
        if (exists < 0)
            return refuse(a, "cannot be found: a part of the path is no group");
        if (exists == 0)
            return missing(a);
        if (H5Lget_info(a->file, prefix, &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_HARD)
            return refuse(a, "is a link to another place (soft or external), which is not followed; name the dataset itself");
        any = true;
        *end = kept;
        at = end;
    }
    return any ? THAW_OK : thaw_fail(THAW_USAGE, "%s names no dataset; write FILE.h5:/dataset", a->name);
}

/* Storage: in this file, compressed at most by what HDF5 itself has, and as many bytes as the shape needs. */
static thaw_status check_storage(thaw_array *a, hid_t plist, size_t element) {
    const H5D_layout_t layout = H5Pget_layout(plist);
    if (layout == H5D_VIRTUAL || H5Pget_external_count(plist) != 0)
        return refuse(a, "keeps its values in other files (external or virtual storage), which are not read; copy them into "
                         "one dataset");
    const int n_filters = H5Pget_nfilters(plist);
    if (n_filters < 0 || n_filters > MOST_FILTERS)
        return refuse(a, "has storage that cannot be read");
    for (int i = 0; i < n_filters; i++) {
        unsigned flags, config;
        size_t n_values = 0;
        const H5Z_filter_t filter = H5Pget_filter2(plist, (unsigned)i, &flags, &n_values, NULL, 0, NULL, &config);
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32)
            return thaw_fail(THAW_DATA, "%s is compressed with HDF5 filter %d; write it with gzip or without compression",
                             a->name, (int)filter);
    }
    uint64_t bytes = element; /* of a chunk */
    if (layout == H5D_CHUNKED) {
        hsize_t chunk[THAW_ARRAY_RANK];
        if (H5Pget_chunk(plist, THAW_ARRAY_RANK, chunk) != a->rank)
            return refuse(a, "has chunks that do not fit its shape");
        for (int i = 0; i < a->rank; i++)
            if (__builtin_mul_overflow(bytes, chunk[i], &bytes) || bytes > CHUNK_BYTES)
                return refuse(a, "has chunks of more than 1 GiB; write it with smaller ones");
    }
    const hsize_t stored = H5Dget_storage_size((hid_t)a->dataset);
    size_t declared;
    if (thaw_mul_overflow((size_t)a->dims[0], (size_t)a->width, &declared) || thaw_mul_overflow(declared, element, &declared) ||
        (n_filters == 0 && stored < declared) || (uint64_t)declared / INFLATION > stored)
        return thaw_fail(THAW_DATA, "%s declares %lld rows of %lld values but the file has only %llu bytes of them; write it "
                         "again", a->name, (long long)a->dims[0], (long long)a->width, (unsigned long long)stored);
    if (layout == H5D_CHUNKED) /* a chunk that is larger than the cache is held while it is read */
        a->kept = bytes > CACHE_BYTES ? (size_t)bytes : declared < CACHE_BYTES ? declared : CACHE_BYTES;
    return THAW_OK;
}

/* Type and shape of an open dataset into `a`. */
static thaw_status read_shape(thaw_array *a) {
    const hid_t dataset = (hid_t)a->dataset, type = H5Dget_type(dataset), space = H5Dget_space(dataset),
                plist = H5Dget_create_plist(dataset);
    thaw_status status = THAW_OK;
    hsize_t dims[THAW_ARRAY_RANK] = {0};
    const H5T_class_t class = H5Tget_class(type);
    if (type < 0 || space < 0 || plist < 0) {
        status = refuse(a, "cannot be read: its description is damaged");
    } else if (class != H5T_INTEGER && class != H5T_FLOAT) {
        status = refuse(a, "holds no numbers; expected integers or floats");
    } else {
        a->rank = H5Sget_simple_extent_ndims(space);
        if (a->rank < 1 || a->rank > THAW_ARRAY_RANK || H5Sget_simple_extent_dims(space, dims, NULL) != a->rank)
            status = thaw_fail(THAW_DATA, "%s has rank %d, expected 1 to 4: (rows), (rows, values) or (rows, height, width, "
                               "channels)", a->name, a->rank);
    }
    a->width = 1;
    for (int i = 0; i < a->rank && status == THAW_OK; i++) {
        a->dims[i] = (int64_t)dims[i];
        if (dims[i] == 0 || dims[i] > INT32_MAX || (i && __builtin_mul_overflow(a->width, a->dims[i], &a->width)) ||
            a->width > INT32_MAX)
            status = thaw_fail(THAW_DATA, "%s has %llu as dimension %d; expected 1 or more, and less than 2^31 values a row",
                               a->name, (unsigned long long)dims[i], i);
    }
    if (status == THAW_OK)
        status = check_storage(a, plist, H5Tget_size(type));
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    if (plist >= 0)
        H5Pclose(plist);
    return status;
}

/* *memory: there was not enough of it. */
static hid_t open_file(const char *file, bool *memory) {
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0)
        return -1;
    H5Pset_file_locking(access, 0, 1); /* file systems without locks must work, and nothing is written */
    const hid_t opened = H5Fopen(file, H5F_ACC_RDONLY, access);
    *memory = opened < 0 && no_memory();
    H5Pclose(access);
    return opened;
}

static hid_t open_dataset(hid_t file, const char *dataset, bool *memory) {
    const hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    if (access < 0)
        return -1;
    H5Pset_chunk_cache(access, 12421, CACHE_BYTES, 1.0);
    const hid_t opened = H5Dopen2(file, dataset, access);
    *memory = opened < 0 && no_memory();
    H5Pclose(access);
    return opened;
}

thaw_status thaw_array_open(thaw_array *out, const char *file, const char *dataset) {
    thaw_array a = {.file = -1, .dataset = -1};
    *out = (thaw_array){0};
    a.name = thaw_format("%s:%s", file, dataset);
    if (!a.name)
        return thaw_fail(THAW_RESOURCE, "no memory to open %s", file);
    thaw_arrays_quiet();
    thaw_status status;
    if (!thaw_io_exists(file))
        THAW_GOTO(thaw_fail(THAW_NO_INPUT, "%s does not exist; check the path", file));
    if (thaw_io_is_dir(file))
        THAW_GOTO(thaw_fail(THAW_DATA, "%s is a folder, expected an HDF5 file", file));
    if (thaw_io_size(file) == 0) /* also a pipe, whose opening would wait */
        THAW_GOTO(thaw_fail(THAW_DATA, "%s is empty or no regular file, expected an HDF5 file", file));
    bool memory = false;
    a.file = open_file(file, &memory);
    if (memory)
        THAW_GOTO(thaw_fail(THAW_RESOURCE, "no memory to open %s", file));
    if (a.file < 0)
        THAW_GOTO(thaw_fail(THAW_DATA, "%s cannot be opened as an HDF5 file: it is another kind of file, damaged or not readable",
                            file));
    THAW_GOTO(check_links(&a, dataset));
    a.dataset = open_dataset((hid_t)a.file, dataset, &memory);
    if (memory)
        THAW_GOTO(thaw_fail(THAW_RESOURCE, "no memory to open %s", a.name));
    if (a.dataset < 0)
        THAW_GOTO(refuse(&a, "is no dataset, or damaged; name a dataset, as in FILE.h5:/x"));
    THAW_GOTO(read_shape(&a));
    *out = a;
    return THAW_OK;
out:
    thaw_array_close(&a);
    return status;
}

void thaw_array_close(thaw_array *a) {
    if (!a->name)
        return;
    if (a->dataset >= 0)
        H5Dclose((hid_t)a->dataset);
    if (a->file >= 0)
        H5Fclose((hid_t)a->file);
    thaw_free(a->name);
    *a = (thaw_array){0};
}

thaw_status thaw_array_read(thaw_array *a, float *out, int64_t first, int64_t count) {
    hsize_t start[THAW_ARRAY_RANK] = {(hsize_t)first}, block[THAW_ARRAY_RANK] = {(hsize_t)count};
    for (int i = 1; i < a->rank; i++)
        block[i] = (hsize_t)a->dims[i];
    if (first < 0 || count < 0 || first > a->dims[0] - count)
        return thaw_fail(THAW_DATA, "%s has %lld rows, row %lld is asked for: the file changed", a->name, (long long)a->dims[0],
                         (long long)(first + count - 1));
    const hid_t space = H5Dget_space((hid_t)a->dataset), memory = H5Screate_simple(a->rank, block, NULL);
    const bool good = space >= 0 && memory >= 0 && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, block, NULL) >= 0 &&
                      H5Dread((hid_t)a->dataset, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, out) >= 0;
    const bool memory_lacks = !good && no_memory();
    if (space >= 0)
        H5Sclose(space);
    if (memory >= 0)
        H5Sclose(memory);
    if (memory_lacks)
        return thaw_fail(THAW_RESOURCE, "no memory to read rows %lld to %lld of %s", (long long)first,
                         (long long)(first + count - 1), a->name);
    return good ? THAW_OK
                : thaw_fail(THAW_DATA, "%s: rows %lld to %lld cannot be read: the file is damaged or was cut", a->name,
                            (long long)first, (long long)(first + count - 1));
}

/* "FILE.h5:/dataset" into its two parts. */
static thaw_status split_name(char **file, char **dataset, const char *name) {
    const char *colon = NULL;
    for (const char *at = name; (at = strstr(at, ":/")); at++)
        colon = at;
    if (!colon || colon == name || !colon[2])
        return thaw_fail(THAW_USAGE, "'%s' does not name an array; write FILE.h5:/dataset", name);
    *file = thaw_strndup(name, (size_t)(colon - name));
    *dataset = thaw_strdup(colon + 1);
    return *file && *dataset ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to open %s", name);
}

thaw_status thaw_dataset_hash_rows(const thaw_dataset *d, int64_t first, int64_t end, uint64_t *content) {
    thaw_array x = {0};
    float *values = NULL;
    thaw_status status = THAW_OK;
    THAW_GOTO(thaw_array_open(&x, d->x_file, d->x_dataset));
    const int64_t most = x.width < HASHED_FLOATS ? HASHED_FLOATS / x.width : 1; /* rows read at once */
    values = thaw_calloc((size_t)most, (size_t)x.width * sizeof *values);
    THAW_GOTO(values ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to read %s", x.name));
    for (int64_t i = first, run; i < end; i += run) {
        for (run = 1; i + run < end && run < most && d->rows[i + run] == d->rows[i] + run;)
            run++;
        THAW_GOTO(thaw_array_read(&x, values, d->rows[i], run));
        for (int64_t k = 0; k < run; k++)
            content[i - first + k] = thaw_hash(values + k * x.width, (size_t)x.width * sizeof *values, 0);
    }
out:
    thaw_free(values);
    thaw_array_close(&x);
    return status;
}

static size_t kept_by(const char *file, const char *dataset) {
    thaw_array a = {0};
    if (!file || thaw_array_open(&a, file, dataset) != THAW_OK)
        return 0;
    const size_t kept = a.kept;
    thaw_array_close(&a);
    return kept;
}

/* Of images: the largest of the first few, decoded. */
static size_t pixel_bytes(const thaw_dataset *d) {
    enum { FEW = 4 };
    thaw_pixels pixels = {0};
    for (int64_t i = 0; i < d->n && i < FEW; i++) {
        char *path = thaw_path_join(d->root, d->paths[i]);
        if (path)
            (void)thaw_pixels_load(&pixels, path, NULL);
        thaw_free(path);
    }
    const size_t bytes = pixels.capacity;
    thaw_pixels_free(&pixels);
    return bytes;
}

size_t thaw_dataset_reading_bytes(const thaw_dataset *d, int threads) {
    return d->arrays ? kept_by(d->x_file, d->x_dataset) + kept_by(d->y_file, d->y_dataset) : pixel_bytes(d) * (size_t)threads;
}

thaw_status thaw_dataset_open_arrays(thaw_dataset **out, const char *x_name, const char *y_name) {
    thaw_array x = {0}, y = {0};
    *out = NULL;
    thaw_dataset *d = thaw_malloc(sizeof *d);
    thaw_status status = d ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to open %s", x_name);
    THAW_GOTO(status);
    d->arrays = true;
    THAW_GOTO(split_name(&d->x_file, &d->x_dataset, x_name));
    if (y_name)
        THAW_GOTO(split_name(&d->y_file, &d->y_dataset, y_name));
    THAW_GOTO(thaw_array_open(&x, d->x_file, d->x_dataset));
    if (x.rank != 2 && x.rank != 4)
        THAW_GOTO(thaw_fail(THAW_DATA, "%s has rank %d, expected 4 (rows, height, width, channels) or 2 (rows, values)", x_name,
                            x.rank));
    if (y_name) {
        THAW_GOTO(thaw_array_open(&y, d->y_file, d->y_dataset));
        if (y.rank > 2)
            THAW_GOTO(thaw_fail(THAW_DATA, "%s has rank %d, expected 1 (rows) or 2 (rows, values)", y_name, y.rank));
        if (y.dims[0] != x.dims[0])
            THAW_GOTO(thaw_fail(THAW_DATA, "%s has %lld rows and %s has %lld; each sample needs one of both", x_name,
                                (long long)x.dims[0], y_name, (long long)y.dims[0]));
        d->y_width = y.width;
    }
    d->n = x.dims[0];
    d->x_rank = x.rank;
    for (int i = 1; i < x.rank; i++)
        d->x_shape[i - 1] = x.dims[i];
    d->root = thaw_path_dirname(d->x_file);
    d->rows = thaw_calloc((size_t)d->n, sizeof *d->rows);
    THAW_GOTO(d->rows && d->root ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory for %lld rows", (long long)d->n));
    for (int64_t i = 0; i < d->n; i++)
        d->rows[i] = i;
    *out = d;
    d = NULL;
out:
    thaw_array_close(&x);
    thaw_array_close(&y);
    thaw_dataset_free(d);
    return status;
}
