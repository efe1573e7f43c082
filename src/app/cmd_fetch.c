/* thaw fetch NAME: official weights into the weights folder, by the script and the manifest of weights/. */
#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app.h"
#include "base/io.h"
#include "base/memory.h"

extern char **environ;

static thaw_status no_memory(void) { return thaw_fail(THAW_RESOURCE, "not enough memory to fetch weights"); }

/* Folder of the program file itself; thaw_free. */
static thaw_status own_folder(char **out) {
    char path[4096];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0)
        return thaw_fail(THAW_SYSTEM, "the program's own place (/proc/self/exe) cannot be read: %s", strerror(errno));
    path[n] = 0;
    *out = thaw_path_dirname(path);
    return *out ? THAW_OK : no_memory();
}

/* fetch.sh and manifest: of the checkout that the program was built in, of the installation, or the manifest that
 * THAW_WEIGHTS_MANIFEST names. Never of the current folder, where anybody may have put a script. */
static thaw_status find_script(char **script, char **manifest) {
    static const char *const places[] = {"../weights", "../../weights", "../share/thaw/weights"};
    const char *own = getenv("THAW_WEIGHTS_MANIFEST");
    char *folder = NULL;
    *script = *manifest = NULL;
    THAW_TRY(own_folder(&folder));
    thaw_status status = THAW_OK;
    for (size_t i = 0; i < sizeof places / sizeof *places && !*script && status == THAW_OK; i++) {
        char *candidate = thaw_format("%s/%s/fetch.sh", folder, places[i]);
        *manifest = thaw_format("%s/%s/manifest", folder, places[i]);
        if (!candidate || !*manifest) {
            status = no_memory();
            thaw_free(candidate);
        } else if (thaw_io_exists(candidate) && (own || thaw_io_exists(*manifest))) {
            *script = candidate;
            break;
        } else {
            thaw_free(candidate);
        }
        thaw_free(*manifest);
        *manifest = NULL;
    }
    if (status == THAW_OK && *script && own && *own) {
        thaw_free(*manifest);
        *manifest = thaw_strdup(own);
        status = *manifest ? THAW_OK : no_memory();
    }
    if (status == THAW_OK && !*script)
        status = thaw_fail(THAW_NO_INPUT, "fetch.sh and manifest are neither in %s/../weights (a checkout) nor in "
                                          "%s/../share/thaw/weights (an installation); install thaw whole", folder, folder);
    else if (status == THAW_OK && !thaw_io_exists(*manifest))
        status = thaw_fail(THAW_NO_INPUT, "%s does not exist; check THAW_WEIGHTS_MANIFEST", *manifest);
    thaw_free(folder);
    return status;
}

/* Reads the script's standard output, its one line of result, up to `size`. */
static void read_line(int file, char *line, size_t size) {
    size_t used = 0;
    char piece[256];
    for (;;) {
        const ssize_t n = read(file, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        const size_t room = size - 1 - used, take = (size_t)n < room ? (size_t)n : room;
        memcpy(line + used, piece, take);
        used += take;
    }
    while (used && (line[used - 1] == '\n' || line[used - 1] == ' '))
        used--;
    line[used] = 0;
}

/* Runs the script; its progress goes to standard error, its one line of result (or why not) to `line`. */
static thaw_status run_script(char *const *arguments, char *line, size_t size) {
    posix_spawn_file_actions_t actions;
    int ends[2], error;
    pid_t child;
    if (pipe(ends) != 0)
        return thaw_fail(THAW_SYSTEM, "fetch: no pipe: %s", strerror(errno));
    error = posix_spawn_file_actions_init(&actions);
    if (!error) {
        error = posix_spawn_file_actions_addclose(&actions, ends[0]);
        error = error ? error : posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        error = error ? error : posix_spawn_file_actions_addclose(&actions, ends[1]);
        error = error ? error : posix_spawn(&child, "/bin/sh", &actions, NULL, arguments, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (error) {
        close(ends[0]);
        return thaw_fail(THAW_SYSTEM, "fetch: /bin/sh cannot be started: %s", strerror(error));
    }
    read_line(ends[0], line, size);
    close(ends[0]);
    int how = 0;
    while (waitpid(child, &how, 0) < 0)
        if (errno != EINTR)
            return thaw_fail(THAW_SYSTEM, "fetch: the script's end cannot be waited for: %s", strerror(errno));
    if (WIFSIGNALED(how))
        return thaw_fail(THAW_SYSTEM, "fetch: the script was ended by signal %d; run again to go on", WTERMSIG(how));
    const int code = WEXITSTATUS(how);
#define RETURN_STATUS(name, number, meaning) \
    if (code == number)                      \
        return code == 0 ? THAW_OK : thaw_fail(THAW_##name, "fetch: %s", *line ? line : meaning);
    THAW_STATUS_LIST(RETURN_STATUS)
#undef RETURN_STATUS
    return thaw_fail(THAW_SYSTEM, "fetch: the script ended with status %d%s%s", code, *line ? ": " : "", line);
}

static thaw_status fetch(const char *name, bool include_top, const char *folder, char *line, size_t size) {
    char *script = NULL, *manifest = NULL;
    thaw_status status = find_script(&script, &manifest);
    if (status == THAW_OK) {
        char shell[] = "sh", report[] = "--report", option[] = "--manifest", top[] = "top", notop[] = "notop";
        char *arguments[] = {shell, script, report, option, manifest, (char *)(uintptr_t)name, include_top ? top : notop,
                             (char *)(uintptr_t)folder, NULL};
        status = run_script(arguments, line, size);
    }
    thaw_free(script);
    thaw_free(manifest);
    return status;
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    const char *own = getenv("THAW_WEIGHTS");
    const char *folder = thaw_arguments_value(given, "weights-dir", own && *own ? own : "weights");
    char line[2048] = "";
    thaw_status status = THAW_OK;
    if (app->root)
        status = fetch(given->positional[0], !thaw_arguments_has(given, "no-top"), folder, line, sizeof line - 1);
    status = thaw_comm_agree(app->comm, status);
    if (status == THAW_OK) {
        thaw_app_print(app, line);
        thaw_app_print(app, "\n");
    }
    return status;
}

static const thaw_option options[] = {
    {"no-top", NULL, false, "the weights without the classifier (include_top: false)"},
    {"weights-dir", "DIR", false, "where the file goes (default: $THAW_WEIGHTS, else ./weights)"},
};
const thaw_command thaw_command_fetch = {
    .name = "fetch",
    .positional = "NAME",
    .least = 1,
    .most = 1,
    .summary = "downloads the official weights of a built-in network and checks them (for login nodes)",
    .details = "NAME: vgg16, vgg19, resnet50 or inceptionv3. Needs curl or wget. An interrupted download goes on where it\n"
               "stopped; size and checksum are verified before the file takes its name. Addresses are in the manifest of\n"
               "weights/, or in the file that THAW_WEIGHTS_MANIFEST names (lines: name top|notop file size md5 address).",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run,
};
