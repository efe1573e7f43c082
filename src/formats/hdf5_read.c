/* Reading of untrusted HDF5: what may be met in Keras' files is in Keras' own loader (save_attributes_to_hdf5_group and
 * relatives); everything else that HDF5 allows is refused. */
#include "formats/hdf5_read.h"

#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/memory.h"
#include "base/text.h"
#include "formats/hdf5_heap.h"

#define HOW_TO_SAVE "; save it from Keras as legacy HDF5: model.save('model.h5')"

enum {
    MOST_TEXTS = 1 << 20,  /* of one list */
    LONGEST_NAME = 1024,   /* of one component of a path */
    REFERENCE = 16,        /* bytes of a reference to a variable-length text */
    MOST_INFLATED = 1100   /* bytes out of one stored byte: deflate gives 1032 */
};
static const size_t most_text_bytes = (size_t)64 << 20; /* of one attribute */

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

static bool has_sound_header(const thaw_h5 *h5, hid_t object) {
    H5O_info_t info;
    return H5Oget_info(object, &info) >= 0 && thaw_h5_check_header(&(thaw_h5_bytes){h5->image, h5->size}, info.addr);
}

/* Callbacks that lend the image to HDF5's core driver, which would copy it twice. */
static void *lend(size_t size, H5FD_file_image_op_t op, void *payload) {
    const thaw_h5 *h5 = payload;
    (void)op;
    return size <= h5->size ? h5->image : NULL;
}
static void *lend_copy(void *to, const void *from, size_t size, H5FD_file_image_op_t op, void *payload) {
    (void)op;
    (void)payload;
    return to == from ? to : memcpy(to, from, size);
}
static void *lend_resize(void *pointer, size_t size, H5FD_file_image_op_t op, void *payload) {
    (void)pointer;
    return lend(size, op, payload);
}
static herr_t lend_free(void *pointer, H5FD_file_image_op_t op, void *payload) {
    (void)pointer;
    (void)op;
    (void)payload;
    return 0;
}
static void *lend_payload(void *payload) { return payload; }
static herr_t lend_payload_free(void *payload) {
    (void)payload;
    return 0;
}

static thaw_status foreign(const thaw_h5 *h5) {
    const unsigned char *b = h5->image;
    if (h5->size == 0)
        return thaw_fail(THAW_DATA, "%s: the file is empty, not HDF5", h5->path);
    if (h5->size >= 4 && memcmp(b, "PK\3\4", 4) == 0)
        return thaw_fail(THAW_DATA, "%s is a .keras archive (zip), which this version does not read" HOW_TO_SAVE, h5->path);
    if (h5->size > 9 && b[8] == '{' && b[4] == 0 && b[5] == 0 && b[6] == 0 && b[7] == 0)
        return thaw_fail(THAW_DATA, "%s is a safetensors file, which this version does not read; load it in Keras and save "
                                    "it as legacy HDF5: model.save('model.h5')", h5->path);
    return thaw_fail(THAW_DATA, "%s is not an HDF5 file (.h5): it does not begin with HDF5's signature", h5->path);
}

static bool has_signature(const thaw_h5 *h5) { /* at 0, 512, 1024, ...: a user block may be before it */
    for (size_t at = 0; h5->size >= 8 && at <= h5->size - 8; at = at ? at * 2 : 512)
        if (memcmp((const char *)h5->image + at, "\211HDF\r\n\032\n", 8) == 0)
            return true;
    return false;
}

