#include "base/limits.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/memory.h"

enum { SMALL_FILE = 1 << 20 };

/* Text of a small file below `root`; NULL if it cannot be read. thaw_free. */
static char *text_of(const char *root, const char *folder, const char *name) {
    void *bytes = NULL;
    size_t size;
    char *path = thaw_format("%s%s/%s", root, folder, name);
    if (path && thaw_io_exists(path) && thaw_io_read(&bytes, &size, path, SMALL_FILE) != THAW_OK)
        bytes = NULL;
    thaw_free(path);
    return bytes;
}

/* The number behind a word that begins a line; 0 if there is none. */
static uint64_t number_after(const char *text, const char *word) {
    const size_t length = strlen(word);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, word, length) == 0)
            return strtoull(line + length, NULL, 10);
    }
    return 0;
}

static void take_least(thaw_memory_left *left, uint64_t bytes, const char *what) {
    if (!left->what || bytes < left->bytes)
        *left = (thaw_memory_left){bytes, what};
}

/* Looks at one control group. `second`: of version 2. */
typedef void (*group_viewer)(void *found, const char *root, const char *folder, bool second);

/* Its limit less its use, where pages of files count as free. */
static void see_memory(void *found, const char *root, const char *folder, bool second) {
    thaw_memory_left *left = found;
    char *limit = text_of(root, folder, second ? "memory.max" : "memory.limit_in_bytes");
    char *used = text_of(root, folder, second ? "memory.current" : "memory.usage_in_bytes");
    char *parts = text_of(root, folder, "memory.stat");
    if (limit && used && *limit >= '0' && *limit <= '9') { /* "max": none */
        uint64_t most = strtoull(limit, NULL, 10), now = strtoull(used, NULL, 10), files = 0;
        if (parts)
            files = number_after(parts, second ? "active_file " : "total_active_file ") +
                    number_after(parts, second ? "inactive_file " : "total_inactive_file ");
        now = now > files ? now - files : 0;
        take_least(left, most > now ? most - now : 0, "memory limit of the control group");
    }
    thaw_free(limit);
    thaw_free(used);
    thaw_free(parts);
}

/* The group of a line of /proc/self/cgroup and all above it. In a container the path may be one of outside: then its
 * folders are missing, and the topmost one is ours. */
static void see_groups(group_viewer see, void *found, const char *root, const char *base, char *path, bool second) {
    for (;;) {
        char *folder = thaw_format("%s%s", base, strcmp(path, "/") == 0 ? "" : path);
        if (folder)
            see(found, root, folder, second);
        thaw_free(folder);
        char *slash = strrchr(path, '/');
        if (!slash || (slash == path && path[1] == '\0'))
            return;
        slash[slash == path] = '\0'; /* "/a" becomes "/" */
    }
}

/* "cpu,cpuacct" names cpu. */
static bool names_controller(const char *list, const char *controller) {
    const size_t length = strlen(controller);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, controller, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

static void see_cgroups(group_viewer see, void *found, const char *root, const char *controller) {
    char *base = thaw_format("/sys/fs/cgroup/%s", controller);
    char *text = text_of(root, "/proc/self", "cgroup");
    for (char *line = base ? text : NULL; line && *line;) { /* "0::/user.slice", "5:memory:/slurm/job" */
        char *end = line + strcspn(line, "\n"), *next = *end ? end + 1 : end;
        *end = '\0';
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        if (second && second[1] == '/') {
            *second = '\0';
            if (first[1] == '\0')
                see_groups(see, found, root, "/sys/fs/cgroup", second + 1, true);
            else if (names_controller(first + 1, controller))
                see_groups(see, found, root, base, second + 1, false);
        }
        line = next;
    }
    thaw_free(text);
    thaw_free(base);
}

/* Megabytes in a variable of SLURM; 0 if it has none (0 there means the whole node). */
static uint64_t megabytes(const char *name) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) << 20 : 0;
}

static void see_slurm(thaw_memory_left *left, const char *root, int ranks) {
    const char *cores = getenv("SLURM_CPUS_ON_NODE");
    uint64_t given = megabytes("SLURM_MEM_PER_NODE");
    if (!given && cores)
        given = megabytes("SLURM_MEM_PER_CPU") * strtoull(cores, NULL, 10);
    if (!given)
        return;
    uint64_t used = thaw_resident_bytes(root).now * (uint64_t)ranks;
    take_least(left, given > used ? given - used : 0, "memory given by SLURM");
}

thaw_memory_left thaw_memory_left_of(const char *root, int ranks) {
    thaw_memory_left left = {0};
    char *machine = text_of(root, "/proc", "meminfo");
    uint64_t available = machine ? number_after(machine, "MemAvailable:") << 10 : 0;
    thaw_free(machine);
    if (available)
        take_least(&left, available, "memory of the host");
    see_cgroups(see_memory, &left, root, "memory");
    see_slurm(&left, root, ranks);
    if (!left.what)
        left.what = "memory of the host";
    return left;
}

/* Processor time that a group may take, in cores: "150000 100000" in cpu.max are one and a half. */
static void see_quota(void *found, const char *root, const char *folder, bool second) {
    double *least = found;
    char *quota = text_of(root, folder, second ? "cpu.max" : "cpu.cfs_quota_us");
    char *period = second ? NULL : text_of(root, folder, "cpu.cfs_period_us");
    if (quota && *quota >= '0' && *quota <= '9') { /* "max", "-1": none */
        char *rest;
        const double time = strtod(quota, &rest), of = strtod(period ? period : rest, NULL);
        if (time > 0.0 && of > 0.0 && (*least <= 0.0 || time / of < *least))
            *least = time / of;
    }
    thaw_free(quota);
    thaw_free(period);
}

double thaw_cores_allowed(const char *root) {
    double least = 0.0;
    see_cgroups(see_quota, &least, root, "cpu");
    return least;
}

thaw_resident thaw_resident_bytes(const char *root) {
    char *status = text_of(root, "/proc/self", "status");
    thaw_resident resident = {0};
    if (status)
        resident = (thaw_resident){number_after(status, "VmRSS:") << 10, number_after(status, "VmHWM:") << 10,
                                   number_after(status, "RssShmem:") << 10};
    thaw_free(status);
    return resident;
}
