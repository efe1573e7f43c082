/* The index: order of folders, class names, inputs of predict, bytes, hash, split, order of epochs, verification. */
#include "data_case.h"

#include "base/hash.h"
#include "base/log.h"

static char logged[8192];

static void keep(thaw_log_level level, const char *line, void *payload) {
    (void)level;
    (void)payload;
    strncat(logged, line, sizeof logged - strlen(logged) - 2);
    strcat(logged, "\n");
}

static thaw_dataset *scan(const char *path) {
    thaw_dataset *d;
    succeed(thaw_dataset_scan_folders(&d, path, NULL, 0));
    return d;
}

/* Keras' order of a tree with awkward names (folders.txt), whatever order it was written in. */
static void test_order_of_keras(void **state) {
    (void)state;
    size_t size;
    char *text = (char *)fixture("folders.txt", &size), *lines[64], *rest = text, *line, name[200];
    int n = 0;
    while ((line = strsep(&rest, "\n")) != NULL && *line)
        lines[n++] = line;
    for (int i = n - 1; i >= 0; i--) {
        snprintf(name, sizeof name, "tree/%s", strchr(lines[i], ' ') + 1);
        put(name, "", 0);
    }
    put("tree/a/readme.txt", "", 0);
    put("tree/top.jpg", "", 0);
    put("tree/.hidden/1.jpg", "", 0);
    logged[0] = '\0';
    thaw_log_set(keep, NULL);
    thaw_dataset *d = scan(in_folder("tree"));
    thaw_log_set(NULL, NULL);
    assert_non_null(strstr(logged, "2 files are left out"));
    assert_int_equal(d->n, n);
    assert_int_equal(d->n_classes, 7);
    assert_false(d->arrays);
    assert_string_equal(d->root, in_folder("tree"));
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%d %s", d->labels[i], d->paths[i]);
        assert_string_equal(name, lines[i]);
        assert_int_equal(strncmp(d->paths[i], d->class_names[d->labels[i]], strlen(d->class_names[d->labels[i]])), 0);
    }
    thaw_dataset_free(d);
    thaw_free(text);
}

static void make_pets(void) {
    put("pets/cat/1.png", "", 0);
    put("pets/cat/2.png", "", 0);
    put("pets/dog/1.png", "", 0);
    put("pets/dog/.DS_Store", "", 0);
    put("pets/dog/._1.png", "", 0);
    put("pets/dog/.ipynb_checkpoints/1-checkpoint.png", "", 0);
}

static void test_class_names(void **state) {
    (void)state;
    thaw_dataset *d;
    make_pets();
    succeed(thaw_dataset_scan_folders(&d, in_folder("pets"), (const char *[]){"dog", "cat"}, 2));
    assert_int_equal(d->n, 3);
    assert_string_equal(d->paths[0], "dog/1.png");
    assert_string_equal(d->class_names[0], "dog");
    assert_string_equal(d->class_names[1], "cat");
    assert_int_equal(d->labels[0], 0);
    assert_int_equal(d->labels[2], 1);
    thaw_dataset_free(d);
    const char *pets = in_folder("pets");
    expect(thaw_dataset_scan_folders(&d, pets, (const char *[]){"cat"}, 1), THAW_DATA, "pets/dog|class_names");
    expect(thaw_dataset_scan_folders(&d, pets, (const char *[]){"cat", "dgo"}, 2), THAW_DATA, "pets|'dgo'|'dog'");
    expect(thaw_dataset_scan_folders(&d, pets, (const char *[]){"cat", "dog", "cow"}, 3), THAW_DATA, "pets|'cow'");
    expect(thaw_dataset_scan_folders(&d, pets, (const char *[]){"cat", "dog", "cat"}, 3), THAW_USAGE, "'cat'|twice");
    assert_null(d);
}

