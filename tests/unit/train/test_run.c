/* Whole runs in one process: against Keras, stopped and resumed with equal bits, finished, changed, damaged, and with every
 * request for memory and every file operation failing once. */
#include "train_case.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "job/job.h"
#include "thaw/train.h"

#define CASES THAW_SOURCE_DIR "/tests/parity/training/"

static thaw_comm *comm;
static volatile sig_atomic_t stop_flag;
static double end_time; /* of the allocation; 0: none */

/* The job of a parity case with its output in `folder`, and changes as --set takes them. */
static thaw_job *job_of(const char *name, const char *folder, const char *const *set, int n_set) {
    const char *all[16];
    char output[256], path[512];
    void *text;
    size_t size;
    thaw_job *job;
    snprintf(output, sizeof output, "output=%s", folder);
    snprintf(path, sizeof path, CASES "%s/job.yaml", name);
    all[0] = output;
    for (int i = 0; i < n_set; i++)
        all[i + 1] = set[i];
    assert_ok(thaw_io_read(&text, &size, path, 0));
    assert_ok(thaw_job_parse(&job, path, text, all, n_set + 1));
    thaw_free(text);
    return job;
}

static thaw_status train(const thaw_job *job, const char *resume) {
    thaw_train_options options = {.resume = resume, .stop = &stop_flag, .end_time = end_time};
    return thaw_train(comm, job, &options);
}

/* Trains a case in `folder`. */
static thaw_status train_case(const char *name, const char *folder, const char *resume, const char *const *set, int n_set) {
    thaw_job *job = job_of(name, folder, set, n_set);
    thaw_status status = train(job, resume);
    thaw_job_free(job);
    return status;
}

/* Number of a column in the row of an epoch. */
static double cell(const char *text, int row, const char *column) {
    int at = -1, i = 0;
    for (const char *c = text; *c != '\n' && at < 0; c++) {
        size_t length = strcspn(c, ",\n");
        if (length == strlen(column) && strncmp(c, column, length) == 0)
            at = i;
        i++;
        c += length;
        if (*c == '\n')
            break;
    }
    assert_true(at >= 0);
    for (int r = 0; r <= row; r++)
        text = strchr(text, '\n') + 1;
    for (i = 0; i < at; i++)
        text += strcspn(text, ",\n") + 1;
    return strtod(text, NULL);
}

static int count(const char *text, const char *part) {
    int n = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        n++;
    return n;
}

/* Folders of a test: named by its first call, removed at its end. */
static char first[64], second[64];

static int make_folders(void **state) {
    (void)state;
    snprintf(first, sizeof first, "%s", temporary_folder());
    snprintf(second, sizeof second, "%s", temporary_folder());
    stop_flag = 0;
    end_time = 0.0;
    catch_warnings();
    return 0;
}

static int remove_folders(void **state) {
    (void)state;
    thaw_clock_set(NULL);
    thaw_memory_fail_after(-1);
    thaw_io_fail_after(-1, 0);
    remove_folder(first);
    remove_folder(second);
    return 0;
}

static void compare_keras(const char *name, const char *const *columns, int n_columns) {
    char path[256], folder[128];
    print_message("  %s\n", name);
    snprintf(folder, sizeof folder, "%s/%s", first, name);
    assert_ok(train_case(name, folder, "auto", NULL, 0));
    snprintf(path, sizeof path, "%s/history.csv", name);
    char *got = file_text(folder, "history.csv"), *want = file_text(CASES, path), *log = file_text(folder, "log.jsonl");
    int rows = count(want, "\n") - 1;
    assert_int_equal(count(got, "\n"), rows + 1);
    for (int row = 0; row < rows; row++)
        for (int c = 0; c < n_columns; c++) {
            double expected = cell(want, row, columns[c]);
            assert_near(cell(got, row, columns[c]), expected, 1e-4 * fabs(expected));
        }
    assert_int_equal(count(log, "\"event\":\"epoch\""), rows);
    assert_int_equal(count(log, "\"event\":\"start\""), 1);
    assert_int_equal(count(log, "{\"event\":\"end\",\"status\":0,"), 1);
    assert_true(count(log, "\"event\":\"verify\"") > rows);
    assert_int_equal(count(log, "\"replicas_equal\":true"), count(log, "\"event\":\"verify\""));
    thaw_free(log);
    thaw_free(got);
    thaw_free(want);
}

