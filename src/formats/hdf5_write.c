/* Writing of HDF5 images: see the header. */
#include "formats/hdf5_write.h"

#include <string.h>

#include "base/memory.h"

enum { ATTRIBUTE_BYTES = 64512, VARIABLE_BYTES = 16, MOST_RANK = 8 };

static thaw_status failed(const char *what) {
    return thaw_fail(THAW_RESOURCE, "HDF5 cannot write '%s' into memory; probably there is not enough", what);
}

/* Callbacks of HDF5's core driver: the image lies in memory of ours, which stays when the file is closed. */
static void *image_resize(void *pointer, size_t size, H5FD_file_image_op_t op, void *payload) {
    thaw_h5_image *image = payload;
    (void)pointer;
    (void)op;
    if (size > image->capacity) { /* the first request is as large as the file will be */
        void *bytes = thaw_realloc(image->bytes, size);
        if (!bytes)
            return NULL;
        image->bytes = bytes;
        image->capacity = size;
    }
    return image->bytes;
}
static void *image_make(size_t size, H5FD_file_image_op_t op, void *payload) { return image_resize(NULL, size, op, payload); }
static void *image_copy(void *to, const void *from, size_t size, H5FD_file_image_op_t op, void *payload) {
    (void)op;
    (void)payload;
    return to == from ? to : memcpy(to, from, size);
}
static herr_t image_keep(void *pointer, H5FD_file_image_op_t op, void *payload) {
    (void)pointer;
    (void)op;
    (void)payload;
    return 0;
}
static void *image_payload(void *payload) { return payload; }
static herr_t image_payload_free(void *payload) {
    (void)payload;
    return 0;
}

thaw_status thaw_h5_create(hid_t *file, thaw_h5_image *image, size_t expected) {
    *file = -1;
    *image = (thaw_h5_image){0};
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    size_t step = expected + ((size_t)1 << 20);
    H5FD_file_image_callbacks_t callbacks = {image_make, image_copy, image_resize, image_keep, image_payload,
                                             image_payload_free, image};
    if (access >= 0 && H5Pset_fapl_core(access, step, 0) >= 0 && H5Pset_file_image_callbacks(access, &callbacks) >= 0 &&
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0 &&
        H5Pset_libver_bounds(access, H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST) >= 0)
        *file = H5Fcreate("/dev/null/written", H5F_ACC_TRUNC, H5P_DEFAULT, access); /* a name, never a file */
    H5Pclose(access);
    if (*file >= 0)
        return THAW_OK;
    thaw_h5_drop(-1, image);
    return failed("/");
}

thaw_status thaw_h5_finish(void **bytes, size_t *size, hid_t file, thaw_h5_image *image) {
    *bytes = NULL;
    *size = 0;
    ssize_t n = H5Fflush(file, H5F_SCOPE_GLOBAL) < 0 ? -1 : H5Fget_file_image(file, NULL, 0);
    if (H5Fclose(file) < 0 || n <= 0 || (size_t)n > image->capacity) {
        thaw_h5_drop(-1, image);
        return failed("/");
    }
    *bytes = image->bytes;
    *size = (size_t)n;
    *image = (thaw_h5_image){0};
    return THAW_OK;
}

void thaw_h5_drop(hid_t file, thaw_h5_image *image) {
    if (file >= 0)
        H5Fclose(file);
    thaw_free(image->bytes);
    *image = (thaw_h5_image){0};
}

static hid_t links_with_parents(void) {
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    if (links >= 0)
        H5Pset_create_intermediate_group(links, 1);
    return links;
}

thaw_status thaw_h5_make_group(hid_t *group, hid_t parent, const char *name) {
    hid_t links = links_with_parents(), create = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(create, 0);
    *group = H5Gcreate2(parent, name, links, create, H5P_DEFAULT);
    H5Pclose(create);
    H5Pclose(links);
    return *group < 0 ? failed(name) : THAW_OK;
}

/* Text type of `width` bytes (H5T_VARIABLE too). */
static hid_t text_type(size_t width, H5T_cset_t set) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, width) < 0 || H5Tset_cset(type, set) < 0 ||
                      (width != H5T_VARIABLE && H5Tset_strpad(type, H5T_STR_NULLPAD) < 0))) {
        H5Tclose(type);
        type = -1;
    }
    return type;
}

static thaw_status put_attribute(hid_t object, const char *name, hid_t type, hid_t space, const void *data) {
    hid_t attribute = type < 0 || space < 0 ? -1 : H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t written = attribute < 0 ? -1 : data ? H5Awrite(attribute, type, data) : 0;
    if (attribute >= 0)
        H5Aclose(attribute);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return written < 0 ? failed(name) : THAW_OK;
}

