/* Folders of images to an index, as Keras' image_dataset_from_directory: classes in order, in each class all folders sorted
 * by path, in each folder all images sorted by name. Unlike Keras, hidden files and folders are left out at every depth
 * (they are leftovers of other programs), and links to folders are followed. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/text.h"
#include "data/names.h"
#include "thaw/data.h"

enum { DEEPEST = 64 };

/* A folder that was walked, with the images right inside. */
typedef struct folder {
    char *path; /* relative to the root */
    char **names;
    int n;
} folder;

typedef struct walk {
    const char *root;
    folder *folders;
    size_t n_folders, capacity;
    int64_t n_ignored;   /* files that are no images by their names */
    char *first_ignored; /* the first of them */
} walk;

/* Real paths of a folder and those around it, to notice links that lead back. */
typedef struct chain {
    const struct chain *above;
    char real[PATH_MAX];
} chain;

static thaw_status no_memory(void) { return thaw_fail(THAW_RESOURCE, "no memory for the index of the images"); }

static bool is_image(const char *name) {
    static const char *const suffixes[] = {".bmp", ".gif", ".jpeg", ".jpg", ".png"};
    const size_t length = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        const size_t n = strlen(suffixes[i]);
        if (length >= n && strcasecmp(name + length - n, suffixes[i]) == 0)
            return true;
    }
    return false;
}

static bool is_hidden(const char *name) { return name[0] == '.' || strcasecmp(name, "Thumbs.db") == 0; }

static void free_names(char **names, int n) {
    for (int i = 0; names && i < n; i++)
        thaw_free(names[i]);
    thaw_free(names);
}

static void forget_folders(walk *w) {
    for (size_t i = 0; i < w->n_folders; i++) {
        thaw_free(w->folders[i].path);
        free_names(w->folders[i].names, w->folders[i].n);
    }
    w->n_folders = 0;
}

static void end_walk(walk *w) {
    forget_folders(w);
    thaw_free(w->folders);
    thaw_free(w->first_ignored);
}

static void ignore(walk *w, const char *path) {
    if (w->n_ignored++ == 0)
        w->first_ignored = thaw_strdup(path);
}

static void report_ignored(const walk *w, const char *path) {
    if (w->n_ignored)
        thaw_warn("%s: %lld files are left out, their names do not end in .bmp .gif .jpeg .jpg .png inside a class folder (the "
                  "first: %s)", path, (long long)w->n_ignored, w->first_ignored ? w->first_ignored : "?");
}

static bool enter(chain *here, const chain *above, const char *path) {
    here->above = above;
    if (!realpath(path, here->real))
        here->real[0] = '\0'; /* the limit of depth still ends a loop */
    for (const chain *at = above; at && here->real[0]; at = at->above)
        if (strcmp(at->real, here->real) == 0)
            return false;
    return true;
}

/* The folder `relative` and all below, into w->folders. */
static thaw_status walk_folder(walk *w, const char *relative, const chain *above, int depth) {
    chain here;
    char *path = thaw_path_join(w->root, relative), **names = NULL;
    int n = 0, kept = 0;
    thaw_status status = path ? THAW_OK : no_memory();
    if (status == THAW_OK && depth > DEEPEST)
        status = thaw_fail(THAW_DATA, "%s lies more than %d folders deep; move the images up", path, DEEPEST);
    if (status == THAW_OK && !enter(&here, above, path)) {
        thaw_warn("%s is a link to a folder around it and is not followed", path);
        thaw_free(path);
        return THAW_OK;
    }
    if (status == THAW_OK)
        status = thaw_io_list(&names, &n, path);
    /* Images are not asked what they are: a million calls on a network file system are minutes. */
    for (int i = 0; i < n && status == THAW_OK; i++) {
        if (is_image(names[i]) && !is_hidden(names[i])) {
            char *swap = names[kept];
            names[kept++] = names[i];
            names[i] = swap;
            continue;
        }
        if (is_hidden(names[i]))
            continue;
        char *inner = thaw_path_join(relative, names[i]), *full = inner ? thaw_path_join(w->root, inner) : NULL;
        if (!full)
            status = no_memory();
        else if (thaw_io_is_dir(full))
            status = walk_folder(w, inner, &here, depth + 1);
        else
            ignore(w, full);
        thaw_free(inner);
        thaw_free(full);
    }
    if (status == THAW_OK && kept && w->n_folders == w->capacity) {
        const size_t capacity = w->capacity ? 2 * w->capacity : 16;
        folder *more = thaw_realloc(w->folders, capacity * sizeof *more);
        if (more) {
            w->folders = more;
            w->capacity = capacity;
        } else {
            status = no_memory();
        }
    }
    char *own = status == THAW_OK && kept ? thaw_strdup(relative) : NULL;
    if (own) {
        for (int i = kept; i < n; i++)
            thaw_free(names[i]);
        w->folders[w->n_folders++] = (folder){.path = own, .names = names, .n = kept};
    } else {
        if (status == THAW_OK && kept)
            status = no_memory();
        free_names(names, n);
    }
    thaw_free(path);
    return status;
}