static void test_keras(void **state) {
    (void)state;
    static const char *const cases[] = {"vgg_sgd",         "vgg_adaptive",    "residual_batch",    "residual_moving",
                                        "branching_batch", "branching_moving", "nested_sequential", "nested_functional"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        compare_keras(cases[i], (const char *const[]){"loss", "accuracy", "val_loss", "val_accuracy"}, 4);
    compare_keras("regression", (const char *const[]){"loss", "mae", "mse", "val_loss", "val_mae", "val_mse"}, 6);
}

static void assert_same_file(const char *name) {
    char a[256], b[256];
    void *x, *y;
    size_t n, m;
    snprintf(a, sizeof a, "%s/%s", first, name);
    snprintf(b, sizeof b, "%s/%s", second, name);
    assert_ok(thaw_io_read(&x, &n, a, 0));
    assert_ok(thaw_io_read(&y, &m, b, 0));
    if (n != m || memcmp(x, y, n) != 0)
        fail_msg("%s and %s differ", a, b);
    thaw_free(x);
    thaw_free(y);
}

static void assert_same_run(void) {
    assert_same_file("model.h5");
    assert_same_file("best.h5");
    assert_same_file("history.csv");
}

static void assert_no_litter(const char *folder) {
    char command[256];
    snprintf(command, sizeof command, "test -z \"$(test -d '%s' && find '%s' -name '.*' -o -name '*.tmp*')\"", folder, folder);
    assert_int_equal(system(command), 0);
}

/* A clock that stops the run at its n-th reading, which may be anywhere in a step. */
static long readings, stop_at;
static double counting_clock(void) {
    if (++readings == stop_at)
        stop_flag = 1;
    return (double)readings;
}

/* Optimizers with state, batch statistics, three stages; rates that fall; a stage that ends early and goes back. */
static const char *const busy[] = {
    "data.shuffle=true",
    "stages.0.epochs=4",
    "stages.1.epochs=3",
    "stages.0.early_stopping={monitor: loss, mode: max, patience: 2, restore_best_weights: true}",
    "stages.1.reduce_lr_on_plateau={monitor: loss, mode: max, patience: 1, factor: 0.5}",
    "stages.2.optimizer={name: rmsprop, learning_rate: 0.0005, momentum: 0.5, keep_state: true}",
    "stages.1.optimizer={name: rmsprop, learning_rate: 0.001, momentum: 0.9}",
    "training.class_weight={0: 2, 1: 0.5}",
};
enum { N_BUSY = sizeof busy / sizeof *busy };

static void test_stop_and_resume(void **state) {
    (void)state;
    assert_ok(train_case("vgg_adaptive", first, "auto", busy, N_BUSY));
    char *history = file_text(first, "history.csv");
    assert_int_equal(count(history, "stage0"), 3); /* stopped after its third epoch */
    assert_int_equal(count(history, ",0.0005,"), 3); /* stage1 lowered its rate */
    thaw_free(history);
    static const long budgets[] = {60, 45, 97, 31, 150};
    for (size_t b = 0; b < sizeof budgets / sizeof *budgets; b++) {
        int stops = 0;
        thaw_status status;
        thaw_clock_set(counting_clock);
        do {
            stop_flag = 0;
            readings = 0;
            stop_at = budgets[b];
            status = train_case("vgg_adaptive", second, "auto", busy, N_BUSY);
            if (status != THAW_OK)
                assert_int_equal(status, THAW_STOPPED);
            stops += status == THAW_STOPPED;
            assert_true(stops < 100);
        } while (status != THAW_OK);
        thaw_clock_set(NULL);
        stop_flag = 0;
        print_message("  %d stops\n", stops);
        assert_true(stops > 1);
        assert_same_run();
        char *log = file_text(second, "log.jsonl");
        assert_int_equal(count(log, "\"event\":\"epoch\""), 8);
        assert_int_equal(count(log, "\"event\":\"stage\""), 3);
        thaw_free(log);
        remove_folder(second);
    }
    assert_int_equal(mkdir(second, 0777), 0);
}

/* Allocations of 150 and 200 readings of the clock, one behind the other; of the 20 that shall be left, some go by between the
 * checkpoint and the return. */
static void test_end_of_allocation(void **state) {
    (void)state;
    const char *set[N_BUSY + 2];
    memcpy(set, busy, sizeof busy);
    set[N_BUSY] = "stages.0.optimizer={name: sgd, learning_rate: 0.01, momentum: 0}"; /* no state but its step */
    set[N_BUSY + 1] = "checkpoint.before_end=20";
    assert_ok(train_case("vgg_adaptive", first, "auto", set, N_BUSY + 1));
    static const long budgets[] = {150, 200};
    for (size_t b = 0; b < sizeof budgets / sizeof *budgets; b++) {
        int stops = 0;
        thaw_status status;
        stop_at = -1;
        thaw_clock_set(counting_clock);
        do {
            readings = 0;
            end_time = thaw_clock_unix() + (double)budgets[b];
            status = train_case("vgg_adaptive", second, "auto", set, N_BUSY + 2);
            if (status == THAW_OK)
                break;
            assert_int_equal(status, THAW_STOPPED);
            assert_says(thaw_message(), "before the end of the allocation");
            if (readings > budgets[b] || readings < budgets[b] / 3)
                fail_msg("an allocation of %ld was left after %ld", budgets[b], readings);
        } while (++stops < 100);
        thaw_clock_set(NULL);
        print_message("  %d stops\n", stops);
        assert_true(status == THAW_OK && stops > 1);
        assert_same_run();
        remove_folder(second);
    }
    assert_int_equal(mkdir(second, 0777), 0);
}

/* No stop by a time that is not known, over long ago, or not wanted; one at once, with a warning, where it is too near. */
static void test_allocations_without_end(void **state) {
    (void)state;
    const char *set[] = {"stages.0.epochs=1", "stages.1.epochs=1", "stages.2.epochs=1", "checkpoint.before_end=0"};
    end_time = 1.0;
    assert_ok(train_case("vgg_adaptive", first, "never", set, 3));
    assert_says(caught, "the allocation ended");
    end_time = thaw_clock_unix() + 2.0;
    assert_ok(train_case("vgg_adaptive", first, "never", set, 4));
    assert_int_equal(train_case("vgg_adaptive", first, "never", set, 3), THAW_STOPPED);
    assert_says(caught, "ask for more time");
}

/* Checkpoints by time lie inside epochs; the newest one is damaged, then all of them. */
static void test_damaged_checkpoint(void **state) {
    (void)state;
    const char *set[N_BUSY + 2];
    memcpy(set, busy, sizeof busy);
    set[N_BUSY] = "checkpoint={every_epochs: 0, every_minutes: 0.3, keep: 3}";
    assert_ok(train_case("vgg_adaptive", first, "auto", busy, N_BUSY));
    thaw_clock_set(counting_clock);
    readings = 0;
    stop_at = 190;
    assert_int_equal(train_case("vgg_adaptive", second, "auto", set, N_BUSY + 1), THAW_STOPPED);
    char folder[128], path[256];
    snprintf(path, sizeof path, "%s/.best.h5.tmp.123", second); /* of a process that was killed while it wrote */
    assert_ok(thaw_io_append(path, "half", 4));
    snprintf(path, sizeof path, "%s/checkpoints/.step-000000000099-000000001.ckpt.tmp.7", second);
    assert_ok(thaw_io_append(path, "half", 4));
    char **names;
    int n;
    snprintf(folder, sizeof folder, "%s/checkpoints", second);
    assert_ok(thaw_io_list(&names, &n, folder));
    assert_int_equal(n, 4); /* the half-written one sorts first */
    void *bytes;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, names[3]);
    assert_ok(thaw_io_read(&bytes, &size, path, 0));
    ((char *)bytes)[size / 2] ^= 1;
    assert_ok(thaw_io_write_atomic(path, bytes, size));
    stop_flag = 0;
    assert_ok(train_case("vgg_adaptive", second, "auto", set, N_BUSY + 1));
    assert_says(caught, "is damaged, trying the one before");
    assert_same_run();
    assert_no_litter(second);

    remove_folder(folder);
    assert_ok(thaw_io_mkdirs(folder));
    assert_ok(thaw_io_write_atomic(path, "nonsense", 8));
    assert_int_equal(train_case("vgg_adaptive", second, "auto", set, N_BUSY + 1), THAW_DATA);
    assert_says(thaw_message(), "every checkpoint");
    stop_flag = 0;
    assert_ok(train_case("vgg_adaptive", second, "never", set, N_BUSY + 1));
    assert_same_run();
    snprintf(path, sizeof path, "%s.1", second);
    assert_true(thaw_io_is_dir(path));
    remove_folder(path);
    thaw_free(bytes);
    for (int i = 0; i < n; i++)
        thaw_free(names[i]);
    thaw_free(names);
}

