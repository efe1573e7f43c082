/* Batches: contents that no number of threads changes, order, errors from threads, passes that end early, arrays. */
#include "data_case.h"

#include <hdf5.h>
#include <signal.h>
#include <time.h>

#include "base/random.h"

enum { H = 6, W = 7, ROW = H * W * 3, IMAGES = 23 };

static thaw_dataset *images;

static int set_up(void **state) {
    char name[64];
    if (make_folder(state) != 0)
        return -1;
    for (int i = 0; i < IMAGES; i++) {
        snprintf(name, sizeof name, "data/%c/%02d.png", 'a' + i % 2, i);
        put_png(name, 5 * i, i % 3 ? (uint32_t)(4 + i) : H, i % 3 ? (uint32_t)(30 - i) : W);
    }
    return (int)thaw_dataset_scan_folders(&images, in_folder("data"), NULL, 0);
}

static int tear_down(void **state) {
    thaw_dataset_free(images);
    return remove_folder(state);
}

static const thaw_loader_options plain = {
    .shape = {H, W, 3}, .preprocess = THAW_PREPROCESS_TF, .seed = 9, .threads = 1, .depth = 2, .max_batch = 8};

/* What the loader must give for one image, one step after the other. */
static void by_hand(float *x, const thaw_loader_options *o, int64_t sample, int64_t epoch, bool *flipped) {
    thaw_pixels pixels = {0};
    thaw_tap taps[H + W];
    char *path = thaw_path_join(images->root, images->paths[sample]);
    succeed(thaw_pixels_load(&pixels, path, NULL));
    thaw_resize(x, H, W, &pixels, taps);
    const thaw_draw draw = thaw_philox(o->seed, THAW_DRAW_AUGMENT, (uint32_t)epoch, (uint64_t)sample, 0);
    *flipped = o->augment && thaw_uniform(draw.word[0]) < 0.5f;
    if (*flipped)
        thaw_flip(x, H, W, 3);
    thaw_preprocess_apply(x, H * W, 3, o->preprocess);
    thaw_pixels_free(&pixels);
    thaw_free(path);
}

/* Batches of sizes 8, 0, 3, 8, 4 over a shuffled order. */
static const int64_t starts[] = {0, 8, 8, 11, 19, 23};

static void run_pass(thaw_loader *loader, const thaw_loader_options *o, int64_t epoch, int n_batches, bool check) {
    int64_t order[IMAGES], flips = 0;
    thaw_epoch_order(order, IMAGES, 1, epoch, true);
    succeed(thaw_loader_begin(loader, order, starts, 5, epoch));
    for (int b = 0; b < n_batches; b++) {
        thaw_batch batch;
        succeed(thaw_loader_next(loader, &batch));
        assert_int_equal(batch.n, starts[b + 1] - starts[b]);
        for (int64_t i = 0; i < batch.n && check; i++) {
            float x[ROW];
            bool flipped;
            const int64_t sample = order[starts[b] + i];
            by_hand(x, o, sample, epoch, &flipped);
            flips += flipped;
            assert_int_equal(batch.samples[i], sample);
            assert_memory_equal(batch.x + i * ROW, x, sizeof x);
            assert_true(batch.y[i] == (float)images->labels[sample]);
        }
    }
    if (check && o->augment)
        assert_in_range(flips, 3, IMAGES - 3);
}

static void test_contents(void **state) {
    (void)state;
    for (int threads = 1; threads <= 5; threads += 2)
        for (int depth = 1; depth <= 4; depth++)
            for (int augment = 0; augment < 2; augment++) {
                thaw_loader_options o = plain;
                thaw_loader *loader;
                o.threads = threads;
                o.depth = depth;
                o.augment = o.horizontal_flip = augment;
                o.preprocess = augment ? THAW_PREPROCESS_CAFFE : THAW_PREPROCESS_TORCH;
                succeed(thaw_loader_create(&loader, images, &o));
                for (int epoch = 0; epoch < 2; epoch++)
                    run_pass(loader, &o, epoch, 5, true);
                thaw_batch batch;
                expect(thaw_loader_next(loader, &batch), THAW_INTERNAL, "batch 5 of a pass of 5");
                thaw_loader_free(loader);
            }
}