static void test_folder_errors(void **state) {
    (void)state;
    thaw_dataset *d;
    expect(thaw_dataset_scan_folders(&d, in_folder("no-images"), NULL, 0), THAW_NO_INPUT, "no-images|does not exist");
    put("file", "x", 1);
    expect(thaw_dataset_scan_folders(&d, in_folder("file"), NULL, 0), THAW_DATA, "file|folder");
    put("data/a/1.png", "", 0);
    assert_int_equal(thaw_io_mkdirs(in_folder("data/b/inner")), THAW_OK);
    put("data/b/notes.txt", "", 0);
    expect(thaw_dataset_scan_folders(&d, in_folder("data"), NULL, 0), THAW_DATA, "data/b holds no images");
    expect(thaw_dataset_scan_folders(&d, in_folder("data/a"), NULL, 0), THAW_DATA, "data/a has no class folders");
    assert_null(d);
}

/* Links to folders are followed; those that lead back end, and do not count images twice. */
static void test_links(void **state) {
    (void)state;
    put("linked/a/1.png", "", 0);
    put("elsewhere/deep/2.png", "", 0);
    assert_int_equal(symlink("../../elsewhere", in_folder("linked/a/more")), 0);
    assert_int_equal(symlink("..", in_folder("linked/a/up")), 0);
    assert_int_equal(symlink(".", in_folder("linked/a/self")), 0);
    assert_int_equal(symlink("ring", in_folder("linked/a/ring")), 0);
    assert_int_equal(symlink("../linked/a", in_folder("elsewhere/back")), 0);
    assert_int_equal(symlink("../elsewhere", in_folder("linked/b")), 0);
    logged[0] = '\0';
    thaw_log_set(keep, NULL);
    thaw_dataset *d = scan(in_folder("linked"));
    thaw_log_set(NULL, NULL);
    assert_int_equal(d->n, 4);
    assert_string_equal(d->paths[0], "a/1.png");
    assert_string_equal(d->paths[1], "a/more/deep/2.png");
    assert_string_equal(d->paths[2], "b/back/1.png");
    assert_string_equal(d->paths[3], "b/deep/2.png");
    assert_non_null(strstr(logged, "linked/a/self"));
    thaw_dataset_free(d);
    char deep[400] = "deep/a";
    for (int i = 0; i < 70; i++)
        strcat(deep, "/d");
    strcat(deep, "/1.png");
    put(deep, "", 0);
    expect(thaw_dataset_scan_folders(&d, in_folder("deep"), NULL, 0), THAW_DATA, "64 folders deep");
}

static void test_inputs(void **state) {
    (void)state;
    thaw_dataset *d;
    make_pets();
    put("flat/b.png", "", 0);
    put("flat/a.jpg", "", 0);
    put("flat/sub/c.png", "", 0);
    put("odd.tiff", "", 0);
    const char *inputs[] = {in_folder("pets/dog/1.png"), in_folder("pets"), in_folder("odd.tiff"), in_folder("flat/")};
    const char *wanted[] = {"pets/dog/1.png", "pets/cat/1.png", "pets/cat/2.png", "pets/dog/1.png", "odd.tiff", "flat/a.jpg",
                            "flat/b.png", "flat/sub/c.png"};
    succeed(thaw_dataset_scan_inputs(&d, inputs, 4));
    assert_int_equal(d->n, 8);
    assert_int_equal(d->n_classes, 0);
    for (int i = 0; i < 8; i++) {
        char *path = thaw_path_join(d->root, d->paths[i]);
        assert_string_equal(path, in_folder(wanted[i]));
        assert_int_equal(d->labels[i], -1);
        thaw_free(path);
    }
    void *bytes;
    size_t size;
    thaw_dataset *copy;
    succeed(thaw_dataset_pack(&bytes, &size, d));
    succeed(thaw_dataset_unpack(&copy, bytes, size));
    assert_true(thaw_dataset_hash(copy) == thaw_dataset_hash(d));
    thaw_dataset_free(copy);
    thaw_free(bytes);
    thaw_dataset_free(d);
    expect(thaw_dataset_scan_inputs(&d, (const char *[]){in_folder("nowhere.png")}, 1), THAW_NO_INPUT, "nowhere.png");
    assert_int_equal(thaw_io_mkdirs(in_folder("nothing")), THAW_OK);
    expect(thaw_dataset_scan_inputs(&d, (const char *[]){in_folder("nothing")}, 1), THAW_DATA, "nothing|no images");
    expect(thaw_dataset_scan_inputs(&d, NULL, 0), THAW_USAGE, "no input");
    assert_null(d);
}

