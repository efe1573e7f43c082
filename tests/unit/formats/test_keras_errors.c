/* Bad files: each is refused with its status and a message that says what is wrong and where. */
#include <math.h>

#include <hdf5.h>

#include "formats_case.h"

/* HDF5 asks for absurd sizes on damaged files and handles that it gets nothing; so let ASan answer as malloc does. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
/* Some of its error paths lose memory. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

static const char *bad_path(void) { return scratch("bad.h5"); }

static void assert_has(const char *words) {
    char copy[512];
    snprintf(copy, sizeof copy, "%s", words);
    for (char *word = strtok(copy, "|"); word; word = strtok(NULL, "|"))
        if (!strstr(thaw_message(), word))
            fail_msg("'%s' is not in: %s", word, thaw_message());
    assert_null(strchr(thaw_message(), '\n'));
}

/* `words`: separated by |. */
static void assert_refused(const char *path, thaw_status status, const char *words) {
    thaw_model *model = NULL;
    int got = (int)thaw_keras_read(&model, path, true);
    if (got != (int)status)
        fail_msg("status %d, expected %d (%s): %s", got, status, words, thaw_message());
    assert_null(model);
    assert_has(words);
}

static void write_bytes(const void *bytes, size_t size) { assert_ok(thaw_io_write_atomic(bad_path(), bytes, size)); }

static void copy_fixture(const char *name) {
    char path[512];
    void *bytes;
    size_t size;
    snprintf(path, sizeof path, FIXTURES "%s.h5", name);
    assert_ok(thaw_io_read(&bytes, &size, path, 0));
    write_bytes(bytes, size);
    thaw_free(bytes);
}