thaw_status thaw_h5_open(thaw_h5 *h5, const char *path) {
    *h5 = (thaw_h5){.file = -1};
    if (thaw_io_is_dir(path))
        return thaw_fail(THAW_DATA, "%s is a folder, not an HDF5 file", path);
    h5->path = thaw_strdup(path);
    if (!h5->path)
        return thaw_fail(THAW_RESOURCE, "no memory to open %s", path);
    thaw_status status = thaw_io_read(&h5->image, &h5->size, path, 0);
    if (status == THAW_OK && !has_signature(h5))
        status = foreign(h5);
    if (status != THAW_OK) {
        thaw_h5_close(h5);
        return status;
    }
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0); /* a file may name a filter: no code is loaded for it */
    H5FD_file_image_callbacks_t callbacks = {lend, lend_copy, lend_resize, lend_free, lend_payload, lend_payload_free, h5};
    /* HDF5 asks for the name of an image to be that of no file, and takes images of one name for one file. */
    char *name = thaw_format("/dev/null/%p", h5->image);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (name && access >= 0 && H5Pset_fapl_core(access, 1 << 16, 0) >= 0 &&
        H5Pset_file_image_callbacks(access, &callbacks) >= 0 && H5Pset_file_image(access, h5->image, h5->size) >= 0)
        h5->file = H5Fopen(name, H5F_ACC_RDONLY, access);
    bool lacks = h5->file < 0 && (!name || no_memory());
    H5Pclose(access);
    thaw_free(name);
    if (h5->file >= 0 && has_sound_header(h5, h5->file))
        return THAW_OK;
    status = lacks ? thaw_fail(THAW_RESOURCE, "no memory to open %s", path)
                   : thaw_fail(THAW_DATA, "%s: the HDF5 file is truncated or damaged (%zu bytes)", path, h5->size);
    thaw_h5_close(h5);
    return status;
}

void thaw_h5_close(thaw_h5 *h5) {
    if (h5->file >= 0)
        H5Fclose(h5->file);
    thaw_free(h5->image);
    thaw_free(h5->path);
    *h5 = (thaw_h5){.file = -1};
}

bool thaw_h5_has_link(hid_t group, const char *name) { return H5Lexists(group, name, H5P_DEFAULT) > 0; }
bool thaw_h5_has_attribute(hid_t object, const char *name) { return H5Aexists(object, name) > 0; }

static thaw_status damaged(const thaw_h5 *h5, const char *layer, const char *name) {
    if (no_memory())
        return thaw_fail(THAW_RESOURCE, "no memory to read '%s' of %s", name, h5->path);
    return layer ? thaw_fail(THAW_DATA, "%s: layer '%s': '%s' cannot be read, the file is damaged", h5->path, layer, name)
                 : thaw_fail(THAW_DATA, "%s: '%s' cannot be read, the file is damaged", h5->path, name);
}

/* Opens one child; only hard links are followed. */
static thaw_status open_child(hid_t *child, const thaw_h5 *h5, hid_t parent, const char *name, const char *path,
                              const char *layer) {
    H5L_info_t info;
    const char *of = layer ? layer : "/";
    if (H5Lexists(parent, name, H5P_DEFAULT) <= 0 || H5Lget_info(parent, name, &info, H5P_DEFAULT) < 0)
        return thaw_fail(THAW_DATA, "%s: layer '%s': '%s' is missing in the file", h5->path, of, path);
    if (info.type != H5L_TYPE_HARD)
        return thaw_fail(THAW_DATA, "%s: layer '%s': '%s' is %s link; links are not followed, copy the data into the file",
                         h5->path, of, path, info.type == H5L_TYPE_SOFT ? "a soft" : "an external");
    *child = H5Oopen(parent, name, H5P_DEFAULT);
    if (*child >= 0 && has_sound_header(h5, *child))
        return THAW_OK;
    if (*child >= 0)
        H5Oclose(*child);
    *child = -1;
    return damaged(h5, layer, path);
}

/* Walks `path` component by component. [out] object: of any type, to be closed with H5Oclose. */
static thaw_status walk(hid_t *object, const thaw_h5 *h5, hid_t parent, const char *path, const char *layer) {
    hid_t at = -1;
    const char *next = path;
    *object = -1;
    for (;;) {
        while (*next == '/')
            next++;
        size_t length = strcspn(next, "/");
        if (length == 0)
            break;
        char name[LONGEST_NAME + 1];
        thaw_status status = THAW_OK;
        hid_t child = -1;
        if (length > LONGEST_NAME || strncmp(next, ".", length) == 0 || strncmp(next, "..", length) == 0) {
            status = thaw_fail(THAW_DATA, "%s: layer '%s': the name '%.80s' is no name of a dataset", h5->path,
                               layer ? layer : "/", path);
        } else {
            memcpy(name, next, length);
            name[length] = 0;
            if (at >= 0 && H5Iget_type(at) != H5I_GROUP)
                status = damaged(h5, layer, path);
            else
                status = open_child(&child, h5, at >= 0 ? at : parent, name, path, layer);
        }
        if (at >= 0)
            H5Oclose(at);
        if (status != THAW_OK)
            return status;
        at = child;
        next += length;
    }
    if (at < 0)
        return thaw_fail(THAW_DATA, "%s: layer '%s': an empty name", h5->path, layer ? layer : "/");
    *object = at;
    return THAW_OK;
}

