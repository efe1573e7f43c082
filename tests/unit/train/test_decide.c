/* Early stopping, plateaus and the best epoch: hand-walked sequences by the rules of Keras' callbacks. */
#include "train_case.h"

#include "train/decide.h"

static char text_loss[] = "loss", text_val[] = "val_loss", text_accuracy[] = "val_accuracy", text_auto[] = "auto";

static thaw_values one(const char *name, double value) {
    thaw_values values = {.n = 2, .names = {"learning_rate", name}, .values = {0.1, value}};
    return values;
}

static thaw_job_stage stage_stopping(int patience) {
    return (thaw_job_stage){.epochs = 100, .early_stopping = {.on = true, .monitor = text_loss, .mode = text_auto,
                                                              .patience = patience}};
}

/* Epoch (from 0) at which a sequence stops, -1: never; `last_best`: last epoch with improved_in_stage. */
static int run_stop(const thaw_job_stage *stage, const char *name, const double *values, int n, int *last_best) {
    thaw_job job = {.monitor = text_loss, .monitor_mode = text_auto};
    thaw_decisions d;
    thaw_decisions_init(&d);
    *last_best = -1;
    for (int epoch = 0; epoch < n; epoch++) {
        thaw_values v = one(name, values[epoch]);
        thaw_verdict verdict = thaw_decide(&d, &job, stage, epoch, &v, 0.1);
        if (verdict.improved_in_stage)
            *last_best = epoch;
        if (verdict.stop)
            return epoch;
    }
    return -1;
}

static void test_early_stopping(void **state) {
    (void)state;
    int best;
    thaw_job_stage s = stage_stopping(2);
    assert_int_equal(run_stop(&s, "loss", (double[]){5, 4, 4.5, 3, 3.5, 3.2}, 6, &best), 5);
    assert_int_equal(best, 3);
    s = stage_stopping(0); /* the first epoch without improvement, never epoch 0 */
    assert_int_equal(run_stop(&s, "loss", (double[]){5, 4, 4}, 3, &best), 2);
    s = stage_stopping(1);
    s.early_stopping.min_delta = 0.5; /* steps of 0.4 are none */
    assert_int_equal(run_stop(&s, "loss", (double[]){5, 4.6, 4.2}, 3, &best), 1);
    s = stage_stopping(1);
    s.early_stopping.monitor = text_accuracy; /* auto: more is better */
    assert_int_equal(run_stop(&s, "val_accuracy", (double[]){.1, .2, .3, .25}, 4, &best), 3);
    assert_int_equal(best, 2);
    s = stage_stopping(2);
    s.early_stopping.start_from_epoch = 3; /* what lies before is not seen */
    assert_int_equal(run_stop(&s, "loss", (double[]){1, 2, 3, 4, 5, 6}, 6, &best), 5);
    assert_int_equal(best, 3);
    s = stage_stopping(2);
    s.early_stopping.has_baseline = true; /* improvements above the baseline do not reset the wait */
    s.early_stopping.baseline = 1.0;
    assert_int_equal(run_stop(&s, "loss", (double[]){5, 4, 3, 3.5}, 4, &best), 3);
    assert_int_equal(best, 2);
    assert_int_equal(run_stop(&s, "loss", (double[]){5, 0.5, 3, 0.4, 2}, 5, &best), -1);
    s = stage_stopping(2);
    assert_int_equal(run_stop(&s, "loss", (double[]){NAN, NAN, NAN}, 3, &best), 2); /* NaN improves nothing but nothing */
    assert_int_equal(best, 0);
    s.early_stopping.on = false;
    assert_int_equal(run_stop(&s, "loss", (double[]){1, 2, 3, 4}, 4, &best), -1);
}

static void test_plateau(void **state) {
    (void)state;
    thaw_job job = {.monitor = text_loss, .monitor_mode = text_auto};
    thaw_job_stage s = {.plateau = {.on = true, .monitor = text_loss, .mode = text_auto, .factor = 0.5, .min_delta = 1e-4,
                                    .patience = 1, .cooldown = 2, .min_lr = 0.02}};
    const double losses[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, rates[] = {.1, .05, .05, .025, .025, .02, .02, .02, .02, .02};
    thaw_decisions d;
    double rate = 0.1;
    thaw_decisions_init(&d);
    for (int epoch = 0; epoch < 10; epoch++) { /* best at 0; lower; two epochs of cooldown, the second counts again */
        thaw_values v = one("loss", losses[epoch]);
        thaw_verdict verdict = thaw_decide(&d, &job, &s, epoch, &v, rate);
        assert_true(verdict.lower_rate == (verdict.learning_rate < rate));
        rate = verdict.learning_rate;
        assert_near(rate, rates[epoch], 1e-9);
    }
    thaw_decisions_stage(&d); /* a new stage begins anew; the best of the run stays */
    assert_int_equal(d.plateau_seen, 0);
    assert_int_equal(d.best_epoch, 0);
}

static void test_best(void **state) {
    (void)state;
    thaw_job job = {.monitor = text_accuracy, .monitor_mode = text_auto};
    thaw_job_stage s = {.epochs = 9};
    const double values[] = {.5, .4, .5, .6, NAN, .7};
    const bool improved[] = {true, false, false, true, false, true};
    thaw_decisions d;
    thaw_decisions_init(&d);
    for (int epoch = 0; epoch < 6; epoch++) {
        thaw_values v = one("val_accuracy", values[epoch]);
        assert_int_equal(thaw_decide(&d, &job, &s, epoch, &v, 0.1).improved, improved[epoch]);
    }
    assert_near(d.best, 0.7, 0.0);
}

/* Without validation data val_loss means loss, which is said once. */
static void test_fallback(void **state) {
    (void)state;
    thaw_job job = {.monitor = text_val, .monitor_mode = text_auto};
    thaw_job_stage s = stage_stopping(1);
    s.early_stopping.monitor = text_val;
    thaw_decisions d;
    thaw_decisions_init(&d);
    catch_warnings();
    thaw_values v = one("loss", 1.0);
    assert_false(thaw_decide(&d, &job, &s, 0, &v, 0.1).stop);
    thaw_verdict verdict = thaw_decide(&d, &job, &s, 1, &v, 0.1);
    assert_true(verdict.stop);
    assert_false(verdict.improved);
    assert_int_equal(n_caught, 1);
    assert_says(caught, "val_loss");
    v = one("accuracy", 1.0); /* neither: every epoch is kept, nothing stops */
    verdict = thaw_decide(&d, &job, &s, 2, &v, 0.1);
    assert_true(verdict.improved && !verdict.stop);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_early_stopping), cmocka_unit_test(test_plateau),
                                       cmocka_unit_test(test_best), cmocka_unit_test(test_fallback)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