static int compare_folders(const void *a, const void *b) { return strcmp(((const folder *)a)->path, ((const folder *)b)->path); }

/* Appends the walked images, sorted, to `text` and forgets them. Returns their number. */
static int64_t put_images(thaw_buffer *text, walk *w) {
    int64_t n = 0;
    if (w->n_folders)
        qsort(w->folders, w->n_folders, sizeof *w->folders, compare_folders);
    for (size_t f = 0; f < w->n_folders; f++)
        for (int i = 0; i < w->folders[f].n; i++, n++) {
            const char *path = w->folders[f].path;
            const size_t length = strlen(path);
            thaw_buffer_put(text, path, length);
            if (length && path[length - 1] != '/')
                thaw_buffer_put(text, "/", 1);
            thaw_buffer_put(text, w->folders[f].names[i], strlen(w->folders[f].names[i]) + 1);
        }
    forget_folders(w);
    return n;
}

/* The class folders of `path` that are not hidden, sorted. [out] folders: names with zero bytes between, *n of them. */
static thaw_status list_folders(thaw_buffer *folders, int *n, walk *w, const char *path) {
    char **names;
    int n_names;
    *n = 0;
    THAW_TRY(thaw_io_list(&names, &n_names, path));
    thaw_status status = THAW_OK;
    for (int i = 0; i < n_names && status == THAW_OK; i++) {
        if (is_hidden(names[i]))
            continue;
        char *full = thaw_path_join(path, names[i]);
        if (!full) {
            status = no_memory();
        } else if (is_image(names[i]) || !thaw_io_is_dir(full)) {
            ignore(w, full);
        } else {
            thaw_buffer_put(folders, names[i], strlen(names[i]) + 1);
            (*n)++;
        }
        thaw_free(full);
    }
    free_names(names, n_names);
    return status == THAW_OK && folders->failed ? no_memory() : status;
}