/* The arrays of a pass may be freed while threads still look ahead; the next pass starts clean. */
static void test_aborted_passes(void **state) {
    (void)state;
    thaw_loader_options o = plain;
    thaw_loader *loader;
    o.threads = 3;
    o.depth = 3;
    succeed(thaw_loader_create(&loader, images, &o));
    for (int round = 0; round < 40; round++)
        run_pass(loader, &o, round, round % 5, false);
    run_pass(loader, &o, 99, 5, true);
    succeed(thaw_loader_begin(loader, (int64_t[]){1, 2}, (int64_t[]){0, 2}, 1, 0));
    thaw_loader_free(loader); /* in the middle of a pass */
    thaw_loader_free(NULL);
}

/* A pass that begins while a thread still decodes a large image of the one before: nothing of it shows in the new one. */
static void test_begin_waits(void **state) {
    (void)state;
    enum { SIDE = 1500, BYTES = 54 + SIDE * SIDE * 3 };
    uint8_t *bmp = malloc(BYTES);
    memset(bmp, 255, BYTES);
    memcpy(bmp, (uint8_t[54]){'B', 'M', [10] = 54, [14] = 40, [18] = SIDE & 255, SIDE >> 8, [22] = SIDE & 255, SIDE >> 8,
                              [26] = 1, [28] = 24}, 54);
    put("large/a/1.bmp", bmp, BYTES);
    free(bmp);
    put_png("large/a/2.png", 1, H, W);
    thaw_dataset *d;
    succeed(thaw_dataset_scan_folders(&d, in_folder("large"), NULL, 0));
    thaw_loader_options o = plain;
    thaw_loader *loader;
    thaw_batch batch;
    o.threads = 2;
    o.preprocess = THAW_PREPROCESS_NONE;
    succeed(thaw_loader_create(&loader, d, &o));
    for (int round = 0; round < 20; round++) {
        succeed(thaw_loader_begin(loader, (int64_t[]){0}, (int64_t[]){0, 1}, 1, 0));
        usleep((unsigned)round * 300);
        succeed(thaw_loader_begin(loader, (int64_t[]){1, 1}, (int64_t[]){0, 2}, 1, 0));
        succeed(thaw_loader_next(loader, &batch));
        usleep(20000);
        for (int i = 0; i < 2 * ROW; i++)
            assert_true(batch.x[i] == (float)(1 + i % 3 + (i / 3 % W == 0 && i % 3 == 0 ? 9 : 0)));
    }
    thaw_loader_free(loader);
    thaw_dataset_free(d);
}

/* A batch that is held besides the last one stays while others are decoded. */
static void test_held(void **state) {
    (void)state;
    enum { BATCHES = IMAGES / 2 };
    thaw_loader *loader;
    thaw_loader_options o = plain;
    thaw_batch batch[2] = {{0}};
    int64_t order[IMAGES], twos[BATCHES + 1];
    float before[2 * ROW];
    o.depth = 1;
    o.held = 2;
    thaw_epoch_order(order, IMAGES, 0, 0, false);
    for (int b = 0; b <= BATCHES; b++)
        twos[b] = 2 * b;
    succeed(thaw_loader_create(&loader, images, &o));
    succeed(thaw_loader_begin(loader, order, twos, BATCHES, 0));
    for (int b = 0; b < BATCHES; b++) {
        batch[0] = batch[1];
        if (b > 0)
            memcpy(before, batch[0].x, sizeof before);
        succeed(thaw_loader_next(loader, &batch[1]));
        nanosleep(&(struct timespec){0, 20000000}, NULL); /* for the next one */
        if (b > 0)
            assert_memory_equal(before, batch[0].x, sizeof before);
    }
    thaw_loader_free(loader);
}

