/* Opening HDF5 arrays: names, shapes, lengths; what leads out of the file or is not there is refused. */
#include "data_case.h"

#include <hdf5.h>

static hid_t file;

static void add(const char *name, hid_t type, int rank, const hsize_t *dims, hid_t plist, bool write) {
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i] < 1000 ? dims[i] : 1;
    float *zeros = calloc(n ? n : 1, sizeof *zeros);
    hid_t space = H5Screate_simple(rank, dims, NULL);
    hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(dataset >= 0);
    if (write)
        assert_true(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros) >= 0);
    H5Dclose(dataset);
    H5Sclose(space);
    free(zeros);
}

static void add_arrays(void) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    add("x", H5T_NATIVE_FLOAT, 4, (hsize_t[]){12, 9, 8, 3}, H5P_DEFAULT, true);
    add("y", H5T_NATIVE_FLOAT, 1, (hsize_t[]){12}, H5P_DEFAULT, true);
    add("y2", H5T_NATIVE_INT8, 2, (hsize_t[]){12, 5}, H5P_DEFAULT, true);
    add("short", H5T_NATIVE_FLOAT, 1, (hsize_t[]){11}, H5P_DEFAULT, true);
    add("cube", H5T_NATIVE_FLOAT, 3, (hsize_t[]){12, 2, 2}, H5P_DEFAULT, true);
    add("five", H5T_NATIVE_FLOAT, 5, (hsize_t[]){2, 2, 2, 2, 2}, H5P_DEFAULT, true);
    add("none", H5T_NATIVE_FLOAT, 2, (hsize_t[]){0, 2}, H5P_DEFAULT, false);
    hid_t group = H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "/x", group, "x", H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(group);
    H5Lcreate_soft("/x", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/group", file, "softgroup", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external("other.h5", "/x", file, "outside", H5P_DEFAULT, H5P_DEFAULT);
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(plist, "/etc/passwd", 0, 24 * sizeof(float));
    add("external", H5T_NATIVE_FLOAT, 2, (hsize_t[]){12, 2}, plist, false);
    H5Pclose(plist);
    plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(plist, 2, (hsize_t[]){1000, 1000});
    H5Pset_deflate(plist, 9);
    add("bomb", H5T_NATIVE_FLOAT, 2, (hsize_t[]){1 << 30, 1 << 30}, plist, false);
    H5Pset_chunk(plist, 2, (hsize_t[]){20000, 20000});
    add("chunks", H5T_NATIVE_FLOAT, 2, (hsize_t[]){100000, 100000}, plist, false);
    H5Pclose(plist);
    plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(plist, 2, (hsize_t[]){2, 2});
    H5Pset_scaleoffset(plist, H5Z_SO_INT, 3);
    add("filter", H5T_NATIVE_INT, 2, (hsize_t[]){12, 2}, plist, true);
    H5Pclose(plist);
    plist = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(2, (hsize_t[]){12, 2}, NULL), type = H5Tcopy(H5T_C_S1);
    H5Pset_virtual(plist, space, "other.h5", "/x", space);
    hid_t dataset = H5Dcreate2(file, "virtual", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Dclose(dataset);
    H5Tset_size(type, 4);
    dataset = H5Dcreate2(file, "text", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dclose(dataset);
    H5Tclose(type);
    H5Sclose(space);
    H5Pclose(plist);
}

static int set_up(void **state) {
    if (make_folder(state) != 0)
        return -1;
    file = H5Fcreate(in_folder("a.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    add_arrays();
    return H5Fclose(file);
}

static const char *named(const char *dataset) {
    static char names[4][200];
    static int next;
    char *name = names[next++ % 4];
    snprintf(name, sizeof names[0], "%s:%s", in_folder("a.h5"), dataset);
    return name;
}

static void test_open(void **state) {
    (void)state;
    thaw_dataset *d;
    succeed(thaw_dataset_open_arrays(&d, named("/x"), named("/y2")));
    assert_true(d->arrays);
    assert_int_equal(d->n, 12);
    assert_int_equal(d->x_rank, 4);
    assert_memory_equal(d->x_shape, ((int64_t[]){9, 8, 3}), 24);
    assert_int_equal(d->y_width, 5);
    assert_string_equal(d->x_file, in_folder("a.h5"));
    assert_string_equal(d->y_dataset, "/y2");
    for (int i = 0; i < 12; i++)
        assert_int_equal(d->rows[i], i);
    const uint64_t hash = thaw_dataset_hash(d);
    void *bytes;
    size_t size;
    thaw_dataset *copy, *validation;
    succeed(thaw_dataset_pack(&bytes, &size, d));
    succeed(thaw_dataset_unpack(&copy, bytes, size));
    assert_true(thaw_dataset_hash(copy) == hash);
    assert_string_equal(copy->y_file, d->y_file);
    for (size_t n = 0; n < size; n++)
        if (n < size - 8 * 12)
            expect(thaw_dataset_unpack(&validation, bytes, n), THAW_INTERNAL, "index");
    succeed(thaw_dataset_split(copy, 0.25, 3, &validation));
    assert_int_equal(validation->n, 3);
    assert_int_equal(copy->n, 9);
    assert_true(validation->arrays && validation->y_width == 5 && validation->x_shape[1] == 8);
    assert_true(validation->rows[0] < validation->rows[1] && validation->rows[1] < validation->rows[2]);
    assert_true(thaw_dataset_hash(copy) != hash);
    thaw_dataset_drop(d, (int64_t[]){0}, 1);
    assert_int_equal(d->rows[0], 1);
    int64_t *bad, n_bad;
    succeed(thaw_dataset_verify(d, 2, 0, 1, &bad, &n_bad, NULL));
    assert_int_equal(n_bad, 0);
    thaw_free(bad);
    /* Hashes of rows: those of the split are among those of the whole, whatever is read at once. */
    uint64_t whole[12], part[3];
    thaw_dataset *all;
    succeed(thaw_dataset_unpack(&all, bytes, size));
    succeed(thaw_dataset_hash_rows(all, 0, 12, whole));
    succeed(thaw_dataset_hash_rows(all, 7, 10, part));
    assert_memory_equal(part, whole + 7, sizeof part);
    succeed(thaw_dataset_hash_rows(validation, 0, 3, part));
    for (int i = 0; i < 3; i++)
        assert_true(part[i] == whole[validation->rows[i]]);
    all->rows[2] = 12;
    expect(thaw_dataset_hash_rows(all, 0, 12, whole), THAW_DATA, "row 12 is asked for");
    thaw_dataset_free(all);
    thaw_free(bytes);
    thaw_dataset_free(validation);
    thaw_dataset_free(copy);
    thaw_dataset_free(d);
    succeed(thaw_dataset_open_arrays(&d, named("/group/x"), NULL));
    assert_null(d->y_file);
    assert_int_equal(d->y_width, 0);
    thaw_dataset_free(d);
}

static void refuse(const char *x, const char *y, thaw_status status, const char *parts) {
    thaw_dataset *d;
    const size_t live = thaw_memory_live();
    expect(thaw_dataset_open_arrays(&d, x, y), status, parts);
    assert_null(d);
    assert_int_equal(thaw_memory_live(), live);
    assert_int_equal(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL), 0); /* nothing is left open */
}

static void test_refused(void **state) {
    (void)state;
    refuse(named("/nothing"), NULL, THAW_NO_INPUT, "a.h5:/nothing|/bomb, /chunks");
    refuse(named("/group/nothing"), NULL, THAW_NO_INPUT, "/group/nothing");
    refuse(named("/nothing/x"), NULL, THAW_NO_INPUT, "/nothing/x");
    refuse(in_folder("no-arrays.h5:/x"), NULL, THAW_NO_INPUT, "no-arrays.h5 does not exist");
    refuse(in_folder("a.h5"), NULL, THAW_USAGE, "a.h5'|FILE.h5:/dataset");
    refuse(":/x", NULL, THAW_USAGE, "FILE.h5:/dataset");
    refuse(named("/"), NULL, THAW_USAGE, "FILE.h5:/dataset");
    refuse(named("//"), NULL, THAW_USAGE, "FILE.h5:/dataset");
    refuse(named("/x"), named("/short"), THAW_DATA, "12|11|/x|/short");
    refuse(named("/x"), named("/cube"), THAW_DATA, "/cube|rank 3");
    refuse(named("/cube"), NULL, THAW_DATA, "/cube|rank 3");
    refuse(named("/five"), NULL, THAW_DATA, "/five|rank 5");
    refuse(named("/y"), NULL, THAW_DATA, "/y|rank 1");
    refuse(named("/none"), NULL, THAW_DATA, "/none|0 as dimension 0");
    refuse(named("/text"), NULL, THAW_DATA, "/text|no numbers");
    refuse(named("/group"), NULL, THAW_DATA, "/group|no dataset");
    refuse(named("/x/y"), NULL, THAW_DATA, "/x/y");
    refuse(named("/soft"), NULL, THAW_DATA, "/soft|link");
    refuse(named("/softgroup/x"), NULL, THAW_DATA, "/softgroup/x|link");
    refuse(named("/outside"), NULL, THAW_DATA, "/outside|link");
    refuse(named("/external"), NULL, THAW_DATA, "/external|other files");
    refuse(named("/virtual"), NULL, THAW_DATA, "/virtual|other files");
    refuse(named("/filter"), NULL, THAW_DATA, "/filter|filter 6");
    refuse(named("/bomb"), NULL, THAW_DATA, "/bomb");
    refuse(named("/chunks"), NULL, THAW_DATA, "/chunks|1 GiB");
    refuse(named("/group/../x"), NULL, THAW_DATA, "'.'");
    assert_int_equal(thaw_io_mkdirs(in_folder("dir.h5")), THAW_OK);
    refuse(in_folder("dir.h5:/x"), NULL, THAW_DATA, "dir.h5 is a folder");
    put("text.h5", "this is no HDF5 file", 20);
    refuse(in_folder("text.h5:/x"), NULL, THAW_DATA, "text.h5|HDF5");
    put("empty.h5", "", 0);
    refuse(in_folder("empty.h5:/x"), NULL, THAW_DATA, "empty.h5|empty");
}

/* The file cut: refused, or (behind all that is needed) opened; never a crash. */
static void test_truncated(void **state) {
    (void)state;
    void *bytes;
    size_t size;
    succeed(thaw_io_read(&bytes, &size, in_folder("a.h5"), 0));
    for (size_t n = 1; n < size; n += 97) {
        thaw_dataset *d;
        put("cut.h5", bytes, n);
        expect(thaw_dataset_open_arrays(&d, in_folder("cut.h5:/x"), NULL), THAW_DATA, "cut.h5");
    }
    thaw_free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_truncated),
    };
    return cmocka_run_group_tests(tests, set_up, remove_folder);
}
