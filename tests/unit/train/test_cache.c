/* The boundary cache: its key, when it pays, and the store: rows that are there and right or not there at all. */
#include "train_case.h"

#include <errno.h>
#include <sys/stat.h>

#include "train/cache.h"

enum { ROWS = 20, PARTS = 2 };
static const size_t part_bytes[PARTS] = {24, 100};
static thaw_comm *comm;
static char folder[64];

static int set_up(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "%s", temporary_folder());
    catch_warnings();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    thaw_io_fail_after(-1, 0);
    thaw_memory_fail_after(-1);
    remove_folder(folder);
    return 0;
}

static thaw_store_shape shape_of(uint64_t key) { return (thaw_store_shape){key, ROWS, PARTS, part_bytes}; }

/* A block of three images; image 2 gets the values of a row. */
static char space[PARTS][3 * 100];
static char *const block[PARTS] = {space[0], space[1]};

static void fill_image(int64_t row) {
    for (int k = 0; k < PARTS; k++)
        for (size_t i = 0; i < part_bytes[k]; i++)
            space[k][2 * part_bytes[k] + i] = (char)(row * 7 + k * 31 + (int64_t)i);
}

static void put_rows(thaw_store *store, int64_t first, int64_t end) {
    for (int64_t row = first; row < end; row++) {
        fill_image(row);
        assert_ok(thaw_store_put(store, row, (const char *const *)block, 2));
    }
}

static void expect_rows(const thaw_store *store, int64_t first, int64_t end) {
    for (int64_t row = first; row < end; row++) {
        char before[PARTS][100];
        fill_image(row);
        for (int k = 0; k < PARTS; k++)
            memcpy(before[k], space[k] + 2 * part_bytes[k], part_bytes[k]);
        memset(space, 0, sizeof space);
        assert_ok(thaw_store_get(store, row, block, 2));
        for (int k = 0; k < PARTS; k++) {
            assert_memory_equal(before[k], space[k] + 2 * part_bytes[k], part_bytes[k]);
            assert_int_equal(space[k][0], 0); /* other images of the block stay */
        }
    }
}

static void settle(thaw_store *store, int64_t first, int64_t end) {
    int64_t rows[ROWS];
    const int64_t bounds[] = {0, end - first};
    for (int64_t i = first; i < end; i++)
        rows[i - first] = i;
    assert_ok(thaw_store_settle(store, rows, bounds));
}

static thaw_store *open_store(const char *where, uint64_t key, int64_t missing) {
    thaw_store *store;
    thaw_store_shape shape = shape_of(key);
    assert_ok(thaw_store_open(&store, comm, where, &shape));
    assert_int_equal(thaw_store_n_missing(store), missing);
    return store;
}

/* A file with all rows. */
static char *full_file(uint64_t key) {
    thaw_store *store = open_store(folder, key, ROWS);
    put_rows(store, 0, ROWS);
    settle(store, 0, ROWS);
    char *path = thaw_strdup(thaw_store_name(store));
    thaw_store_close(store);
    return path;
}

static void poke(const char *path, long at, char byte) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int old = fgetc(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    assert_int_equal(fputc(old ^ byte, file) == EOF, 0);
    assert_int_equal(fclose(file), 0);
}

static void test_memory(void **state) {
    (void)state;
    thaw_store *store = open_store(NULL, 1, ROWS);
    assert_null(thaw_store_name(store));
    put_rows(store, 0, ROWS);
    assert_int_equal(thaw_store_n_missing(store), ROWS); /* until all ranks know */
    settle(store, 0, ROWS);
    assert_int_equal(thaw_store_n_missing(store), 0);
    expect_rows(store, 0, ROWS);
    thaw_store_forget(store);
    assert_int_equal(thaw_store_n_missing(store), ROWS);
    thaw_store_close(store);
    thaw_store_close(NULL);
}

static void test_file_again(void **state) {
    (void)state;
    char *path = full_file(7);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    uint64_t bytes;
    thaw_store_shape shape = shape_of(7);
    assert_true(thaw_store_bytes(&shape, &bytes));
    assert_int_equal(info.st_size, bytes);
    thaw_store *store = open_store(folder, 7, 0);
    expect_rows(store, 0, ROWS);
    thaw_store_close(store);
    thaw_free(path);
}