thaw_status thaw_h5_group(hid_t *group, const thaw_h5 *h5, hid_t parent, const char *name, const char *layer) {
    THAW_TRY(walk(group, h5, parent, name, layer));
    if (H5Iget_type(*group) == H5I_GROUP)
        return THAW_OK;
    H5Oclose(*group);
    *group = -1;
    return thaw_fail(THAW_DATA, "%s: '%s' is not a group", h5->path, name);
}

void thaw_h5_free_texts(char **texts, int n) {
    for (int i = 0; texts && i < n; i++)
        thaw_free(texts[i]);
    thaw_free(texts);
}

/* Length of a fixed-length text: padded with zeros or spaces. */
static size_t fixed_length(const char *text, size_t size, H5T_str_t padding) {
    size_t n = strnlen(text, size);
    if (padding == H5T_STR_SPACEPAD)
        while (n && text[n - 1] == ' ')
            n--;
    return n;
}

/* Adds n texts of an attribute's raw data: fixed-length ones of `width` bytes, or (width 0) references into the heap. */
static thaw_status add_texts(char ***texts, int *n, const thaw_h5 *h5, const char *name, const unsigned char *raw,
                             size_t count, size_t width, H5T_str_t padding) {
    char **grown = thaw_realloc(*texts, ((size_t)*n + count) * sizeof *grown);
    size_t total = 0;
    if (!grown)
        return thaw_fail(THAW_RESOURCE, "no memory to read %s", h5->path);
    *texts = grown;
    for (size_t i = 0; i < count; i++) {
        const char *text = (const char *)raw + i * width;
        size_t length = 0;
        if (width)
            length = fixed_length(text, width, padding);
        else
            text = thaw_h5_follow_reference(&(thaw_h5_bytes){h5->image, h5->size}, raw + i * REFERENCE, &length);
        if (!text)
            return damaged(h5, NULL, name);
        length = strnlen(text, length);
        total += length;
        if (total > most_text_bytes)
            return thaw_fail(THAW_DATA, "%s: attribute '%s' is too long", h5->path, name);
        char *copy = thaw_strndup(text, length);
        if (!copy)
            return thaw_fail(THAW_RESOURCE, "no memory to read %s", h5->path);
        grown[(*n)++] = copy;
    }
    return THAW_OK;
}

/* Variable-length texts as HDF5 itself reads them: for files in the newer layout, whose metadata carry checksums. */
static thaw_status add_variable(char ***texts, int *n, const thaw_h5 *h5, const char *name, hid_t attribute, hid_t type,
                                hid_t space, size_t count) {
    char **raw = thaw_calloc(count, sizeof *raw);
    thaw_status status = THAW_OK;
    if (!raw)
        return thaw_fail(THAW_RESOURCE, "no memory to read %s", h5->path);
    if (H5Aread(attribute, type, raw) < 0) {
        status = damaged(h5, NULL, name);
    } else {
        for (size_t i = 0; i < count && status == THAW_OK; i++) {
            const char *text = raw[i] ? raw[i] : "";
            status = add_texts(texts, n, h5, name, (const unsigned char *)text, 1, strlen(text) + 1, H5T_STR_NULLTERM);
        }
        H5Dvlen_reclaim(type, space, H5P_DEFAULT, raw);
    }
    thaw_free(raw);
    return status;
}

