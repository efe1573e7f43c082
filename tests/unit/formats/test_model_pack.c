/* Models and predictions as bytes. */
#include <hdf5.h>

#include "formats/predictions.h"
#include "formats_case.h"

static thaw_model *repacked(const thaw_model *model) {
    void *bytes;
    size_t size;
    thaw_model *again = NULL;
    assert_ok(thaw_model_pack(&bytes, &size, model));
    assert_ok(thaw_model_unpack(&again, bytes, size));
    thaw_free(bytes);
    return again;
}

static void test_round_trip(void **state) {
    (void)state;
    static const char *const fixtures[] = {"k3_functional", "k3_sequential", "tk_nested_functional", "k3_twice"};
    for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++) {
        thaw_model *model = read_fixture(fixtures[i]);
        model->notes = (thaw_model_notes){.preprocess = thaw_strdup("caffe"), .loss = thaw_strdup("mse"), .n_classes = 2,
                                          .class_names = thaw_calloc(2, sizeof(char *))};
        model->notes.class_names[0] = thaw_strdup("cat");
        model->notes.class_names[1] = thaw_strdup("dog");
        thaw_model *again = repacked(model);
        assert_same_model(model, again);
        assert_string_equal(model->source_config, again->source_config);
        assert_string_equal(model->origin, again->origin);
        assert_string_equal(model->keras_version, again->keras_version);
        assert_string_equal(again->notes.preprocess, "caffe");
        assert_string_equal(again->notes.loss, "mse");
        assert_null(again->notes.metrics);
        assert_int_equal(again->notes.n_classes, 2);
        assert_string_equal(again->notes.class_names[1], "dog");
        assert_int_equal(model->n_base_layers, again->n_base_layers);
        for (int k = 0; k < model->n_layers; k++) {
            assert_int_equal(model->layers[k].trainable, again->layers[k].trainable);
            assert_int_equal(model->layers[k].head, again->layers[k].head);
        }
        for (int k = 0; k < model->n_nodes; k++)
            assert_int_equal(model->nodes[k].inference, again->nodes[k].inference);
        thaw_model_free(model);
        thaw_model_free(again);
    }
}

/* Structure alone: no weights come out. */
static void test_without_weights(void **state) {
    (void)state;
    thaw_model *model;
    assert_ok(thaw_keras_read(&model, FIXTURES "tk_functional.h5", false));
    thaw_model *again = repacked(model);
    assert_same_model(model, again);
    assert_ok(thaw_model_allocate(again));
    thaw_model_free(model);
    thaw_model_free(again);
}

/* Cut at every length, and every byte changed: an error or a model, never a crash. */
static void test_damaged(void **state) {
    (void)state;
    thaw_model *model, *again;
    char *bytes;
    size_t size;
    assert_ok(thaw_keras_read(&model, FIXTURES "k2_model.h5", false));
    assert_ok(thaw_model_pack((void **)&bytes, &size, model));
    for (size_t keep = 0; keep < size; keep++)
        assert_int_equal(thaw_model_unpack(&again, bytes, keep), THAW_INTERNAL);
    for (size_t at = 0; at < size; at++) {
        bytes[at] = (char)~bytes[at];
        if (thaw_model_unpack(&again, bytes, size) == THAW_OK)
            thaw_model_free(again);
        bytes[at] = (char)~bytes[at];
    }
    thaw_free(bytes);
    thaw_model_free(model);
}

/* Indices that would leave an array, or a graph that is none. */
static void test_wrong_indices(void **state) {
    (void)state;
    thaw_model *model = read_fixture("k2_model"), *again;
    int *const fields[] = {&model->nodes[3].inputs[0], &model->nodes[2].layer, &model->output, &model->input,
                           &model->n_base_layers, &model->layers[1].tensors[0].rank, &model->nodes[1].shape.rank};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        for (int wrong = 0; wrong < 2; wrong++) {
            void *bytes;
            size_t size;
            int old = *fields[i];
            *fields[i] = wrong ? -1 : i == 0 ? 3 : 99; /* a node reads earlier ones only */
            assert_ok(thaw_model_pack(&bytes, &size, model));
            *fields[i] = old;
            assert_int_equal(thaw_model_unpack(&again, bytes, size), THAW_INTERNAL);
            thaw_free(bytes);
        }
    thaw_model_free(model);
}

static void test_memory(void **state) {
    (void)state;
    thaw_model *model = read_fixture("k3_sequential"), *again;
    void *bytes;
    size_t size, before = thaw_memory_live();
    for (int n = 1; n < 400; n++) {
        thaw_memory_fail_after(n);
        thaw_status status = thaw_model_pack(&bytes, &size, model);
        if (status == THAW_OK)
            status = thaw_model_unpack(&again, bytes, size);
        thaw_memory_fail_after(-1);
        thaw_free(bytes);
        if (status == THAW_OK)
            thaw_model_free(again);
        assert_int_equal(thaw_memory_live(), before);
    }
    thaw_model_free(model);
}

static void test_predictions(void **state) {
    (void)state;
    const float y[6] = {0.1f, 0.2f, 0.7f, 0.3f, 0.3f, 0.4f};
    const char *files[2] = {"a/1.png", "b/\xc3\xa4.png"};
    for (int with = 0; with < 2; with++) {
        void *bytes;
        size_t size;
        float got[6];
        char *names[2];
        hsize_t dims[2];
        assert_ok(thaw_predictions_image(&bytes, &size, y, 2, 3, with ? files : NULL));
        assert_ok(thaw_io_write_atomic(scratch("y.h5"), bytes, size));
        thaw_free(bytes);
        hid_t file = H5Fopen(scratch("y.h5"), H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, "/y", H5P_DEFAULT);
        hid_t space = H5Dget_space(set);
        assert_int_equal(H5Sget_simple_extent_dims(space, dims, NULL), 2);
        assert_true(dims[0] == 2 && dims[1] == 3);
        assert_true(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, got) >= 0);
        assert_memory_equal(got, y, sizeof y);
        H5Sclose(space);
        H5Dclose(set);
        assert_int_equal(H5Lexists(file, "/files", H5P_DEFAULT) > 0, with);
        if (with) {
            set = H5Dopen2(file, "/files", H5P_DEFAULT);
            hid_t type = H5Dget_type(set);
            assert_true(H5Tget_cset(type) == H5T_CSET_UTF8 && H5Tis_variable_str(type) > 0);
            assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, names) >= 0);
            for (int i = 0; i < 2; i++) {
                assert_string_equal(names[i], files[i]);
                H5free_memory(names[i]);
            }
            H5Tclose(type);
            H5Dclose(set);
        }
        H5Fclose(file);
        unlink(scratch("y.h5"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_without_weights), cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_wrong_indices), cmocka_unit_test(test_memory), cmocka_unit_test(test_predictions),
    };
    return cmocka_run_group_tests_name("formats/model_pack", tests, NULL, NULL);
}
