/* history.csv: columns, numbers, quotes, going back, failing writes. */
#include "train_case.h"

#include <errno.h>

#include "train/history.h"

static const thaw_objective objective = {.n_metrics = 2, .metrics = {THAW_METRIC_MSE, THAW_METRIC_ACCURACY}};

static thaw_values values_of(double first) {
    thaw_values v = {.n = 7,
                     .names = {"learning_rate", "loss", "mse", "accuracy", "val_loss", "val_mse", "val_accuracy"},
                     .values = {0.001, first, 2.0 / 3, 0.5, NAN, 1e-12, 1.0}};
    return v;
}

static void test_rows(void **state) {
    (void)state;
    const char *folder = temporary_folder();
    thaw_history *history;
    size_t live = thaw_memory_live();
    assert_ok(thaw_history_open(&history, folder, &objective, true));
    assert_int_equal(thaw_history_size(history), 0);
    thaw_values v = values_of(1.0 / 3);
    assert_ok(thaw_history_row(history, 0, "head", &v));
    v.n = 4; /* no validation in this epoch */
    assert_ok(thaw_history_row(history, 1, "fine, \"slow\"", &v));
    char *text = file_text(folder, "history.csv");
    assert_string_equal(text, "epoch,stage,accuracy,learning_rate,loss,mse,val_accuracy,val_loss,val_mse\n"
                              "0,head,0.5,0.001,0.333333333,0.666666667,1,nan,1e-12\n"
                              "1,\"fine, \"\"slow\"\"\",0.5,0.001,0.333333333,0.666666667,NA,NA,NA\n");
    assert_int_equal(thaw_history_size(history), strlen(text));
    thaw_free(text);
    thaw_history_free(history);
    assert_int_equal(thaw_memory_live(), live);
    remove_folder(folder);
}

static void test_rewind(void **state) {
    (void)state;
    const char *folder = temporary_folder();
    thaw_history *history;
    thaw_values v = values_of(1.0);
    assert_ok(thaw_history_open(&history, folder, &objective, false));
    assert_ok(thaw_history_row(history, 0, "s", &v));
    uint64_t size = thaw_history_size(history);
    assert_ok(thaw_history_row(history, 1, "s", &v));
    thaw_history_free(history);
    assert_ok(thaw_history_open(&history, folder, &objective, false)); /* another process goes on */
    assert_true(thaw_history_size(history) > size);
    assert_ok(thaw_history_rewind(history, size));
    v.values[1] = 5.0;
    assert_ok(thaw_history_row(history, 1, "s", &v));
    char *text = file_text(folder, "history.csv");
    assert_string_equal(text, "epoch,stage,accuracy,learning_rate,loss,mse\n0,s,0.5,0.001,1,0.666666667\n"
                              "1,s,0.5,0.001,5,0.666666667\n");
    thaw_free(text);
    assert_ok(thaw_history_rewind(history, 0)); /* the header comes again */
    assert_ok(thaw_history_row(history, 0, "s", &v));
    text = file_text(folder, "history.csv");
    assert_string_equal(text, "epoch,stage,accuracy,learning_rate,loss,mse\n0,s,0.5,0.001,5,0.666666667\n");
    thaw_free(text);
    thaw_history_free(history);
    remove_folder(folder);
}

static void test_none(void **state) {
    (void)state;
    thaw_values v = values_of(1.0);
    assert_ok(thaw_history_row(NULL, 0, "s", &v));
    assert_int_equal(thaw_history_size(NULL), 0);
    assert_ok(thaw_history_rewind(NULL, 7));
    thaw_history_free(NULL);
}

/* Every operation fails once: the file keeps whole rows, and the row can be written again. */
static void test_failing(void **state) {
    (void)state;
    const char *folder = temporary_folder();
    thaw_history *history;
    thaw_values v = values_of(1.0);
    assert_ok(thaw_history_open(&history, folder, &objective, false));
    assert_ok(thaw_history_row(history, 0, "s", &v));
    uint64_t size = thaw_history_size(history);
    int failed = 0;
    for (int n = 1; n <= 3; n++) {
        thaw_io_fail_after(n, ENOSPC);
        thaw_status status = thaw_history_row(history, 1, "s", &v);
        thaw_io_fail_after(-1, 0);
        if (status == THAW_OK)
            break;
        failed++;
        assert_int_equal(status, THAW_IO);
        assert_int_equal(thaw_history_size(history), size);
        assert_ok(thaw_history_rewind(history, size));
    }
    assert_true(failed > 0);
    for (int n = 1; n <= 2; n++) {
        thaw_memory_fail_after(n);
        thaw_status status = thaw_history_row(history, 1, "s", &v);
        thaw_memory_fail_after(-1);
        assert_true(status == THAW_OK || status == THAW_RESOURCE);
        assert_ok(thaw_history_rewind(history, size));
    }
    thaw_history_free(history);
    remove_folder(folder);
    size_t live = thaw_memory_live();
    for (int n = 1; n < 20; n++) {
        thaw_memory_fail_after(n);
        thaw_status status = thaw_history_open(&history, "/nowhere", &objective, true);
        thaw_memory_fail_after(-1);
        if (status == THAW_OK) {
            assert_true(n > 7);
            thaw_history_free(history);
            break;
        }
        assert_int_equal(status, THAW_RESOURCE);
        assert_null(history);
        assert_int_equal(thaw_memory_live(), live);
    }
    assert_int_equal(thaw_memory_live(), live);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_rewind), cmocka_unit_test(test_none),
                                       cmocka_unit_test(test_failing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