/* Appends the strings of one attribute to *texts. A list that is empty has no string type at all (h5py). */
static thaw_status read_texts(char ***texts, int *n, const thaw_h5 *h5, hid_t object, const char *name) {
    thaw_status status = THAW_OK;
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT), type = -1, space = -1;
    unsigned char *raw = NULL;
    if (attribute < 0)
        return damaged(h5, NULL, name);
    type = H5Aget_type(attribute);
    space = H5Aget_space(attribute);
    hssize_t points = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    if (type < 0 || points < 0) {
        status = damaged(h5, NULL, name);
        goto out;
    }
    if (points == 0 || H5Sget_simple_extent_type(space) == H5S_NULL)
        goto out;
    if (H5Tget_class(type) != H5T_STRING) {
        status = thaw_fail(THAW_DATA, "%s: attribute '%s' is not text", h5->path, name);
        goto out;
    }
    size_t count = (size_t)points, bytes, width = H5Tget_size(type);
    bool variable = H5Tis_variable_str(type) > 0;
    if (points > MOST_TEXTS - *n || width == 0 || thaw_mul_overflow(count, width, &bytes) || bytes > most_text_bytes) {
        status = thaw_fail(THAW_DATA, "%s: attribute '%s' is too long", h5->path, name);
        goto out;
    }
    if (variable) {
        H5O_info_t info;
        bool newer = false;
        const unsigned char *references =
            H5Oget_info(object, &info) < 0 ? NULL
                                           : thaw_h5_find_references(&(thaw_h5_bytes){h5->image, h5->size}, info.addr, name,
                                                                     count, &newer);
        status = references ? add_texts(texts, n, h5, name, references, count, 0, H5T_STR_NULLPAD)
                 : newer    ? add_variable(texts, n, h5, name, attribute, type, space, count)
                            : damaged(h5, NULL, name);
        goto out;
    }
    raw = thaw_malloc(bytes);
    if (!raw)
        status = thaw_fail(THAW_RESOURCE, "no memory to read %s", h5->path);
    else if (H5Aread(attribute, type, raw) < 0)
        status = damaged(h5, NULL, name);
    else
        status = add_texts(texts, n, h5, name, raw, count, width, H5Tget_strpad(type));
out:
    thaw_free(raw);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

thaw_status thaw_h5_texts(char ***texts, int *n, const thaw_h5 *h5, hid_t object, const char *name) {
    *texts = NULL;
    *n = 0;
    thaw_status status = THAW_OK;
    if (thaw_h5_has_attribute(object, name)) {
        status = read_texts(texts, n, h5, object, name);
    } else {
        int chunk = 0;
        for (; status == THAW_OK; chunk++) {
            char *part = thaw_format("%s%d", name, chunk);
            if (!part)
                status = thaw_fail(THAW_RESOURCE, "no memory to read %s", h5->path);
            bool there = part && thaw_h5_has_attribute(object, part);
            if (there)
                status = read_texts(texts, n, h5, object, part);
            thaw_free(part);
            if (!there)
                break;
        }
        if (status == THAW_OK && chunk == 0)
            *n = -1;
    }
    if (status != THAW_OK) {
        thaw_h5_free_texts(*texts, *n);
        *texts = NULL;
        *n = 0;
    }
    return status;
}

thaw_status thaw_h5_text(char **text, const thaw_h5 *h5, hid_t object, const char *name) {
    *text = NULL;
    if (!thaw_h5_has_attribute(object, name))
        return THAW_OK;
    char **texts = NULL;
    int n = 0;
    thaw_status status = read_texts(&texts, &n, h5, object, name);
    if (status == THAW_OK && n != 1)
        status = thaw_fail(THAW_DATA, "%s: attribute '%s' is not one text", h5->path, name);
    if (status == THAW_OK) {
        *text = texts[0];
        texts[0] = NULL;
    }
    thaw_h5_free_texts(texts, n);
    return status;
}

/* "(3,3,8,7)" */
static void shape_text(thaw_buffer *out, const int64_t *shape, int rank) {
    thaw_buffer_printf(out, "(");
    for (int i = 0; i < rank; i++)
        thaw_buffer_printf(out, "%s%lld", i ? "," : "", (long long)shape[i]);
    thaw_buffer_printf(out, ")");
}

static thaw_status wrong_shape(const thaw_h5 *h5, const char *name, const char *layer, const int64_t *found,
                               int found_rank, const int64_t *shape, int rank) {
    thaw_buffer a = {0}, b = {0};
    shape_text(&a, found, found_rank);
    shape_text(&b, shape, rank);
    thaw_status status = thaw_fail(THAW_DATA, "%s: layer '%s': '%s' has shape %s, the model needs %s", h5->path, layer, name,
                                   a.data ? a.data : "?", b.data ? b.data : "?");
    thaw_buffer_free(&a);
    thaw_buffer_free(&b);
    return status;
}