/* What a killed run has written counts; the rest is missing. */
static void test_half(void **state) {
    (void)state;
    thaw_store *store = open_store(folder, 7, ROWS);
    put_rows(store, 3, 9);
    thaw_store_close(store);
    store = open_store(folder, 7, ROWS - 6);
    for (int i = 0; i < ROWS; i++)
        assert_int_equal(thaw_store_missing(store)[i], i < 3 || i >= 9);
    expect_rows(store, 3, 9);
    put_rows(store, 9, ROWS);
    settle(store, 9, ROWS);
    assert_int_equal(thaw_store_n_missing(store), 3);
    thaw_store_close(store);
    thaw_store_close(open_store(folder, 7, 3));
}

static void test_other_key(void **state) {
    (void)state;
    char *path = full_file(7), *other = thaw_store_path(folder, 8, thaw_comm_host(comm));
    assert_int_equal(rename(path, other), 0); /* the name alone says nothing */
    thaw_store_close(open_store(folder, 8, ROWS));
    thaw_store_close(open_store(folder, 8, ROWS)); /* and nothing of the old rows is left */
    thaw_free(path);
    thaw_free(other);
}

static void test_damage(void **state) {
    (void)state;
    static const struct {
        long at;
        int missing;
    } cases[] = {{0, ROWS}, {9, ROWS}, {17, ROWS}, {33, ROWS}, /* head: magic, key, rows, check */
                 {4096, 1}, {4096 + 8 * ROWS - 1, 1},           /* checksums */
                 {8192, 1}, {-1, 1}, {8192 + 124 * 4 + 30, 1}}; /* rows */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = full_file(7);
        poke(path, cases[i].at, 0x10);
        thaw_store_close(open_store(folder, 7, cases[i].missing));
        assert_ok(thaw_io_remove(path));
        thaw_free(path);
    }
    static const struct {
        long size;
        int missing;
    } cuts[] = {{0, ROWS}, {40, ROWS}, {4095, ROWS}, {4096, ROWS}, {4096 + 80, ROWS}, {8192 + 124 * 5 + 1, ROWS - 5}};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        char *path = full_file(7);
        assert_int_equal(truncate(path, cuts[i].size), 0);
        thaw_store_close(open_store(folder, 7, cuts[i].missing));
        assert_ok(thaw_io_remove(path));
        thaw_free(path);
    }
}

/* A row that changes while it is in use is an error, never a value. */
static void test_changed_in_use(void **state) {
    (void)state;
    char *path = full_file(7);
    thaw_store *store = open_store(folder, 7, 0);
    poke(path, 8192 + 124 * 4 + 30, 1);
    expect_rows(store, 0, 4);
    assert_int_equal(thaw_store_get(store, 4, block, 0), THAW_IO);
    assert_says(thaw_message(), "row 4 of the cache is not what was written");
    assert_int_equal(truncate(path, 8192 + 124 * 10), 0);
    expect_rows(store, 5, 10);
    assert_int_equal(thaw_store_get(store, 10, block, 0), THAW_IO);
    assert_says(thaw_message(), "it was cut while it was in use");
    thaw_store_close(store);
    thaw_free(path);
}

/* Not through a link, not into what is no file. */
static void test_not_ours(void **state) {
    (void)state;
    char *path = thaw_store_path(folder, 7, thaw_comm_host(comm)), *victim = thaw_path_join(folder, "victim");
    thaw_store *store;
    thaw_store_shape shape = shape_of(7);
    assert_ok(thaw_io_write_atomic(victim, "precious", 8));
    assert_int_equal(symlink(victim, path), 0);
    assert_int_equal(thaw_store_open(&store, comm, folder, &shape), THAW_CANT_CREATE);
    assert_null(store);
    char *text = file_text(folder, "victim");
    assert_string_equal(text, "precious");
    thaw_free(text);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(thaw_store_open(&store, comm, folder, &shape), THAW_CANT_CREATE);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(thaw_store_open(&store, comm, victim, &shape), THAW_CANT_CREATE); /* a folder that is a file */
    thaw_free(path);
    thaw_free(victim);
}