/* Order and draws are counted over all stages: two stages of one epoch are one stage of two. Going back to the first epoch is
 * as if the others had not been. */
static void test_stages_are_epochs(void **state) {
    (void)state;
    static const char stages[] = "stages=[{name: a, freeze: 'before:block2_conv1', epochs: %d, optimizer: {name: sgd}%s}%s]";
    static const struct {
        int epochs;
        const char *more, *next;
    } runs[] = {{2, "", ""},
                {1, "", ", {name: b, freeze: keep, epochs: 1, optimizer: {name: sgd}}"},
                {1, "", ""},
                {4, ", early_stopping: {monitor: loss, min_delta: 1, patience: 2, restore_best_weights: true}", ""}};
    void *models[4];
    size_t sizes[4];
    for (int i = 0; i < 4; i++) {
        char text[512], folder[128], path[160];
        snprintf(text, sizeof text, stages, runs[i].epochs, runs[i].more, runs[i].next);
        const char *set[] = {text, "data.shuffle=true", "data.augment={horizontal_flip: true}"};
        snprintf(folder, sizeof folder, "%s/%d", first, i);
        assert_ok(train_case("vgg_sgd", folder, "auto", set, 3));
        snprintf(path, sizeof path, "%s/model.h5", folder);
        assert_ok(thaw_io_read(&models[i], &sizes[i], path, 0));
    }
    for (int i = 0; i < 4; i += 2) {
        assert_int_equal(sizes[i], sizes[i + 1]);
        if (memcmp(models[i], models[i + 1], sizes[i]) != 0)
            fail_msg("runs %d and %d differ", i, i + 1);
    }
    assert_int_not_equal(memcmp(models[0], models[2], sizes[0]), 0);
    for (int i = 0; i < 4; i++)
        thaw_free(models[i]);
}