/* A dataset of n images in three classes, made in memory through its own bytes. */
static thaw_dataset *make(int64_t n) {
    thaw_dataset *d;
    char name[64];
    for (int64_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "many%lld/%c/%03lld.png", (long long)n, (char)('a' + i * 3 / n), (long long)i);
        put(name, "", 0);
    }
    snprintf(name, sizeof name, "many%lld", (long long)n);
    succeed(thaw_dataset_scan_folders(&d, in_folder(name), NULL, 0));
    assert_int_equal(d->n, n);
    return d;
}

static void test_bytes(void **state) {
    (void)state;
    thaw_dataset *d = make(10), *copy;
    void *bytes;
    size_t size;
    succeed(thaw_dataset_pack(&bytes, &size, d));
    succeed(thaw_dataset_unpack(&copy, bytes, size));
    assert_int_equal(copy->n, 10);
    assert_int_equal(copy->n_classes, 3);
    assert_string_equal(copy->root, d->root);
    for (int i = 0; i < 10; i++) {
        assert_string_equal(copy->paths[i], d->paths[i]);
        assert_int_equal(copy->labels[i], d->labels[i]);
    }
    assert_string_equal(copy->class_names[2], "c");
    assert_true(thaw_dataset_hash(copy) == thaw_dataset_hash(d));
    thaw_dataset_free(copy);
    const size_t live = thaw_memory_live();
    for (size_t n = 0; n < size; n++) { /* cut anywhere: refused */
        char *cut = malloc(n ? n : 1);
        memcpy(cut, bytes, n);
        expect(thaw_dataset_unpack(&copy, cut, n), THAW_INTERNAL, "index");
        free(cut);
    }
    for (size_t i = 0; i < size; i++) { /* or with a wrong byte: anything but a crash */
        ((uint8_t *)bytes)[i] ^= 0xff;
        if (thaw_dataset_unpack(&copy, bytes, size) == THAW_OK)
            thaw_dataset_free(copy);
        ((uint8_t *)bytes)[i] ^= 0xff;
    }
    assert_int_equal(thaw_memory_live(), live);
    thaw_free(bytes);
    thaw_dataset_free(d);
}

static void test_hash(void **state) {
    (void)state;
    thaw_dataset *d = make(10);
    const uint64_t hash = thaw_dataset_hash(d);
    d->labels[4]++;
    assert_true(thaw_dataset_hash(d) != hash);
    d->labels[4]--;
    d->paths[3][1] = '~';
    assert_true(thaw_dataset_hash(d) != hash);
    d->paths[3][1] = '/';
    d->class_names[1][0] = 'x';
    assert_true(thaw_dataset_hash(d) != hash);
    d->class_names[1][0] = 'b';
    d->root[0] = '.'; /* a moved folder is the same data */
    assert_true(thaw_dataset_hash(d) == hash);
    thaw_dataset_drop(d, (int64_t[]){9}, 1);
    assert_true(thaw_dataset_hash(d) != hash);
    thaw_dataset_free(d);
}

static void test_split(void **state) {
    (void)state;
    thaw_dataset *a = make(50), *b = make(50), *whole = make(50), *va, *vb;
    succeed(thaw_dataset_split(a, 0.33, 7, &va));
    succeed(thaw_dataset_split(b, 0.33, 7, &vb));
    assert_int_equal(va->n, 16); /* int(0.33*50) */
    assert_int_equal(a->n, 34);
    assert_true(thaw_dataset_hash(a) == thaw_dataset_hash(b) && thaw_dataset_hash(va) == thaw_dataset_hash(vb));
    assert_int_equal(va->n_classes, 3);
    assert_string_equal(va->class_names[1], "b");
    assert_string_equal(va->root, a->root);
    int64_t i = 0, j = 0; /* both ascending, together all */
    for (int64_t k = 0; k < 50; k++) {
        const bool held = j < va->n && strcmp(va->paths[j], whole->paths[k]) == 0;
        const thaw_dataset *part = held ? va : a;
        const int64_t at = held ? j++ : i++;
        assert_string_equal(part->paths[at], whole->paths[k]);
        assert_int_equal(part->labels[at], whole->labels[k]);
    }
    assert_int_equal(i, 34);
    assert_int_equal(j, 16);
    thaw_dataset_free(b);
    thaw_dataset_free(vb);
    b = make(50);
    succeed(thaw_dataset_split(b, 0.33, 8, &vb));
    assert_true(thaw_dataset_hash(vb) != thaw_dataset_hash(va)); /* the seed decides */
    thaw_dataset_free(vb);
    succeed(thaw_dataset_split(b, 0.01, 8, &vb));
    assert_int_equal(vb->n, 0);
    thaw_dataset_free(vb);
    expect(thaw_dataset_split(b, 1.0, 8, &vb), THAW_USAGE, "split");
    expect(thaw_dataset_split(b, -0.5, 8, &vb), THAW_USAGE, "split");
    thaw_dataset_free(a);
    thaw_dataset_free(b);
    thaw_dataset_free(va);
    thaw_dataset_free(whole);
}