static void test_no_images(void **state) {
    (void)state;
    thaw_loader *loader;
    thaw_loader_options o = plain;
    o.max_batch = 0; /* a rank that never gets one */
    succeed(thaw_loader_create(&loader, images, &o));
    const int64_t nothing[] = {0, 0, 0, 0};
    succeed(thaw_loader_begin(loader, NULL, nothing, 3, 0));
    for (int b = 0; b < 3; b++) {
        thaw_batch batch;
        succeed(thaw_loader_next(loader, &batch));
        assert_int_equal(batch.n, 0);
    }
    succeed(thaw_loader_begin(loader, NULL, nothing, 0, 0));
    expect(thaw_loader_begin(loader, (int64_t[]){1}, (int64_t[]){0, 1}, 1, 0), THAW_INTERNAL, "batch 0 has 1 samples");
    expect(thaw_loader_begin(loader, (int64_t[]){IMAGES}, (int64_t[]){0, 0}, 1, 0), THAW_OK, "");
    thaw_loader_free(loader);
}

/* The message comes from the thread that failed, for the right batch, the first image of it in order; later batches work. */
static void test_errors(void **state) {
    (void)state;
    thaw_dataset *d;
    char name[64];
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "bad/a/%02d.png", i);
        put_png(name, i, 5, 5);
    }
    put("bad/a/05.png", "text", 4);
    put("bad/a/07.png", "text", 4);
    succeed(thaw_dataset_scan_folders(&d, in_folder("bad"), NULL, 0));
    assert_int_equal(unlink(in_folder("bad/a/10.png")), 0);
    int64_t order[12];
    const int64_t fours[] = {0, 4, 8, 12};
    thaw_epoch_order(order, 12, 0, 0, false);
    for (int round = 0; round < 30; round++) {
        thaw_loader_options o = plain;
        thaw_loader *loader;
        thaw_batch batch;
        o.threads = 1 + round % 4;
        o.depth = 1 + round % 3;
        succeed(thaw_loader_create(&loader, d, &o));
        for (int pass = 0; pass < 2; pass++) {
            succeed(thaw_loader_begin(loader, order, fours, 3, pass));
            succeed(thaw_loader_next(loader, &batch));
            thaw_fail(THAW_INTERNAL, "another message");
            expect(thaw_loader_next(loader, &batch), THAW_DATA, "bad/a/05.png");
            assert_int_equal(batch.n, 1);
            expect(thaw_loader_next(loader, &batch), THAW_NO_INPUT, "bad/a/10.png");
            if (pass == 0)
                succeed(thaw_loader_begin(loader, order + 8, (int64_t[]){0, 2}, 1, 0));
        }
        thaw_loader_free(loader);
    }
    thaw_dataset_free(d);
}

static void test_refused(void **state) {
    (void)state;
    thaw_loader *loader;
    thaw_loader_options o = plain;
    o.shape[2] = 1;
    expect(thaw_loader_create(&loader, images, &o), THAW_DATA, "data|6x7x1|3 channels");
    o = plain;
    o.shape[1] = o.shape[2] = 0;
    expect(thaw_loader_create(&loader, images, &o), THAW_DATA, "6x0x0");
    assert_null(loader);
    const size_t live = thaw_memory_live();
    thaw_status status = THAW_RESOURCE;
    for (int n = 1; status != THAW_OK; n++) {
        assert_true(n < 100);
        thaw_memory_fail_after(n);
        status = thaw_loader_create(&loader, images, &plain);
        thaw_memory_fail_after(-1);
        thaw_loader_free(loader);
        if (status != THAW_OK)
            expect(status, THAW_RESOURCE, "no memory");
        assert_int_equal(thaw_memory_live(), live);
    }
}