/* Steps ask for no memory: eight times as many steps, as many requests; with images and with the cache. */
static void test_steps_allocate_nothing(void **state) {
    (void)state;
    for (int cached = 0; cached < 2; cached++) {
        int64_t requests[2];
        for (int i = 0; i < 2; i++) {
            const char *set[] = {i ? "training.batch_size=1" : "training.batch_size=8", "training.validation_batch_size=13",
                                 cached ? "cache=memory" : "cache=off", "data.prefetch=1"};
            char folder[128];
            snprintf(folder, sizeof folder, "%s/%d-%d", first, cached, i);
            uint64_t before = thaw_memory_requests();
            assert_ok(train_case("regression", folder, "auto", set, 4));
            requests[i] = (int64_t)(thaw_memory_requests() - before);
        }
        assert_int_equal(requests[0], requests[1]);
    }
}

/* The same bits with and without the cache, in memory and in a file, computed and found; stopped while it is filled. */
static void test_cache(void **state) {
    (void)state;
    static const char *const cases[] = {"vgg_adaptive", "nested_functional", "branching_moving", "regression"};
    char file[96];
    snprintf(file, sizeof file, "cache={mode: file, dir: %s/rows}", first);
    const char *const modes[] = {"cache=memory", "cache=auto", file, file};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const char *off = "cache=off";
        assert_ok(train_case(cases[c], first, "never", &off, 1));
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
            assert_ok(train_case(cases[c], second, "never", &modes[m], 1));
            assert_same_run();
            char *log = file_text(second, "log.jsonl");
            assert_true(m == 1 || count(log, m < 2 ? "\"mode\":\"memory\"" : "\"mode\":\"file\"") > 2);
            if (m != 1 && m != 3)
                assert_true(count(log, "\"computed\":0") < count(log, "\"computed\":"));
            if (m == 3)
                assert_int_equal(count(log, "\"computed\":0"), count(log, "\"computed\":"));
            thaw_free(log);
        }
        print_message("  %s\n", cases[c]);
        remove_folder(first);
        assert_int_equal(mkdir(first, 0777), 0);
    }
}