static void test_drop(void **state) {
    (void)state;
    thaw_dataset *d = make(10), *whole = make(10);
    thaw_dataset_drop(d, (int64_t[]){0, 4, 9}, 3);
    static const int left[] = {1, 2, 3, 5, 6, 7, 8};
    assert_int_equal(d->n, 7);
    for (int i = 0; i < 7; i++) {
        assert_string_equal(d->paths[i], whole->paths[left[i]]);
        assert_int_equal(d->labels[i], whole->labels[left[i]]);
    }
    void *bytes;
    size_t size;
    thaw_dataset *copy, *validation;
    succeed(thaw_dataset_pack(&bytes, &size, d));
    succeed(thaw_dataset_unpack(&copy, bytes, size));
    assert_string_equal(copy->paths[6], whole->paths[8]);
    succeed(thaw_dataset_split(d, 0.5, 1, &validation));
    assert_int_equal(d->n, 4);
    thaw_dataset_free(validation);
    thaw_dataset_free(copy);
    thaw_free(bytes);
    thaw_dataset_free(d);
    thaw_dataset_free(whole);
}

static void test_epoch_order(void **state) {
    (void)state;
    enum { N = 1000 };
    int64_t a[N], b[N], seen[N] = {0}, moved = 0, first[4] = {0};
    thaw_epoch_order(a, N, 3, 5, true);
    thaw_epoch_order(b, N, 3, 5, true);
    assert_memory_equal(a, b, sizeof a);
    for (int i = 0; i < N; i++) {
        assert_int_equal(seen[a[i]]++, 0);
        moved += a[i] != i;
    }
    assert_true(moved > N - 10);
    thaw_epoch_order(b, N, 3, 6, true);
    assert_memory_not_equal(a, b, sizeof a);
    thaw_epoch_order(b, N, 4, 5, true);
    assert_memory_not_equal(a, b, sizeof a);
    thaw_epoch_order(b, N, 3, 5, false);
    for (int i = 0; i < N; i++)
        assert_int_equal(b[i], i);
    for (int epoch = 0; epoch < 4000; epoch++) { /* every sample is first equally often: 1000 +- 5 sigma */
        thaw_epoch_order(b, 4, 1, epoch, true);
        first[b[0]]++;
    }
    for (int i = 0; i < 4; i++)
        assert_in_range(first[i], 863, 1137);
    thaw_epoch_order(b, 0, 1, 0, true);
    thaw_epoch_order(b, 1, 1, 0, true);
    assert_int_equal(b[0], 0);
}