static hid_t open_bad(void) {
    hid_t file = H5Fopen(bad_path(), H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void set_config(hid_t file, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, H5T_VARIABLE);
    H5Adelete(file, "model_config");
    hid_t attribute = H5Acreate2(file, "model_config", type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, type, &text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

/* The fixture with `from` replaced by `to` in its model_config, everywhere. */
static void edit_config(const char *name, const char *from, const char *to) {
    thaw_model *model = read_fixture(name);
    size_t size = strlen(model->source_config) * (1 + strlen(to)) + 1;
    char *text = calloc(1, size), *at = text;
    int hits = 0;
    for (const char *c = model->source_config; *c;) {
        if (strncmp(c, from, strlen(from)) == 0) {
            at += sprintf(at, "%s", to);
            c += strlen(from);
            hits++;
        } else {
            *at++ = *c++;
        }
    }
    if (!hits)
        fail_msg("'%s' is not in the configuration of %s", from, name);
    copy_fixture(name);
    hid_t file = open_bad();
    set_config(file, text);
    H5Fclose(file);
    free(text);
    thaw_model_free(model);
}

static void refuse_edit(const char *name, const char *from, const char *to, const char *words) {
    edit_config(name, from, to);
    assert_refused(bad_path(), THAW_DATA, words);
}

static void accept_edit(const char *name, const char *from, const char *to) {
    thaw_model *model = NULL;
    edit_config(name, from, to);
    assert_ok(thaw_keras_read(&model, bad_path(), true));
    thaw_model_free(model);
}

static void put_dataset(hid_t file, const char *path, int rank, const hsize_t *dims, const float *data) {
    hid_t space = H5Screate_simple(rank, dims, NULL);
    H5Ldelete(file, path, H5P_DEFAULT);
    hid_t dataset = H5Dcreate2(file, path, H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(dataset);
    H5Sclose(space);
}

static void test_not_a_model(void **state) {
    (void)state;
    char text[4096];
    memset(text, 'x', sizeof text);
    assert_refused(scratch("nowhere.h5"), THAW_NO_INPUT, "nowhere.h5");
    assert_refused(FIXTURES, THAW_DATA, "folder");
    write_bytes(text, sizeof text);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|HDF5");
    write_bytes(text, 0);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|empty");
    memcpy(text, "PK\3\4", 4);
    write_bytes(text, sizeof text);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|.keras|model.save('model.h5')");
    memcpy(text, "\100\0\0\0\0\0\0\0{", 9);
    write_bytes(text, sizeof text);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|safetensors|model.save('model.h5')");
    assert_refused(FIXTURES "k1_weights.h5", THAW_DATA, "k1_weights.h5|weights only");
}

static void test_other_hdf5(void **state) {
    (void)state;
    hid_t file = H5Fcreate(bad_path(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|not a Keras model|model.save");
    file = open_bad();
    H5Gclose(H5Gcreate2(file, "layers", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|.weights.h5|model.save('model.h5')");
    copy_fixture("k2_model");
    file = open_bad();
    H5Ldelete(file, "model_weights", H5P_DEFAULT);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|no weights");
}

/* Cut at many places: never a crash, always 65 or (the cut lost nothing) a model. */
static void test_truncated(void **state) {
    (void)state;
    void *bytes;
    size_t size;
    assert_ok(thaw_io_read(&bytes, &size, FIXTURES "k2_sequential.h5", 0));
    for (size_t keep = 0; keep < size; keep += keep < 2048 ? 31 : 467) {
        write_bytes(bytes, keep);
        assert_refused(bad_path(), THAW_DATA, "bad.h5");
    }
    thaw_free(bytes);
}

/* One byte changed, all over the file: no crash, and what is read is finite. */
static void test_damaged_bytes(void **state) {
    (void)state;
    char *bytes;
    size_t size;
    assert_ok(thaw_io_read((void **)&bytes, &size, FIXTURES "k2_model.h5", 0));
    for (size_t at = 0; at < size; at += 7) {
        char old = bytes[at];
        bytes[at] = (char)(old ^ (char)(1 << at % 8));
        write_bytes(bytes, size);
        bytes[at] = old;
        thaw_model *model = NULL;
        thaw_status status = thaw_keras_read(&model, bad_path(), true);
        if (status == THAW_OK)
            for (int i = 0; i < model->n_layers; i++)
                for (int t = 0; t < model->layers[i].n_tensors; t++)
                    for (size_t k = 0; k < model->layers[i].tensors[t].count; k++)
                        assert_true(isfinite(model->layers[i].tensors[t].data[k]));
        else
            assert_int_equal(status, THAW_DATA);
        thaw_model_free(model);
    }
    thaw_free(bytes);
}

/* An attribute that declares more data than its message holds: HDF5 itself would read beyond it. */
static void test_long_attribute(void **state) {
    (void)state;
    char *bytes, *at = NULL;
    size_t size;
    assert_ok(thaw_io_read((void **)&bytes, &size, FIXTURES "k2_model.h5", 0));
    for (size_t i = 0; i + 12 <= size && !at; i++)
        if (memcmp(bytes + i, "layer_names", 12) == 0)
            at = bytes + i;
    assert_non_null(at);
    memcpy(at + 16 + 4, "\0\100\0\0", 4); /* the name is padded to 16 bytes; bytes 4 to 7 of the type are its size */
    write_bytes(bytes, size);
    thaw_free(bytes);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|model_weights|damaged");
}

static void test_bad_weights(void **state) {
    (void)state;
    float values[128] = {0};
    const char *kernel = "model_weights/conv2d_2/conv2d_2_9/kernel:0", *bias = "model_weights/conv2d_2/conv2d_2_9/bias:0";
    copy_fixture("k2_model");
    hid_t file = open_bad();
    put_dataset(file, kernel, 4, (hsize_t[]){3, 3, 2, 1}, values);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|conv2d_2|(3,3,2,1)|(3,3,2,2)");
    file = open_bad();
    put_dataset(file, kernel, 3, (hsize_t[]){3, 3, 4}, values);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|conv2d_2|(3,3,4)|(3,3,2,2)");
    copy_fixture("k2_model");
    file = open_bad();
    values[1] = NAN;
    put_dataset(file, bias, 1, (hsize_t[]){2}, values);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|conv2d_2|NaN");
    file = open_bad();
    values[1] = -INFINITY;
    put_dataset(file, bias, 1, (hsize_t[]){2}, values);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|conv2d_2|inf");
    file = open_bad();
    H5Ldelete(file, bias, H5P_DEFAULT);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|conv2d_2|missing");
    file = open_bad();
    H5Ldelete(file, "model_weights/conv2d_2", H5P_DEFAULT);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|conv2d_2|missing");
}

static void test_links(void **state) {
    (void)state;
    const char *bias = "model_weights/conv2d_2/conv2d_2_9/bias:0";
    copy_fixture("k2_model");
    hid_t file = open_bad();
    H5Ldelete(file, bias, H5P_DEFAULT);
    H5Lcreate_soft("/model_weights/conv2d_1/conv2d_1_9/bias:0", file, bias, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|conv2d_2|link");
    file = open_bad();
    H5Ldelete(file, bias, H5P_DEFAULT);
    H5Lcreate_external(FIXTURES "k2_model.h5", bias, file, bias, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|conv2d_2|link");
    copy_fixture("k2_model");
    file = open_bad();
    H5Lmove(file, "model_weights", file, "elsewhere", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/elsewhere", file, "model_weights", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|link");
}

/* Storage: compressed is fine, declared without data and stored elsewhere is not. */
static void test_storage(void **state) {
    (void)state;
    const char *bias = "model_weights/conv2d_2/conv2d_2_9/bias:0";
    hsize_t dims = 2;
    float values[2] = {1.0f, 2.0f};
    for (int kind = 0; kind < 3; kind++) {
        copy_fixture("k2_model");
        hid_t file = open_bad(), create = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, &dims, NULL);
        H5Ldelete(file, bias, H5P_DEFAULT);
        if (kind == 0) {
            H5Pset_chunk(create, 1, &dims);
            H5Pset_shuffle(create);
            H5Pset_deflate(create, 4);
        } else if (kind == 1) {
            H5Pset_external(create, "/etc/hostname", 0, 8);
        }
        hid_t dataset = H5Dcreate2(file, bias, H5T_IEEE_F32LE, space, H5P_DEFAULT, create, H5P_DEFAULT);
        if (kind == 0)
            H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
        H5Dclose(dataset);
        H5Sclose(space);
        H5Pclose(create);
        H5Fclose(file);
        if (kind == 0) {
            thaw_model *model;
            assert_ok(thaw_keras_read(&model, bad_path(), true));
            assert_true(thaw_layer_tensor(&model->layers[thaw_model_find(model, "conv2d_2")], "bias")->data[1] == 2.0f);
            thaw_model_free(model);
        } else {
            assert_refused(bad_path(), THAW_DATA, kind == 1 ? "conv2d_2|another file" : "conv2d_2|no data");
        }
    }
}

static void test_json(void **state) {
    (void)state;
    copy_fixture("k2_model");
    hid_t file = open_bad();
    set_config(file, "{\"class_name\": \"Functional\", \"config\": {");
    H5Fclose(file);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|model_config");
    enum { DEEP = 100000 };
    char *deep = calloc(DEEP, 5);
    for (int i = 0; i < DEEP - 1; i++)
        memcpy(deep + 5 * i, "{\"a\":", 5);
    file = open_bad();
    set_config(file, deep);
    H5Fclose(file);
    free(deep);
    assert_refused(bad_path(), THAW_DATA, "bad.h5|model_config");
    static const char *const odd[] = {"[]", "3", "{}", "{\"class_name\":\"Sequential\"}",
                                      "{\"class_name\":\"Sequential\",\"config\":{\"layers\":[]}}",
                                      "{\"class_name\":\"Sequential\",\"config\":[3]}",
                                      "{\"class_name\":\"Functional\",\"config\":{\"layers\":[{}]}}",
                                      "{\"class_name\":\"Functional\",\"config\":{\"layers\":[{\"class_name\":\"Add\"}]}}"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        file = open_bad();
        set_config(file, odd[i]);
        H5Fclose(file);
        assert_refused(bad_path(), THAW_DATA, "bad.h5");
    }
}

#define INPUT "{\"class_name\":\"InputLayer\",\"config\":{\"name\":\"i\",\"batch_input_shape\":[null,4]},\"name\":\"i\"," \
              "\"inbound_nodes\":[]}"

/* Models in models that are called on themselves: 4^k calls from a short text, with layers and without any. */
static void test_calls_explode(void **state) {
    (void)state;
    size_t room = 1 << 16;
    char *text = calloc(1, room), *inner = calloc(1, room);
    for (int layers = 0; layers < 2; layers++) {
        if (layers)
            snprintf(inner, room, "{\"class_name\":\"Activation\",\"config\":{\"name\":\"n\",\"activation\":\"relu\"}");
        else
            snprintf(inner, room, "{\"class_name\":\"Functional\",\"config\":{\"name\":\"n\",\"layers\":[" INPUT "],"
                                  "\"input_layers\":[[\"i\",0,0]],\"output_layers\":[[\"i\",0,0]]}");
        for (int level = 0; level < 14; level++) {
            int first = level > 0 || !layers; /* number of a nested model's first call */
            snprintf(text, room,
                     "{\"class_name\":\"Functional\",\"config\":{\"name\":\"n\",\"layers\":[" INPUT ",%s,\"name\":\"n\","
                     "\"inbound_nodes\":[[[\"i\",0,0,{}]],[[\"n\",%d,0,{}]],[[\"n\",%d,0,{}]],[[\"n\",%d,0,{}]]]}],"
                     "\"input_layers\":[[\"i\",0,0]],\"output_layers\":[[\"n\",%d,0]]}", inner, first, first + 1, first + 2,
                     first + 3);
            char *swap = inner;
            inner = text;
            text = swap;
        }
        strcat(inner, "}");
        copy_fixture("k2_model");
        hid_t file = open_bad();
        set_config(file, inner);
        H5Fclose(file);
        assert_refused(bad_path(), THAW_DATA, layers ? "bad.h5|calls of layers" : "bad.h5|100000 calls");
    }
    free(text);
    free(inner);
}

static void test_structure(void **state) {
    (void)state;
    refuse_edit("k2_model", "\"class_name\": \"Add\"", "\"class_name\": \"SpectralMixing\"", "SpectralMixing|add_1");
    refuse_edit("k2_model", "\"class_name\": \"Add\"", "\"class_name\": \"Lambda\"", "Lambda|add_1");
    refuse_edit("k2_model", "[\"input_1\", 0, 0, {}]", "[\"input_9\", 0, 0, {}]", "bad.h5|conv2d_1|input_9");
    refuse_edit("k2_model", "[\"input_1\", 0, 0, {}]", "[\"add_1\", 0, 0, {}]", "bad.h5|cycle");
    refuse_edit("k2_model", "[\"conv2d_1\", 0, 0, {}]", "[\"conv2d_1\", 3, 0, {}]", "bad.h5|conv2d_1|call 3");
    refuse_edit("k2_model", "[\"conv2d_1\", 0, 0, {}]", "[\"conv2d_1\", 0, 1, {}]", "bad.h5|conv2d_2");
    refuse_edit("k2_model", "[\"conv2d_1\", 0, 0, {}]", "[\"conv2d_1\", 0, 0, {\"training\": true}]", "bad.h5|training");
    refuse_edit("k2_model", "[[\"dense_1\", 0, 0]]", "[[\"dense_1\", 0, 0], [\"add_1\", 0, 0]]",
                "bad.h5|output_layers|one output");
    refuse_edit("k2_model", "\"conv2d_2\"", "\"conv2d_1\"", "bad.h5|conv2d_1|name");
    refuse_edit("k2_model", "[null, 4, 4, 3]", "[null, null, null, 3]", "bad.h5|input_1|open");
    refuse_edit("k2_model", "[null, 4, 4, 3]", "[null, 4, 4]", "bad.h5|input_1|batch_input_shape");
    refuse_edit("k2_model", "[null, 4, 4, 3]", "[null, 4, 0, 3]", "bad.h5|input_1");
    refuse_edit("k2_model", "[null, 4, 4, 3]", "[null, 4, 4, 2]", "bad.h5|conv2d_1|(3,3,3,2)|(3,3,2,2)");
    refuse_edit("k2_model", "[null, 4, 4, 3]", "[null, 2000000000, 2000000000, 3]", "bad.h5|input_1");
    refuse_edit("k2_model", "\"filters\": 2", "\"filters\": 9000000000000000", "bad.h5|conv2d_1|filters");
    refuse_edit("k2_sequential", "\"batch_input_shape\": [null, 4, 4, 3], ", "", "bad.h5|no input shape");
}

/* Every argument that would change results and is not implemented. */
static void test_arguments(void **state) {
    (void)state;
    refuse_edit("k2_model", "channels_last", "channels_first", "bad.h5|conv2d_1|data_format|channels_first");
    refuse_edit("tk_functional", "\"groups\": 1", "\"groups\": 2", "conv_a|groups is 2");
    refuse_edit("k2_model", "\"activity_regularizer\": null", "\"activity_regularizer\": {\"class_name\":\"L2\"}",
                "conv2d_1|activity_regularizer");
    refuse_edit("k2_model", "\"bias_constraint\": null", "\"bias_constraint\": {\"class_name\":\"NonNeg\",\"config\":{}}",
                "conv2d_1|bias_constraint|NonNeg");
    refuse_edit("k2_model", "\"activation\": \"relu\"", "\"activation\": \"mish\"", "conv2d_1|activation is \"mish\"");
    refuse_edit("k2_model", "\"padding\": \"same\"", "\"padding\": \"causal\"", "conv2d_1|padding is \"causal\"");
    refuse_edit("k2_model", "\"kernel_size\": [3, 3]", "\"kernel_size\": [3, 3, 3]", "conv2d_1|kernel_size");
    refuse_edit("k2_model", "\"kernel_size\": [3, 3]", "\"kernel_size\": [3, 0]", "conv2d_1|kernel_size");
    refuse_edit("k2_model", "\"strides\": [1, 1]", "\"strides\": -1", "conv2d_1|strides");
    refuse_edit("k2_model", "\"use_bias\": true", "\"use_bias\": 1.5", "conv2d_1|use_bias is 1.5");
    refuse_edit("k2_model", "\"L1L2\"", "\"OrthogonalRegularizer\"", "conv2d_1|kernel_regularizer|OrthogonalRegularizer");
    refuse_edit("k2_model", "\"use_bias\": true", "\"use_bias\": true, \"quantization\": \"int8\"", "conv2d_1|quantization|int8");
    refuse_edit("k3_functional", "\"renorm\": false", "\"renorm\": true", "bn_a|renorm is true");
    refuse_edit("k3_functional", "\"axis\": -1", "\"axis\": 1", "bn_a|axis is 1");
    refuse_edit("k3_functional", "\"name\": \"float32\"", "\"name\": \"mixed_float16\"", "conv_a|dtype|mixed_float16");
    refuse_edit("tk_functional", "\"dtype\": \"float32\"", "\"dtype\": \"float64\"", "dtype|float64");
    refuse_edit("tk_functional", "\"noise_shape\": null", "\"noise_shape\": [null, 1]", "drop|noise_shape");
    refuse_edit("tk_functional", "\"rate\": 0.25", "\"rate\": 1.5", "drop|rate");
    refuse_edit("tk_sequential", "\"scale\": [0.5, 0.25]", "\"scale\": \"half\"", "rescale|scale");
    refuse_edit("tk_sequential", "\"offset\": [-1.0, 1.0]", "\"offset\": [-1.0, 1.0, 2.0]", "rescale|offset");
    refuse_edit("tk_sequential", "[3, -1, 3]", "[5, -1, 4]", "shape|Reshape");
    /* Neutral values and other dialects pass. */
    accept_edit("tk_functional", "\"groups\": 1, ", "");
    accept_edit("tk_functional", "\"use_bias\": true", "\"use_bias\": true, \"new_argument\": null, \"newer\": false");
    accept_edit("tk_functional", "\"noise_shape\": null", "\"noise_shape\": [null, null]");
    accept_edit("tk_functional", "\"strides\": [2, 2]", "\"strides\": 2");
    accept_edit("tk_functional", "\"strides\": [2, 2]", "\"strides\": {\"class_name\":\"__tuple__\",\"items\":[2,2]}");
    accept_edit("tk_functional", "\"dtype\": \"float32\"",
                "\"dtype\": {\"class_name\":\"Policy\",\"config\":{\"name\":\"float32\"}}");
    accept_edit("tk_functional", "\"class_name\": \"GlorotUniform\"", "\"class_name\": \"MyOwn>Initializer\"");
    accept_edit("k2_model", "[[\"dense_1\", 0, 0]]", "[\"dense_1\", 0, 0]");
    accept_edit("k2_model", "[[[\"conv2d_1\", 0, 0, {}]]]", "[[\"conv2d_1\", 0, 0]]");
}

static void test_load_errors(void **state) {
    (void)state;
    thaw_model *model = read_fixture("k2_model");
    assert_int_equal(thaw_keras_load_weights(model, FIXTURES "k1_weights.h5", false), THAW_DATA);
    assert_has("k1_weights.h5|the file has 2 layers with weights, the model needs 3");
    assert_int_equal(thaw_keras_load_weights(model, FIXTURES "tk_functional.h5", false), THAW_DATA);
    assert_has("tk_functional.h5|the file has 4 layers with weights, the model needs 3");
    copy_fixture("k2_model");
    hid_t file = open_bad(), group = H5Gopen2(file, "model_weights/dense_1", H5P_DEFAULT);
    H5Adelete(group, "weight_names");
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, 16);
    hid_t attribute = H5Acreate2(group, "weight_names", type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, type, "dense_1/kernel:0");
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    H5Gclose(group);
    H5Fclose(file);
    assert_int_equal(thaw_keras_load_weights(model, bad_path(), false), THAW_DATA);
    assert_has("bad.h5|dense_1|1 weights|needs 2");
    assert_int_equal(thaw_keras_load_weights(model, FIXTURES "nothing.h5", false), THAW_NO_INPUT);
    thaw_model_free(model);
}

int main(void) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_a_model), cmocka_unit_test(test_other_hdf5),     cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_damaged_bytes), cmocka_unit_test(test_long_attribute),
        cmocka_unit_test(test_bad_weights),  cmocka_unit_test(test_links),
        cmocka_unit_test(test_storage),     cmocka_unit_test(test_json),           cmocka_unit_test(test_calls_explode),
        cmocka_unit_test(test_structure),   cmocka_unit_test(test_arguments),      cmocka_unit_test(test_load_errors),
    };
    int failed = cmocka_run_group_tests_name("formats/keras_errors", tests, NULL, NULL);
    unlink(bad_path());
    return failed;
}