/* With a learning rate of 0: class weights reach the training loss alone, a penalty reaches both losses equally. */
static void test_loss_of_an_epoch(void **state) {
    (void)state;
    static const char head[] = "model.head=[{Flatten: {}}, {Dense: {units: 4, activation: softmax, name: top%s}}]";
    double loss[3], val[3];
    for (int i = 0; i < 3; i++) {
        char top[256], folder[128];
        snprintf(top, sizeof top, head, i == 2 ? ", kernel_regularizer: {l2: 0.1}" : "");
        const char *set[] = {top, "model.output=block1_pool", "stages.0.optimizer={name: sgd, learning_rate: 0}",
                             "stages.0.freeze=all", "stages.1.freeze=all", "stages.2.freeze=all",
                             i == 1 ? "training.class_weight={0: 3, 1: 3, 2: 3, 3: 3}" : "data.prefetch=2"};
        snprintf(folder, sizeof folder, "%s/%d", first, i);
        assert_ok(train_case("vgg_adaptive", folder, "auto", set, 7));
        char *history = file_text(folder, "history.csv");
        loss[i] = cell(history, 0, "loss");
        val[i] = cell(history, 0, "val_loss");
        thaw_free(history);
    }
    assert_near(loss[1], 3 * loss[0], 1e-7);
    assert_near(val[1], val[0], 1e-9);
    assert_true(loss[2] - loss[0] > 0.01);
    assert_near(loss[2] - loss[0], val[2] - val[0], 1e-7);
}

static void test_finished(void **state) {
    (void)state;
    assert_ok(train_case("regression", first, "auto", NULL, 0));
    assert_ok(train_case("regression", second, "auto", NULL, 0));
    char *before = file_text(second, "log.jsonl");
    char path[128];
    snprintf(path, sizeof path, "%s/model.h5", second);
    assert_ok(thaw_io_remove(path)); /* comes again */
    assert_ok(train_case("regression", second, "auto", NULL, 0));
    assert_same_run();
    char *after = file_text(second, "log.jsonl");
    assert_string_equal(before, after);
    const char *changed[] = {"training.batch_size=7"};
    assert_int_equal(train_case("regression", second, "auto", changed, 1), THAW_MISMATCH);
    assert_says(thaw_message(), "batch_size");
    thaw_free(after);
    after = file_text(second, "log.jsonl");
    assert_string_equal(before, after);
    const char *threads[] = {"data.threads=3", "checkpoint.keep=5"}; /* may change */
    assert_ok(train_case("regression", second, "auto", threads, 2));
    assert_same_run();
    thaw_free(before);
    thaw_free(after);
}

static void test_diverged(void **state) {
    (void)state;
    const char *wild[] = {"stages.0.optimizer={name: sgd, learning_rate: 1000}", "stages.1.epochs=1"};
    assert_int_equal(train_case("regression", first, "auto", wild, 2), THAW_DIVERGED);
    char *log = file_text(first, "log.jsonl");
    assert_says(log, "{\"event\":\"end\",\"status\":77,");
    thaw_free(log);
    char path[128];
    snprintf(path, sizeof path, "%s/model.h5", first);
    assert_false(thaw_io_exists(path));
}

/* What is wrong with a job or its data is found before anything is written. */
static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *set;
        thaw_status status;
        const char *words;
    } cases[] = {
        {"stages.1.freeze=before:conv9", THAW_USAGE, "conv9"},
        {"stages.0.freeze=all", THAW_USAGE, "[:-1]"},
        {"data.train={x: \"" CASES "data.h5:/none\", y: \"" CASES "data.h5:/values_train\"}", THAW_NO_INPUT, "/none"},
        {"data.train={x: \"" CASES "data.h5:/x_train\", y: \"" CASES "data.h5:/values_val\"}", THAW_DATA, "37"},
        {"data.train={x: \"" CASES "data.h5:/values_train\", y: \"" CASES "data.h5:/values_train\"}", THAW_DATA, "shape"},
        {"data.train={x: \"" CASES "data.h5:/x_train\", y: \"" CASES "data.h5:/kind_train\"}", THAW_DATA, "values a sample"},
        {"model.base=" CASES "none.h5", THAW_NO_INPUT, "none.h5"},
        {"model.head=[{Dense: {units: 0}}]", THAW_USAGE, "units"},
    };
    char folder[128];
    snprintf(folder, sizeof folder, "%s/run", first);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_status status = train_case("regression", folder, "auto", &cases[i].set, 1);
        print_message("  %s\n", thaw_message());
        assert_int_equal(status, cases[i].status);
        assert_says(thaw_message(), cases[i].words);
        assert_false(thaw_io_exists(folder));
    }
}

static const char *const brief[] = {"cache=memory", "stages.0.epochs=1", "stages.1.epochs=1", "training.batch_size=20",
                                    "stages.1.early_stopping={monitor: loss, patience: 3, restore_best_weights: true}"};