/* Stored as HDF5 itself stores it: no second file, no virtual dataset, no filter that could run code or explode. */
static thaw_status check_storage(const thaw_h5 *h5, hid_t dataset, size_t bytes, const char *name, const char *layer) {
    hid_t create = H5Dget_create_plist(dataset);
    if (create < 0)
        return damaged(h5, layer, name);
    const char *bad = NULL;
    H5D_layout_t layout = H5Pget_layout(create);
    if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED)
        bad = "is a virtual dataset";
    if (H5Pget_external_count(create) != 0)
        bad = "is stored in another file";
    int filters = H5Pget_nfilters(create);
    if (filters < 0)
        bad = "has a damaged list of filters";
    for (int i = 0; !bad && i < filters; i++) {
        unsigned flags, config;
        size_t values = 0;
        H5Z_filter_t filter = H5Pget_filter2(create, (unsigned)i, &flags, &values, NULL, 0, NULL, &config);
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32)
            bad = "is compressed by a filter other than deflate";
    }
    H5Pclose(create);
    hsize_t stored = layout == H5D_COMPACT ? bytes : H5Dget_storage_size(dataset);
    if (!bad && stored == 0 && bytes > 0)
        bad = "holds no data";
    if (!bad && (bytes / MOST_INFLATED > stored || (filters == 0 && stored < bytes) || stored > h5->size))
        bad = "declares more data than it stores";
    return bad ? thaw_fail(THAW_DATA, "%s: layer '%s': '%s' %s", h5->path, layer, name, bad) : THAW_OK;
}

static thaw_status check_dataset(const thaw_h5 *h5, hid_t dataset, const char *name, const char *layer,
                                 const int64_t *shape, int rank) {
    if (H5Iget_type(dataset) != H5I_DATASET)
        return thaw_fail(THAW_DATA, "%s: layer '%s': '%s' is not a dataset", h5->path, layer, name);
    hid_t space = H5Dget_space(dataset), type = H5Dget_type(dataset);
    hsize_t dims[H5S_MAX_RANK];
    int64_t found[H5S_MAX_RANK];
    int found_rank = space < 0 ? -1 : H5Sget_simple_extent_dims(space, dims, NULL);
    bool simple = found_rank >= 0 && H5Sget_simple_extent_type(space) != H5S_NULL;
    H5T_class_t class = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
    size_t width = type < 0 ? 0 : H5Tget_size(type);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (!simple || (class != H5T_FLOAT && class != H5T_INTEGER) || width == 0 || width > 8)
        return thaw_fail(THAW_DATA, "%s: layer '%s': '%s' does not hold numbers", h5->path, layer, name);
    bool same = found_rank == rank;
    for (int i = 0; i < found_rank; i++) {
        found[i] = dims[i] > INT64_MAX ? INT64_MAX : (int64_t)dims[i];
        same = same && i < rank && found[i] == shape[i];
    }
    if (!same)
        return wrong_shape(h5, name, layer, found, found_rank, shape, rank);
    size_t bytes = width;
    for (int i = 0; i < rank; i++)
        if (shape[i] < 0 || thaw_mul_overflow(bytes, (size_t)shape[i], &bytes))
            return thaw_fail(THAW_DATA, "%s: layer '%s': '%s' is too large", h5->path, layer, name);
    return check_storage(h5, dataset, bytes, name, layer);
}

thaw_status thaw_h5_dataset(hid_t *dataset, const thaw_h5 *h5, hid_t group, const char *name, const char *layer,
                            const int64_t *shape, int rank) {
    THAW_TRY(walk(dataset, h5, group, name, layer));
    thaw_status status = check_dataset(h5, *dataset, name, layer, shape, rank);
    if (status != THAW_OK) {
        H5Oclose(*dataset);
        *dataset = -1;
    }
    return status;
}

thaw_status thaw_h5_floats(float *data, size_t count, const thaw_h5 *h5, hid_t dataset, const char *name,
                           const char *layer) {
    if (H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        return damaged(h5, layer, name);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(data[i]))
            return thaw_fail(THAW_DATA, "%s: layer '%s': '%s' holds %s at element %zu; the network that was saved is broken",
                             h5->path, layer, name, isnan(data[i]) ? "NaN" : "inf", i);
    return THAW_OK;
}