/* Sixteen files stay, those used last; files of others and of other hosts are not touched. */
static void test_old_files(void **state) {
    (void)state;
    char *foreign = thaw_path_join(folder, "thaw-cache-0000000000000001.elsewhere"), *note = thaw_path_join(folder, "thaw-cache");
    assert_ok(thaw_io_write_atomic(foreign, "x", 1));
    assert_ok(thaw_io_write_atomic(note, "x", 1));
    char *paths[20];
    for (int i = 0; i < 20; i++) {
        if (i == 16)
            thaw_store_close(open_store(folder, 100, 0)); /* used again */
        paths[i] = full_file(100 + (uint64_t)i);
        usleep(5000); /* file systems tell times apart by milliseconds */
    }
    for (int i = 0; i < 20; i++) {
        assert_int_equal(thaw_io_exists(paths[i]), i == 0 || i >= 5);
        thaw_free(paths[i]);
    }
    assert_true(thaw_io_exists(foreign) && thaw_io_exists(note));
    thaw_free(foreign);
    thaw_free(note);
}

/* Opening, writing and reading with the n-th operation or request failing: a status, no leak, and no wrong row. */
static void one_life(bool *failed, const char *where) {
    thaw_store *store;
    thaw_store_shape shape = shape_of(7);
    int64_t rows[ROWS];
    const int64_t bounds[] = {0, ROWS};
    *failed = thaw_store_open(&store, comm, where, &shape) != THAW_OK;
    if (*failed) {
        assert_null(store);
        return;
    }
    for (int64_t row = 0; row < ROWS && !*failed; row++) {
        rows[row] = row;
        fill_image(row);
        *failed = thaw_store_put(store, row, (const char *const *)block, 2) != THAW_OK;
    }
    if (!*failed)
        *failed = thaw_store_settle(store, rows, bounds) != THAW_OK;
    for (int64_t row = 0; row < ROWS && !*failed; row++) {
        memset(space, 0, sizeof space);
        *failed = thaw_store_get(store, row, block, 2) != THAW_OK;
        char got[24];
        memcpy(got, space[0] + 48, sizeof got);
        fill_image(row);
        if (!*failed)
            assert_memory_equal(got, space[0] + 48, sizeof got);
    }
    thaw_store_close(store);
}

static void test_failures(void **state) {
    (void)state;
    for (int memory = 0; memory < 2; memory++)
        for (int where = 0; where < 2; where++) {
            int failures = 0, n = 1;
            size_t live = thaw_memory_live();
            for (bool failed = true; n < 1000; n++) {
                if (memory)
                    thaw_memory_fail_after(n);
                else
                    thaw_io_fail_after(n, n % 2 ? ENOSPC : EIO);
                one_life(&failed, where ? folder : NULL);
                thaw_memory_fail_after(-1);
                thaw_io_fail_after(-1, 0);
                assert_int_equal(thaw_memory_live(), live);
                failures += failed;
                one_life(&failed, where ? folder : NULL); /* whatever is left behind does no harm */
                assert_false(failed);
                assert_int_equal(thaw_memory_live(), live);
                if (where && n % 3 == 0) {
                    remove_folder(folder);
                    assert_ok(thaw_io_mkdirs(folder));
                }
                if (n > failures + 90)
                    break;
            }
            print_message("  %s, %s: %d failures\n", memory ? "memory" : "files", where ? "file" : "in memory", failures);
            assert_true(failures > 3);
        }
}

static void test_too_large(void **state) {
    (void)state;
    uint64_t bytes;
    const size_t huge[] = {(size_t)1 << 62, (size_t)1 << 62};
    thaw_store_shape shape = {1, 16, 2, huge};
    assert_false(thaw_store_bytes(&shape, &bytes));
    shape = (thaw_store_shape){1, INT64_MAX, 1, part_bytes};
    assert_false(thaw_store_bytes(&shape, &bytes));
    shape = (thaw_store_shape){1, -1, 1, part_bytes};
    assert_false(thaw_store_bytes(&shape, &bytes));
}

