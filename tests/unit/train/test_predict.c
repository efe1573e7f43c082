/* thaw_predict and thaw_evaluate in one process: three formats that agree, order, names, and every refusal. */
#include "train_case.h"

#include <hdf5.h>

#include "thaw/train.h"

#define MODEL THAW_SOURCE_DIR "/weights/digits-vgg.h5"
#define IMAGES THAW_SOURCE_DIR "/jobs/quickstart/digits/pretrain/val"

enum { CLASSES = 5, MOST = 1024 };

static thaw_comm *comm;
static char folder[64];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "%s", temporary_folder());
    return 0;
}

static int drop_folder(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* The digits network with notes as training writes them. */
static thaw_model *open_model(void) {
    thaw_model *model;
    thaw_builtin_options options = {0};
    assert_ok(thaw_named_model(&model, comm, MODEL, &options, "file"));
    thaw_model_notes *notes = &model->notes;
    if (!notes->preprocess)
        notes->preprocess = thaw_strdup("rescale");
    if (!notes->class_names) {
        notes->n_classes = CLASSES;
        notes->class_names = thaw_calloc(CLASSES, sizeof *notes->class_names);
        for (int c = 0; c < CLASSES; c++)
            notes->class_names[c] = thaw_format("%d", c);
    }
    return model;
}

static const char *in_folder(const char *name) {
    static char path[4][160];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    return path[next];
}

static thaw_status predict(const char *input, const char *output, bool logits, int64_t batch) {
    thaw_model *model = open_model();
    thaw_status status = thaw_predict(comm, model, &input, 1, in_folder(output), "auto", logits, batch);
    thaw_model_free(model);
    return status;
}

/* The number behind the next character. */
static float number(const char **at) {
    char *end;
    float value = strtof(*at + 1, &end);
    *at = end;
    return value;
}

/* Lines of JSON: probabilities, class by name. Returns their number. */
static int read_jsonl(const char *name, float (*y)[CLASSES], int *folder_class, int *index) {
    char *text = file_text(folder, name), *line = text;
    int n = 0;
    for (; *line; line = strchr(line, '\n') + 1, n++) {
        const char *at = strstr(line, "\"y\":[") + 4;
        assert_true(n < MOST);
        for (int c = 0; c < CLASSES; c++)
            y[n][c] = number(&at);
        folder_class[n] = strstr(line, "/val/")[5] - '0';
        index[n] = atoi(strstr(line, "\"index\":") + 8);
        assert_int_equal(strstr(line, "\"class\":\"")[9] - '0', index[n]);
    }
    thaw_free(text);
    return n;
}

static float y[MOST][CLASSES], other[MOST][CLASSES];
static int labels[MOST], best[MOST];

/* Loss and accuracy from predictions are those of evaluate. */
static void test_agrees_with_evaluate(void **state) {
    (void)state;
    double loss = 0.0, right = 0.0;
    thaw_evaluation result;
    thaw_model *model = open_model();
    assert_ok(predict(IMAGES, "out.jsonl", false, 32));
    int n = read_jsonl("out.jsonl", y, labels, best);
    assert_true(n > 50);
    for (int i = 0; i < n; i++) {
        loss -= log((double)y[i][labels[i]]);
        right += best[i] == labels[i];
        assert_true(i == 0 || labels[i] >= labels[i - 1]); /* classes in order */
    }
    for (int64_t batch = 7; batch < 100; batch += 50) {
        assert_ok(thaw_evaluate(&result, comm, model, IMAGES, "auto", batch));
        assert_int_equal(result.images, n);
        assert_true(result.has_loss);
        assert_near(result.loss, loss / n, 1e-6);
        assert_int_equal(result.n_metrics, 1);
        assert_string_equal(result.metric_names[0], "accuracy");
        assert_near(result.metrics[0], right / n, 1e-12);
    }
    thaw_model_free(model);
}

/* An image's bits depend neither on the batch nor on the format. */
static void test_formats(void **state) {
    (void)state;
    assert_ok(predict(IMAGES, "a.jsonl", false, 1));
    assert_ok(predict(IMAGES, "b.jsonl", false, 64));
    assert_ok(predict(IMAGES, "new/c.csv", false, 10));
    assert_ok(predict(IMAGES, "d.h5", false, 10));
    int n = read_jsonl("a.jsonl", y, labels, best);
    assert_int_equal(read_jsonl("b.jsonl", other, labels, best), n);
    assert_memory_equal(y, other, sizeof y);

    char *text = file_text(folder, "new/c.csv");
    assert_int_equal(strncmp(text, "file,0,1,2,3,4\n", 15), 0);
    const char *at = strchr(text, '\n') + 1;
    for (int i = 0; i < n; i++) {
        assert_int_equal(strncmp(at, IMAGES, strlen(IMAGES)), 0);
        at = strchr(at, ',');
        for (int c = 0; c < CLASSES; c++)
            assert_true(number(&at) == y[i][c]); /* 9 digits bring back the float */
        at = strchr(at, '\n') + 1;
    }
    assert_int_equal(*at, '\0');
    thaw_free(text);

    hid_t file = H5Fopen(in_folder("d.h5"), H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, "/y", H5P_DEFAULT);
    memset(other, 0, sizeof other);
    assert_true(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, other) >= 0);
    assert_memory_equal(y, other, sizeof y);
    H5Dclose(set);
    assert_true(H5Lexists(file, "/files", H5P_DEFAULT) > 0);
    H5Fclose(file);
}