static void test_verify(void **state) {
    (void)state;
    thaw_dataset *d;
    char name[64];
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "check/a/%02d.png", i);
        put_png(name, i, 4, 5);
    }
    put("check/a/03.png", "broken", 6);
    put("check/a/12.png", "", 0);
    put("check/a/19.png", "\x89PNG\r\n\x1a\n", 8);
    succeed(thaw_dataset_scan_folders(&d, in_folder("check"), NULL, 0));
    thaw_log_set(keep, NULL);
    for (int threads = 1; threads < 40; threads += 3) {
        int64_t *bad, n_bad;
        logged[0] = '\0';
        succeed(thaw_dataset_verify(d, threads, 0, 1, &bad, &n_bad, NULL));
        assert_int_equal(n_bad, 3);
        assert_memory_equal(bad, ((int64_t[]){3, 12, 19}), 24);
        const char *a = strstr(logged, "03.png"), *b = strstr(logged, "12.png"), *c = strstr(logged, "19.png");
        assert_true(a && b && c && a < b && b < c);
        thaw_free(bad);
        succeed(thaw_dataset_verify(d, threads, 1, 2, &bad, &n_bad, NULL)); /* a share: 1, 3, 5, ... */
        assert_int_equal(n_bad, 2);
        assert_memory_equal(bad, ((int64_t[]){3, 19}), 16);
        thaw_free(bad);
        succeed(thaw_dataset_verify(d, threads, 20, 21, &bad, &n_bad, NULL)); /* a rank without images */
        assert_int_equal(n_bad, 0);
        thaw_free(bad);
    }
    /* Hashes of contents: of the share alone, of damaged files too, and they stay with their samples. */
    uint64_t content[20] = {0}, *kept;
    int64_t *bad, n_bad;
    succeed(thaw_dataset_verify(d, 3, 1, 2, &bad, &n_bad, content));
    thaw_free(bad);
    void *bytes;
    size_t size;
    succeed(thaw_io_read(&bytes, &size, in_folder("check/a/05.png"), 0));
    assert_true(content[5] == thaw_hash(bytes, size, 0));
    thaw_free(bytes);
    for (int i = 0; i < 20; i++)
        assert_int_equal(content[i] != 0, i % 2 == 1);
    assert_true(content[3] != content[5]);
    succeed(thaw_dataset_verify(d, 3, 0, 2, &bad, &n_bad, content));
    thaw_free(bad);
    d->content = kept = thaw_calloc(20, sizeof *kept);
    memcpy(kept, content, sizeof content);
    thaw_dataset_drop(d, (int64_t[]){3, 12, 19}, 3);
    assert_true(kept[2] == content[2] && kept[3] == content[4] && kept[16] == content[18]);
    thaw_dataset *held;
    succeed(thaw_dataset_split(d, 0.4, 1, &held));
    for (int part = 0; part < 2; part++) {
        const thaw_dataset *of = part ? held : d;
        for (int64_t i = 0; i < of->n; i++) /* "a/07.png" */
            assert_true(of->content[i] == content[atoi(of->paths[i] + 2)]);
    }
    thaw_dataset_free(held);
    thaw_log_set(NULL, NULL);
    thaw_dataset_free(d);
}

/* Memory that ends at the n-th request, files that cannot be read: an error, and nothing left behind. */
static void test_failures(void **state) {
    (void)state;
    make_pets();
    const size_t live = thaw_memory_live();
    for (int kind = 0; kind < 3; kind++) {
        thaw_status status = THAW_INTERNAL;
        for (int n = 1; status != THAW_OK; n++) {
            thaw_dataset *d = NULL, *other = NULL;
            void *bytes = NULL;
            size_t size;
            assert_true(n < 500);
            if (kind == 2)
                thaw_io_fail_after(n, 5);
            else
                thaw_memory_fail_after(n);
            status = kind == 1 ? thaw_dataset_scan_inputs(&d, (const char *[]){in_folder("pets")}, 1)
                               : thaw_dataset_scan_folders(&d, in_folder("pets"), (const char *[]){"dog", "cat"}, 2);
            if (status == THAW_OK)
                status = thaw_dataset_pack(&bytes, &size, d);
            if (status == THAW_OK)
                status = thaw_dataset_unpack(&other, bytes, size);
            thaw_dataset_free(other);
            if (status == THAW_OK)
                status = thaw_dataset_split(d, 0.5, 1, &other);
            else
                other = NULL;
            thaw_memory_fail_after(-1);
            thaw_io_fail_after(-1, 0);
            thaw_free(bytes);
            thaw_dataset_free(other);
            thaw_dataset_free(d);
            assert_int_equal(thaw_memory_live(), live);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_keras), cmocka_unit_test(test_class_names), cmocka_unit_test(test_folder_errors),
        cmocka_unit_test(test_links),          cmocka_unit_test(test_inputs),      cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_hash),           cmocka_unit_test(test_split),       cmocka_unit_test(test_drop),
        cmocka_unit_test(test_epoch_order),    cmocka_unit_test(test_verify),      cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