static void test_key(void **state) {
    (void)state;
    uint64_t content[3] = {11, 12, 13}, swapped[3] = {12, 11, 13}, altered[3] = {11, 12, 14};
    int64_t rows[3] = {0, 1, 2}, other_rows[3] = {0, 1, 3};
    thaw_dataset d = {.n = 3, .content = content}, arrays = {.arrays = true, .n = 3, .rows = rows, .x_file = "a.h5"};
    const thaw_cache first = {.dataset = &d, .options = {.preprocess = THAW_PREPROCESS_TF, .augment = true, .seed = 3},
                              .variants = 2, .row_bytes = 400};
    thaw_cache c = first;
    const uint64_t key = thaw_cache_key(5, "fast", &c);
#define KEY_OF(change) (c = first, change, thaw_cache_key(5, "fast", &c))
    assert_true(key == thaw_cache_key(5, "fast", &c));
    assert_true(key != thaw_cache_key(6, "fast", &c));
    assert_true(key != thaw_cache_key(5, "reference", &c));
    assert_true(key != KEY_OF(c.options.preprocess = THAW_PREPROCESS_CAFFE));
    assert_true(key != KEY_OF(c.options.scaled = true));
    assert_true(key != KEY_OF(c.variants = 1));
    assert_true(key != KEY_OF(c.row_bytes = 800));
    assert_true(key != KEY_OF(c.half = true));
    assert_true(key == KEY_OF(c.options.seed = 4)); /* both forms are there, whichever an epoch draws */
    assert_true(key != KEY_OF(c.options.draws = 2)); /* two draws are not the two forms */
    const uint64_t drawn = thaw_cache_key(5, "fast", &c);
    c.options.seed = 4;
    assert_true(drawn != thaw_cache_key(5, "fast", &c));
    c = first;
    d.content = swapped;
    assert_true(key != thaw_cache_key(5, "fast", &c));
    d.content = altered;
    assert_true(key != thaw_cache_key(5, "fast", &c));
    d.content = content;
    d.n = 2;
    assert_true(key != thaw_cache_key(5, "fast", &c));
    d.n = 3;
    d.root = "elsewhere"; /* where files lie and what they are labelled does not count */
    d.labels = (int32_t[]){1, 0, 1};
    assert_true(key == thaw_cache_key(5, "fast", &c));
    c.dataset = &arrays;
    const uint64_t of_arrays = thaw_cache_key(5, "fast", &c);
    arrays.rows = other_rows;
    assert_true(of_arrays != thaw_cache_key(5, "fast", &c));
    arrays.rows = rows;
    arrays.x_file = "b.h5";
    assert_true(of_arrays != thaw_cache_key(5, "fast", &c));
#undef KEY_OF
}

static void test_pays(void **state) {
    (void)state;
    thaw_cache_cost c = {.whole = 100.0, .cached = 1.0, .fill = 99.0, .epochs = 1, .variants = 1};
    assert_false(thaw_cache_pays(&c)); /* one epoch computes everything once anyway */
    c.epochs = 2;
    assert_true(thaw_cache_pays(&c));
    c.variants = 2; /* both forms of an image in two epochs */
    assert_false(thaw_cache_pays(&c));
    c.epochs = 3;
    assert_true(thaw_cache_pays(&c));
    c = (thaw_cache_cost){.whole = 100.0, .cached = 99.0, .fill = 1.0, .epochs = 1000, .variants = 1};
    assert_false(thaw_cache_pays(&c)); /* hardly anything is saved */
    c = (thaw_cache_cost){.whole = 100.0, .cached = 150.0, .fill = 1.0, .epochs = 1000, .variants = 1};
    assert_false(thaw_cache_pays(&c)); /* a boundary that is larger than its work */
    c = (thaw_cache_cost){.whole = 100.0, .cached = 50.0, .fill = 0.0, .epochs = 1, .variants = 2};
    assert_true(thaw_cache_pays(&c)); /* a file that is there */
}

int main(void) {
    int argc = 0;
    char **argv = NULL;
    if (thaw_comm_init(&comm, &argc, &argv) != THAW_OK)
        return 1;
#define RUN(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {RUN(test_memory),    RUN(test_file_again), RUN(test_half),      RUN(test_other_key),
                                       RUN(test_damage),    RUN(test_changed_in_use), RUN(test_not_ours), RUN(test_old_files),
                                       RUN(test_failures),  RUN(test_too_large),  RUN(test_key),       RUN(test_pays)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    thaw_comm_finalize(comm);
    return failed;
}