static void write_dataset(hid_t file, const char *name, hid_t type, int rank, const hsize_t *dims, const void *data,
                          const hsize_t *chunk) {
    hid_t space = H5Screate_simple(rank, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk) {
        H5Pset_chunk(plist, rank, chunk);
        H5Pset_shuffle(plist);
        H5Pset_deflate(plist, 4);
    }
    hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(dataset >= 0);
    if (data)
        assert_true(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(dataset);
    H5Pclose(plist);
    H5Sclose(space);
}

enum { ROWS = 40, AH = 3, AW = 4, AC = 3, AROW = AH * AW * AC };

static uint8_t array_bytes[ROWS][AROW];
static double array_doubles[ROWS][5];
static int64_t array_labels[ROWS];
static int16_t array_hot[ROWS][2];

static void make_arrays(void) {
    for (int i = 0; i < ROWS; i++) {
        for (int k = 0; k < AROW; k++)
            array_bytes[i][k] = (uint8_t)(i * 5 + k);
        for (int k = 0; k < 5; k++)
            array_doubles[i][k] = i + k / 8.0;
        array_labels[i] = i % 4 - 1;
        array_hot[i][0] = (int16_t)(i % 2);
        array_hot[i][1] = (int16_t)(-i);
    }
    hid_t file = H5Fcreate(in_folder("arrays.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    write_dataset(file, "x", H5T_NATIVE_UINT8, 4, (hsize_t[]){ROWS, AH, AW, AC}, array_bytes, NULL);
    write_dataset(file, "packed", H5T_NATIVE_UINT8, 4, (hsize_t[]){ROWS, AH, AW, AC}, array_bytes, (hsize_t[]){7, AH, 2, AC});
    write_dataset(file, "flat", H5T_NATIVE_DOUBLE, 2, (hsize_t[]){ROWS, 5}, array_doubles, NULL);
    write_dataset(file, "big", H5T_IEEE_F64BE, 2, (hsize_t[]){ROWS, 5}, NULL, NULL);
    write_dataset(file, "y", H5T_NATIVE_INT64, 1, (hsize_t[]){ROWS}, array_labels, NULL);
    write_dataset(file, "column", H5T_NATIVE_INT64, 2, (hsize_t[]){ROWS, 1}, array_labels, NULL);
    write_dataset(file, "hot", H5T_NATIVE_INT16, 2, (hsize_t[]){ROWS, 2}, array_hot, NULL);
    write_dataset(file, "short", H5T_NATIVE_INT64, 1, (hsize_t[]){ROWS - 1}, array_labels, NULL);
    H5Fclose(file);
}

static thaw_dataset *open_arrays(const char *x, const char *y) {
    char names[2][200];
    thaw_dataset *d;
    snprintf(names[0], sizeof names[0], "%s:/%s", in_folder("arrays.h5"), x);
    if (y)
        snprintf(names[1], sizeof names[1], "%s:/%s", in_folder("arrays.h5"), y);
    succeed(thaw_dataset_open_arrays(&d, names[0], y ? names[1] : NULL));
    return d;
}

static void test_array_batches(void **state) {
    (void)state;
    make_arrays();
    static const char *const xs[] = {"x", "packed", "flat"}, *const ys[] = {"y", "column", "hot", NULL};
    for (int kind = 0; kind < 12; kind++) {
        const char *y = ys[kind % 4];
        thaw_dataset *d = open_arrays(xs[kind / 4], y);
        const bool flat = kind / 4 == 2;
        thaw_loader_options o = {.threads = 3, .depth = 2, .max_batch = 13, .seed = 4, .augment = !flat, .horizontal_flip = true};
        memcpy(o.shape, d->x_shape, sizeof o.shape);
        o.preprocess = flat ? THAW_PREPROCESS_NONE : THAW_PREPROCESS_CAFFE;
        assert_int_equal(d->n, ROWS);
        thaw_loader *loader;
        succeed(thaw_loader_create(&loader, d, &o));
        for (int epoch = 0; epoch < 3; epoch++) {
            int64_t order[ROWS];
            const int64_t cuts[] = {0, 13, 26, 26, 39, ROWS};
            thaw_epoch_order(order, ROWS, 2, epoch, epoch > 0);
            succeed(thaw_loader_begin(loader, order, cuts, 5, epoch));
            for (int b = 0; b < 5; b++) {
                thaw_batch batch;
                succeed(thaw_loader_next(loader, &batch));
                assert_int_equal(batch.n, cuts[b + 1] - cuts[b]);
                for (int64_t i = 0; i < batch.n; i++) {
                    const int64_t row = order[cuts[b] + i], width = flat ? 5 : AROW;
                    float x[AROW];
                    for (int64_t k = 0; k < width; k++)
                        x[k] = flat ? (float)array_doubles[row][k] : (float)array_bytes[row][k];
                    const uint32_t word = thaw_philox(4, THAW_DRAW_AUGMENT, (uint32_t)epoch, (uint64_t)row, 0).word[0];
                    if (!flat && thaw_uniform(word) < 0.5f)
                        thaw_flip(x, AH, AW, AC);
                    thaw_preprocess_apply(x, width / 3, 3, o.preprocess);
                    assert_memory_equal(batch.x + i * width, x, (size_t)width * sizeof *x);
                    if (!y)
                        assert_null(batch.y);
                    else if (strcmp(y, "hot") == 0)
                        assert_true(batch.y[2 * i] == array_hot[row][0] && batch.y[2 * i + 1] == array_hot[row][1]);
                    else
                        assert_true(batch.y[i] == (float)array_labels[row]);
                }
            }
        }
        thaw_loader_free(loader);
        thaw_dataset_free(d);
    }
}

static void test_array_shapes(void **state) {
    (void)state;
    make_arrays();
    thaw_dataset *d = open_arrays("x", "y"), *flat = open_arrays("flat", NULL);
    thaw_loader *loader;
    thaw_loader_options o = {.shape = {16, 16, 3}, .threads = 1, .depth = 1, .max_batch = 2};
    expect(thaw_loader_create(&loader, d, &o), THAW_DATA, "arrays.h5:/x|3x4x3|16x16x3");
    expect(thaw_loader_create(&loader, flat, &o), THAW_DATA, "arrays.h5:/flat|5 values|16x16x3");
    o = (thaw_loader_options){.shape = {5}, .threads = 1, .depth = 1, .max_batch = 2, .preprocess = THAW_PREPROCESS_TORCH};
    expect(thaw_loader_create(&loader, d, &o), THAW_DATA, "3x4x3|5 values");
    expect(thaw_loader_create(&loader, flat, &o), THAW_USAGE, "torch|3 channels");
    /* the file is another one now */
    o = (thaw_loader_options){.shape = {AH, AW, AC}, .threads = 1, .depth = 1, .max_batch = 2};
    hid_t file = H5Fcreate(in_folder("arrays.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    write_dataset(file, "x", H5T_NATIVE_UINT8, 4, (hsize_t[]){10, AH, AW, AC}, array_bytes, NULL);
    write_dataset(file, "y", H5T_NATIVE_INT64, 1, (hsize_t[]){10}, array_labels, NULL);
    H5Fclose(file);
    thaw_batch batch;
    succeed(thaw_loader_create(&loader, d, &o));
    succeed(thaw_loader_begin(loader, (int64_t[]){9, 20, 3}, (int64_t[]){0, 2, 3}, 2, 0));
    expect(thaw_loader_next(loader, &batch), THAW_DATA, "arrays.h5:/x|10 rows|row 20");
    succeed(thaw_loader_next(loader, &batch));
    thaw_loader_free(loader);
    make_arrays();
    thaw_dataset_free(d);
    thaw_dataset_free(flat);
}

/* Between the start of a pass and its end nobody asks for memory (of images, the decoding threads may). */
static void test_signals_and_memory(void **state) {
    (void)state;
    make_arrays();
    thaw_dataset *d = open_arrays("flat", "y");
    thaw_loader *loader;
    thaw_loader_options o = {.shape = {5}, .threads = 1, .depth = 1, .max_batch = 4};
    int64_t order[ROWS], tens[11];
    thaw_epoch_order(order, ROWS, 0, 0, false);
    for (int i = 0; i < 11; i++)
        tens[i] = 4 * i;
    succeed(thaw_loader_create(&loader, d, &o));
    succeed(thaw_loader_begin(loader, order, tens, 10, 0));
    const uint64_t before = thaw_memory_requests();
    for (int b = 0; b < 10; b++) {
        thaw_batch batch;
        succeed(thaw_loader_next(loader, &batch));
        assert_true(batch.x[0] == (float)(4 * b));
    }
    succeed(thaw_loader_begin(loader, order, tens, 10, 1));
    assert_true(thaw_memory_requests() == before);
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    assert_int_equal(sigismember(&mask, SIGTERM), 0); /* the caller still gets its signals */
    thaw_loader_free(loader);
    thaw_dataset_free(d);
}

/* Every sample in one variant; together they are what draws give. */
static void test_variants(void **state) {
    (void)state;
    thaw_loader_options drawn = plain;
    drawn.augment = drawn.horizontal_flip = true;
    thaw_loader_options fixed = drawn;
    fixed.by_variant = true;
    assert_int_equal(thaw_augment_variants(&plain, false), 1);
    assert_int_equal(thaw_augment_variants(&drawn, false), 2);
    assert_int_equal(thaw_augment_variants(&drawn, true), 1); /* features have no left and right */
    thaw_loader *loaders[3];
    succeed(thaw_loader_create(&loaders[0], images, &fixed));
    succeed(thaw_loader_create(&loaders[1], images, &fixed));
    succeed(thaw_loader_create(&loaders[2], images, &drawn));
    int64_t order[IMAGES], each[IMAGES + 1], seen[2] = {0, 0}, differ = 0;
    thaw_epoch_order(order, IMAGES, 1, 0, false);
    for (int i = 0; i <= IMAGES; i++)
        each[i] = i;
    for (int i = 0; i < 3; i++)
        succeed(thaw_loader_begin(loaders[i], order, each, IMAGES, i < 2 ? i : 7));
    for (int i = 0; i < IMAGES; i++) {
        thaw_batch batches[3];
        for (int k = 0; k < 3; k++)
            succeed(thaw_loader_next(loaders[k], &batches[k]));
        int variant = thaw_augment_variant(&drawn, false, i, 7);
        seen[variant]++;
        assert_memory_equal(batches[2].x, batches[variant].x, ROW * sizeof(float));
        differ += memcmp(batches[0].x, batches[1].x, ROW * sizeof(float)) != 0;
    }
    assert_true(seen[0] > 3 && seen[1] > 3 && differ > 3);
    for (int i = 0; i < 3; i++)
        thaw_loader_free(loaders[i]);
}

/* Fixed draws: each is the same in every epoch, and epochs take one of them by the counter. */
static void test_draws(void **state) {
    (void)state;
    enum { DRAWS = 3, EPOCHS = 40 };
    thaw_loader_options drawn = plain;
    drawn.augment = drawn.horizontal_flip = true;
    drawn.draws = DRAWS;
    thaw_loader_options fixed = drawn;
    fixed.by_variant = true;
    assert_int_equal(thaw_augment_variants(&drawn, false), DRAWS);
    assert_int_equal(thaw_augment_variants(&drawn, true), 1);
    thaw_loader_options quiet = plain;
    quiet.draws = DRAWS;
    assert_int_equal(thaw_augment_variants(&quiet, false), 1); /* nothing is drawn */
    static float rows[DRAWS][IMAGES][ROW];
    int64_t order[IMAGES], each[IMAGES + 1], seen[DRAWS] = {0}, forms[2] = {0};
    thaw_epoch_order(order, IMAGES, 1, 0, false);
    for (int i = 0; i <= IMAGES; i++)
        each[i] = i;
    thaw_loader *loader;
    succeed(thaw_loader_create(&loader, images, &fixed));
    for (int k = 0; k < DRAWS; k++) {
        succeed(thaw_loader_begin(loader, order, each, IMAGES, k));
        for (int i = 0; i < IMAGES; i++) {
            thaw_batch batch;
            float x[ROW];
            bool flipped;
            succeed(thaw_loader_next(loader, &batch));
            memcpy(rows[k][i], batch.x, sizeof x);
            by_hand(x, &plain, i, 0, &flipped); /* as it is */
            const thaw_draw draw = thaw_philox(plain.seed, THAW_DRAW_FIXED, (uint32_t)k, (uint64_t)i, 0);
            forms[thaw_uniform(draw.word[0]) < 0.5f]++;
            if (thaw_uniform(draw.word[0]) < 0.5f) /* preprocessing is the same for every pixel */
                thaw_flip(x, H, W, 3);
            assert_memory_equal(x, batch.x, sizeof x);
        }
    }
    thaw_loader_free(loader);
    assert_true(forms[0] > 10 && forms[1] > 10);
    succeed(thaw_loader_create(&loader, images, &drawn));
    for (int e = 0; e < EPOCHS; e++) {
        succeed(thaw_loader_begin(loader, order, each, IMAGES, e));
        for (int i = 0; i < IMAGES; i++) {
            thaw_batch batch;
            succeed(thaw_loader_next(loader, &batch));
            const int variant = thaw_augment_variant(&drawn, false, i, e);
            assert_in_range(variant, 0, DRAWS - 1);
            seen[variant]++;
            assert_memory_equal(batch.x, rows[variant][i], ROW * sizeof(float));
        }
    }
    thaw_loader_free(loader);
    for (int k = 0; k < DRAWS; k++) /* evenly: 307 each, a standard deviation is 14 */
        assert_in_range(seen[k], 230, 380);
}

/* Labels without images: of files that are gone, and without memory for pixels. */
static void test_labels_only(void **state) {
    (void)state;
    put_png("brief/a/1.png", 1, H, W);
    put_png("brief/b/2.png", 2, H, W);
    thaw_dataset *d;
    thaw_loader *loader;
    thaw_batch batch;
    succeed(thaw_dataset_scan_folders(&d, in_folder("brief"), NULL, 0));
    succeed(thaw_io_remove(in_folder("brief/a/1.png")));
    thaw_loader_options o = plain;
    o.labels_only = true;
    o.threads = 3;
    o.max_batch = 1 << 20;
    const size_t live = thaw_memory_live();
    succeed(thaw_loader_create(&loader, d, &o));
    assert_true(thaw_memory_live() - live < (size_t)o.max_batch * 3 * sizeof(float) + 4096);
    succeed(thaw_loader_begin(loader, (int64_t[]){1, 0, 1}, (int64_t[]){0, 2, 3}, 2, 0));
    succeed(thaw_loader_next(loader, &batch));
    assert_null(batch.x);
    assert_int_equal(batch.n, 2);
    assert_true(batch.y[0] == 1.0f && batch.y[1] == 0.0f && batch.samples[0] == 1);
    succeed(thaw_loader_next(loader, &batch));
    assert_true(batch.n == 1 && batch.y[0] == 1.0f);
    thaw_loader_free(loader);
    o.labels_only = false;
    o.by_variant = true; /* an image that is not the one that was hashed */
    o.max_batch = 1;
    d->content = thaw_calloc(2, sizeof *d->content);
    succeed(thaw_loader_create(&loader, d, &o));
    succeed(thaw_loader_begin(loader, (int64_t[]){1}, (int64_t[]){0, 1}, 1, 0));
    expect(thaw_loader_next(loader, &batch), THAW_DATA, "b/2.png changed since this run began");
    thaw_loader_free(loader);
    thaw_dataset_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants),      cmocka_unit_test(test_labels_only),
        cmocka_unit_test(test_contents),      cmocka_unit_test(test_aborted_passes),
        cmocka_unit_test(test_begin_waits),   cmocka_unit_test(test_no_images),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_errors),        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_array_batches), cmocka_unit_test(test_array_shapes),
        cmocka_unit_test(test_signals_and_memory), cmocka_unit_test(test_draws),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