thaw_status thaw_h5_put_text(hid_t object, const char *name, const char *text) {
    return put_attribute(object, name, text_type(H5T_VARIABLE, H5T_CSET_UTF8), H5Screate(H5S_SCALAR), &text);
}

thaw_status thaw_h5_put_fixed(hid_t object, const char *name, const char *text) {
    size_t width = strlen(text);
    return put_attribute(object, name, text_type(width ? width : 1, H5T_CSET_ASCII), H5Screate(H5S_SCALAR), text);
}

static thaw_status put_some(hid_t object, const char *name, const char *const *names, int n, size_t width) {
    hsize_t dim = (hsize_t)n;
    char *flat = thaw_calloc((size_t)n, width);
    if (!flat)
        return failed(name);
    for (int i = 0; i < n; i++)
        memcpy(flat + (size_t)i * width, names[i], strlen(names[i]));
    thaw_status status = put_attribute(object, name, text_type(width, H5T_CSET_ASCII), H5Screate_simple(1, &dim, NULL),
                                       flat);
    thaw_free(flat);
    return status;
}

thaw_status thaw_h5_put_names(hid_t object, const char *name, const char *const *names, int n) {
    if (n == 0) { /* as h5py writes an empty list */
        hsize_t none = 0;
        return put_attribute(object, name, H5Tcopy(H5T_IEEE_F64LE), H5Screate_simple(1, &none, NULL), NULL);
    }
    size_t width = 1;
    for (int i = 0; i < n; i++)
        width = strlen(names[i]) > width ? strlen(names[i]) : width;
    if (width > ATTRIBUTE_BYTES)
        return thaw_fail(THAW_DATA, "the name '%.60s...' is too long for an HDF5 attribute", names[0]);
    /* numpy's array_split into the smallest number of parts that all fit. */
    int parts = 1;
    while ((size_t)((n + parts - 1) / parts) * width > ATTRIBUTE_BYTES)
        parts++;
    if (parts == 1)
        return put_some(object, name, names, n, width);
    for (int k = 0, at = 0; k < parts; k++) {
        int count = n / parts + (k < n % parts);
        char *part = thaw_format("%s%d", name, k);
        thaw_status status = part ? put_some(object, part, names + at, count, width) : failed(name);
        thaw_free(part);
        if (status != THAW_OK)
            return status;
        at += count;
    }
    return THAW_OK;
}

thaw_status thaw_h5_put_texts(hid_t object, const char *name, const char *const *texts, int n) {
    int most = ATTRIBUTE_BYTES / VARIABLE_BYTES;
    for (int k = 0, at = 0; at < n; k++, at += most) {
        hsize_t dim = (hsize_t)(n - at < most ? n - at : most);
        char *part = n <= most ? thaw_strdup(name) : thaw_format("%s%d", name, k);
        thaw_status status = part ? put_attribute(object, part, text_type(H5T_VARIABLE, H5T_CSET_UTF8),
                                                  H5Screate_simple(1, &dim, NULL), texts + at)
                                  : failed(name);
        thaw_free(part);
        if (status != THAW_OK)
            return status;
    }
    return THAW_OK;
}

static thaw_status put_dataset(hid_t group, const char *path, hid_t file_type, hid_t memory_type, const hsize_t *dims,
                               int rank, const void *data) {
    hid_t links = links_with_parents(), create = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(rank, dims, NULL);
    H5Pset_obj_track_times(create, 0);
    hid_t dataset = H5Dcreate2(group, path, file_type, space, links, create, H5P_DEFAULT);
    herr_t written = dataset < 0 ? -1 : H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    if (dataset >= 0)
        H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(create);
    H5Pclose(links);
    return written < 0 ? failed(path) : THAW_OK;
}

thaw_status thaw_h5_put_floats(hid_t group, const char *path, const float *data, const int64_t *shape, int rank) {
    hsize_t dims[MOST_RANK];
    if (rank > MOST_RANK)
        return failed(path);
    for (int i = 0; i < rank; i++)
        dims[i] = (hsize_t)shape[i];
    return put_dataset(group, path, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, dims, rank, data);
}

thaw_status thaw_h5_put_text_list(hid_t group, const char *path, const char *const *texts, int64_t n) {
    hsize_t dim = (hsize_t)n;
    hid_t type = text_type(H5T_VARIABLE, H5T_CSET_UTF8);
    thaw_status status = put_dataset(group, path, type, type, &dim, 1, texts);
    H5Tclose(type);
    return status;
}