static bool has(const char *const *names, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* The given class names are those of the folders, each once. */
static thaw_status check_names(const char *path, char *const *folders, int n_folders, const char *const *names, int n_names) {
    for (int i = 0; i < n_names; i++) {
        if (has(names, i, names[i]))
            return thaw_fail(THAW_USAGE, "class_names: '%s' stands there twice", names[i]);
        if (!has((const char *const *)folders, n_folders, names[i])) {
            const char *near = thaw_nearest(names[i], (const char *const *)folders, n_folders);
            return thaw_fail(THAW_DATA, "%s has no folder of class '%s'%s%s%s; add it or change class_names", path, names[i],
                             *near ? " (it has " : "", near, *near ? ")" : "");
        }
    }
    for (int i = 0; i < n_folders; i++)
        if (!has(names, n_names, folders[i])) {
            const char *near = thaw_nearest(folders[i], names, n_names);
            return thaw_fail(THAW_DATA, "%s/%s is not one of the %d class names%s%s%s; rename or move the folder, or change "
                                        "class_names", path, folders[i], n_names, *near ? " (near: " : "", near,
                             *near ? ")" : "");
        }
    return THAW_OK;
}

/* Takes `text` (n paths) and gives all of them the label `label`, from sample *done on. */
static bool put_labels(thaw_buffer *labels, int64_t n, int32_t label) {
    for (int64_t i = 0; i < n; i++)
        thaw_buffer_put(labels, &label, sizeof label);
    return !labels->failed;
}

static thaw_status finish(thaw_dataset **out, const char *root, thaw_buffer *paths, thaw_buffer *labels, int64_t n) {
    thaw_dataset *d = thaw_malloc(sizeof *d);
    if (!d || paths->failed || labels->failed) {
        thaw_free(d);
        return no_memory();
    }
    d->n = n;
    d->root = thaw_strdup(root);
    d->paths = thaw_names_split(paths->data, paths->size, n);
    d->labels = (int32_t *)(void *)labels->data;
    labels->data = NULL;
    if (!d->root || !d->paths) {
        thaw_dataset_free(d);
        return no_memory();
    }
    *out = d;
    return THAW_OK;
}

thaw_status thaw_dataset_scan_folders(thaw_dataset **out, const char *path, const char *const *class_names, int n_names) {
    walk w = {.root = path};
    chain root;
    thaw_buffer folder_text = {0}, paths = {0}, labels = {0};
    char **folders = NULL;
    const char *const *names;
    int n_folders = 0, n_classes;
    int64_t n = 0;
    *out = NULL;
    enter(&root, NULL, path);
    thaw_status status;
    THAW_GOTO(list_folders(&folder_text, &n_folders, &w, path));
    folders = thaw_names_split(folder_text.data, folder_text.size, n_folders);
    THAW_GOTO(folders ? THAW_OK : no_memory());
    if (n_folders == 0)
        THAW_GOTO(thaw_fail(THAW_DATA, "%s has no class folders; expected a folder of images for each class", path));
    if (n_names > 0)
        THAW_GOTO(check_names(path, folders, n_folders, class_names, n_names));
    names = n_names > 0 ? class_names : (const char *const *)folders;
    n_classes = n_names > 0 ? n_names : n_folders;
    for (int c = 0; c < n_classes; c++) {
        THAW_GOTO(walk_folder(&w, names[c], &root, 0));
        const int64_t found = put_images(&paths, &w);
        if (found == 0)
            THAW_GOTO(thaw_fail(THAW_DATA, "%s%s%s holds no images (.bmp .gif .jpeg .jpg .png); fill or remove the class folder",
                                path, path[0] && path[strlen(path) - 1] == '/' ? "" : "/", names[c]));
        THAW_GOTO(put_labels(&labels, found, c) ? THAW_OK : no_memory());
        n += found;
    }
    THAW_GOTO(finish(out, path, &paths, &labels, n));
    (*out)->n_classes = n_classes;
    (*out)->class_names = folders; /* the same names; the order follows */
    if (n_names > 0) {
        thaw_buffer_free(&folder_text);
        for (int c = 0; c < n_names; c++)
            thaw_buffer_put(&folder_text, class_names[c], strlen(class_names[c]) + 1);
        (*out)->class_names = folder_text.failed ? NULL : thaw_names_split(folder_text.data, folder_text.size, n_names);
        if (!(*out)->class_names)
            status = no_memory();
    } else {
        folders = NULL;
    }
    if (status == THAW_OK)
        report_ignored(&w, path);
out:
    if (status != THAW_OK) {
        thaw_dataset_free(*out);
        *out = NULL;
    }
    thaw_free(folders);
    thaw_buffer_free(&folder_text);
    thaw_buffer_free(&paths);
    thaw_buffer_free(&labels);
    end_walk(&w);
    return status;
}

/* Images of one folder: its own and all below, or, if it has none itself, those of its class folders, one after another. */
static thaw_status scan_folder(thaw_buffer *paths, int64_t *n, walk *w, const char *path) {
    char **names;
    int n_names;
    bool own = false;
    chain root;
    enter(&root, NULL, path);
    THAW_TRY(thaw_io_list(&names, &n_names, path));
    for (int i = 0; i < n_names; i++)
        own = own || (is_image(names[i]) && !is_hidden(names[i]));
    thaw_status status = own ? walk_folder(w, path, NULL, 0) : THAW_OK;
    if (own && status == THAW_OK)
        *n += put_images(paths, w);
    for (int i = 0; i < n_names && !own && status == THAW_OK; i++) {
        char *inner = thaw_path_join(path, names[i]);
        if (!inner)
            status = no_memory();
        else if (!is_hidden(names[i]) && thaw_io_is_dir(inner))
            status = walk_folder(w, inner, &root, 1);
        else if (!is_hidden(names[i]))
            ignore(w, inner);
        thaw_free(inner);
        if (status == THAW_OK)
            *n += put_images(paths, w);
    }
    free_names(names, n_names);
    return status;
}

thaw_status thaw_dataset_scan_inputs(thaw_dataset **out, const char *const *inputs, int n_inputs) {
    thaw_buffer paths = {0}, labels = {0};
    int64_t n = 0;
    thaw_status status = THAW_OK;
    *out = NULL;
    for (int i = 0; i < n_inputs; i++) {
        const char *path = inputs[i];
        if (!thaw_io_exists(path))
            THAW_GOTO(thaw_fail(THAW_NO_INPUT, "%s does not exist; check the path", path));
        if (!thaw_io_is_dir(path)) {
            thaw_buffer_put(&paths, path, strlen(path) + 1);
            n++;
            continue;
        }
        walk w = {.root = ""};
        const int64_t before = n;
        status = scan_folder(&paths, &n, &w, path);
        if (status == THAW_OK && n == before)
            status = thaw_fail(THAW_DATA, "%s holds no images (.bmp .gif .jpeg .jpg .png)", path);
        if (status == THAW_OK)
            report_ignored(&w, path);
        end_walk(&w);
        THAW_GOTO(status);
    }
    if (n == 0)
        THAW_GOTO(thaw_fail(THAW_USAGE, "no input is given; name image files or folders"));
    THAW_GOTO(put_labels(&labels, n, -1) ? THAW_OK : no_memory());
    THAW_GOTO(finish(out, "", &paths, &labels, n));
    (*out)->class_names = thaw_names_split(NULL, 0, 0);
    if (!(*out)->class_names) {
        thaw_dataset_free(*out);
        *out = NULL;
        status = no_memory();
    }
out:
    thaw_buffer_free(&paths);
    thaw_buffer_free(&labels);
    return status;
}