static void test_logits(void **state) {
    (void)state;
    assert_ok(predict(IMAGES "/3", "p.jsonl", false, 16));
    assert_ok(predict(IMAGES "/3", "z.jsonl", true, 16));
    int n = read_jsonl("p.jsonl", y, labels, best);
    assert_int_equal(read_jsonl("z.jsonl", other, labels, best), n);
    for (int i = 0; i < n; i++) {
        double sum = 0.0;
        for (int c = 0; c < CLASSES; c++)
            sum += exp((double)other[i][c]);
        for (int c = 0; c < CLASSES; c++)
            assert_near(exp((double)other[i][c]) / sum, y[i][c], 1e-6);
    }
}

static void write_array(const char *name, const char *dataset, int rank, const hsize_t *dims, const float *values) {
    hid_t file = access(name, F_OK) == 0 ? H5Fopen(name, H5F_ACC_RDWR, H5P_DEFAULT)
                                         : H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(rank, dims, NULL);
    hid_t set = H5Dcreate2(file, dataset, H5T_NATIVE_FLOAT, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Fclose(file);
}

static void test_arrays(void **state) {
    (void)state;
    thaw_model *model = open_model();
    const int64_t *dim = model->nodes[model->input].shape.dim;
    size_t one = (size_t)thaw_shape_count(&model->nodes[model->input].shape);
    float *x = thaw_calloc(3 * one, sizeof *x), labels_of[3] = {0, 4, 2};
    for (size_t i = 0; i < 3 * one; i++)
        x[i] = (float)(i % 97) / 97.0f;
    char name[160], input[200];
    snprintf(name, sizeof name, "%s", in_folder("x.h5"));
    write_array(name, "/x", 4, (hsize_t[]){3, (hsize_t)dim[0], (hsize_t)dim[1], (hsize_t)dim[2]}, x);
    write_array(name, "/y", 1, (hsize_t[]){3}, labels_of);
    write_array(name, "/flat", 2, (hsize_t[]){3, one}, x);
    snprintf(input, sizeof input, "%s:/x", name);
    const char *inputs[] = {input, input};
    assert_ok(thaw_predict(comm, model, inputs, 1, in_folder("rows.csv"), NULL, false, 2));
    char *text = file_text(folder, "rows.csv");
    assert_int_equal(strncmp(text, "row,0,1,2,3,4\n0,", 16), 0);
    assert_says(text, "\n2,");
    thaw_free(text);
    thaw_evaluation result;
    assert_ok(thaw_evaluate(&result, comm, model, input, NULL, 2));
    assert_int_equal(result.images, 3);
    assert_true(isfinite(result.loss) && result.n_metrics == 1);
    assert_int_equal(thaw_predict(comm, model, inputs, 2, in_folder("rows.csv"), NULL, false, 2), THAW_USAGE);
    snprintf(input, sizeof input, "%s:/flat", name);
    assert_int_equal(thaw_predict(comm, model, inputs, 1, in_folder("rows.csv"), NULL, false, 2), THAW_DATA);
    thaw_free(x);
    thaw_model_free(model);
}

static void test_refused(void **state) {
    (void)state;
    assert_int_equal(predict(IMAGES, "out.txt", false, 8), THAW_USAGE);
    assert_says(thaw_message(), ".csv, .jsonl or .h5");
    assert_ok(thaw_io_write_atomic(in_folder("file"), "x", 1));
    assert_int_equal(predict(IMAGES, "file/out.csv", false, 8), THAW_CANT_CREATE);
    assert_says(thaw_message(), "file");
    assert_ok(thaw_io_mkdirs(in_folder("dir.csv")));
    assert_int_equal(predict(IMAGES, "dir.csv", false, 8), THAW_CANT_CREATE);
    assert_int_equal(predict(in_folder("none.png"), "new/out.csv", false, 8), THAW_NO_INPUT);
    assert_false(thaw_io_exists(in_folder("new")));
    assert_ok(thaw_io_mkdirs(in_folder("images")));
    assert_ok(thaw_io_write_atomic(in_folder("images/bad.png"), "\x89PNG\r\n\x1a\nxx", 10));
    assert_int_equal(predict(in_folder("images"), "new/out.csv", false, 8), THAW_DATA);
    assert_says(thaw_message(), "bad.png");
    assert_false(thaw_io_exists(in_folder("new")));
    thaw_model *model = open_model();
    thaw_evaluation result;
    assert_int_equal(thaw_evaluate(&result, comm, model, in_folder("images"), "auto", 8), THAW_DATA);
    assert_int_equal(thaw_evaluate(&result, comm, model, IMAGES, "sepia", 8), THAW_USAGE);
    thaw_free(model->notes.preprocess);
    model->notes.preprocess = NULL;
    assert_int_equal(thaw_evaluate(&result, comm, model, IMAGES, "auto", 8), THAW_USAGE);
    assert_says(thaw_message(), "caffe, tf, torch, rescale, none");
    thaw_model_free(model);
}

/* Requests for memory fail, each once. */
static void test_failing_memory(void **state) {
    (void)state;
    thaw_model *model = open_model();
    const char *input = IMAGES "/0";
    thaw_evaluation result;
    static const char *const outputs[] = {"m.csv", "m.jsonl", "m.h5"};
    for (int which = 0; which < 4; which++) {
        size_t live = thaw_memory_live();
        thaw_status status = THAW_RESOURCE;
        int64_t n = 0;
        while (status != THAW_OK || n < 50) {
            n += which < 3 ? 1 : 13; /* the evaluation's requests are those of many images */
            thaw_memory_fail_after(n);
            status = which < 3 ? thaw_predict(comm, model, &input, 1, in_folder(outputs[which]), "auto", false, 100)
                               : thaw_evaluate(&result, comm, model, IMAGES, "auto", 100);
            thaw_memory_fail_after(-1);
            bool decoder = status == THAW_DATA && strstr(thaw_message(), ".png"); /* it does not tell why it gave up */
            if (status != THAW_OK && status != THAW_RESOURCE && !decoder)
                fail_msg("%d: request %lld: status %d: %s", which, (long long)n, status, thaw_message());
            if (thaw_memory_live() != live)
                fail_msg("%d: request %lld leaks (status %d: %s)", which, (long long)n, status, thaw_message());
            assert_true(n < 20000);
        }
        print_message("  %lld requests\n", (long long)n);
    }
    thaw_model_free(model);
}

int main(void) {
    int argc = 0;
    char **argv = NULL;
    if (thaw_comm_init(&comm, &argc, &argv) != THAW_OK)
        return 1;
#define RUN(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)
    const struct CMUnitTest tests[] = {RUN(test_agrees_with_evaluate), RUN(test_formats), RUN(test_logits),
                                       RUN(test_arrays),               RUN(test_refused), RUN(test_failing_memory)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    thaw_comm_finalize(comm);
    return failed;
}