enum { N_BRIEF = sizeof brief / sizeof *brief };

/* The n-th file operation fails: a status that says so, no litter, no leak, and the run can be taken up again. */
static void test_failing_files(void **state) {
    (void)state;
    assert_ok(train_case("regression", first, "auto", brief, N_BRIEF));
    size_t live = thaw_memory_live();
    int failures = 0, harmless = 0; /* in a row: the cache goes without what it cannot have */
    for (int n = 1; n < 2000 && harmless < 60; n += n < 60 ? 1 : 5) {
        thaw_job *job = job_of("regression", second, brief, N_BRIEF);
        thaw_io_fail_after(n, n % 2 ? ENOSPC : EIO);
        thaw_status status = train(job, "auto");
        thaw_io_fail_after(-1, 0);
        thaw_job_free(job);
        if (thaw_memory_live() != live)
            fail_msg("operation %d: %zd bytes leak (status %d: %s)", n, (ssize_t)(thaw_memory_live() - live), status,
                     thaw_message());
        assert_no_litter(second);
        harmless = status == THAW_OK ? harmless + 1 : 0;
        if (status != THAW_OK) {
            failures++;
            if (status != THAW_IO && status != THAW_NO_INPUT && status != THAW_CANT_CREATE && status != THAW_DATA)
                fail_msg("operation %d: status %d: %s", n, status, thaw_message());
            assert_true(*thaw_message());
        }
        thaw_status again = train_case("regression", second, "auto", brief, N_BRIEF);
        if (again != THAW_OK)
            fail_msg("after operation %d: status %d: %s", n, again, thaw_message());
        assert_same_run();
        remove_folder(second);
    }
    print_message("  %d operations failed\n", failures);
    assert_true(failures > 25);
    assert_int_equal(mkdir(second, 0777), 0);
}

/* Every request for memory fails once. */
static void test_failing_memory(void **state) {
    (void)state;
    assert_ok(train_case("regression", first, "auto", brief, N_BRIEF));
    size_t live = thaw_memory_live();
    uint64_t before = thaw_memory_requests();
    assert_ok(train_case("regression", first, "never", brief, N_BRIEF));
    int64_t requests = (int64_t)(thaw_memory_requests() - before);
    print_message("  %lld requests\n", (long long)requests);
    for (int64_t n = 1; n <= requests; n++) {
        char folder[128];
        snprintf(folder, sizeof folder, "%s/run", second);
        thaw_job *job = job_of("regression", folder, brief, N_BRIEF);
        size_t with_job = thaw_memory_live();
        thaw_memory_fail_after(n);
        thaw_status status = train(job, "auto");
        thaw_memory_fail_after(-1);
        if (thaw_memory_live() != with_job)
            fail_msg("request %lld: %zd bytes leak (status %d: %s)", (long long)n, (ssize_t)(thaw_memory_live() - with_job),
                     status, thaw_message());
        bool reader = status == THAW_DATA && strstr(thaw_message(), "init.h5: "); /* HDF5 does not tell why it gave up */
        if (status != THAW_OK && status != THAW_RESOURCE && !reader)
            fail_msg("request %lld: status %d: %s", (long long)n, status, thaw_message());
        thaw_job_free(job);
        assert_int_equal(thaw_memory_live(), live);
        assert_no_litter(second);
        remove_folder(folder);
    }
    char aside[128];
    snprintf(aside, sizeof aside, "%s.1", first);
    remove_folder(aside);
}

int main(void) {
    int argc = 0;
    char **argv = NULL;
    if (thaw_comm_init(&comm, &argc, &argv) != THAW_OK)
        return 1;
#define RUN(test) cmocka_unit_test_setup_teardown(test, make_folders, remove_folders)
    const struct CMUnitTest tests[] = {RUN(test_keras),    RUN(test_stop_and_resume), RUN(test_damaged_checkpoint),
                                       RUN(test_end_of_allocation), RUN(test_allocations_without_end),
                                       RUN(test_finished), RUN(test_diverged),        RUN(test_refused),
                                       RUN(test_stages_are_epochs), RUN(test_steps_allocate_nothing), RUN(test_cache),
                                       RUN(test_loss_of_an_epoch),
                                       RUN(test_failing_files), RUN(test_failing_memory)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    thaw_comm_finalize(comm);
    return failed;
}
