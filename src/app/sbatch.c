/* thaw plan --sbatch: what the plan says, as lines for the head of a SLURM script. What nobody knows stands there too, behind
 * a second # that makes SLURM skip it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "base/io.h"
#include "base/memory.h"

/* Neither the plan's bytes nor its seconds are exact, and a job that asks for too little is killed. */
#define MORE 1.25
#define START_SECONDS 300.0 /* start of the ranks, index of the images, reading of weights from a shared disk */

/* 0: not given. */
typedef struct wish {
    int64_t ranks, per_node, cores;
} wish;

/* -1: there is none. Integers stand in the plan as raw text (thaw_json_int). */
static double number_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (cJSON_IsRaw(item))
        return strtod(item->valuestring, NULL);
    return cJSON_IsNumber(item) ? item->valuedouble : -1.0;
}

/* Bytes that this process holds now: program, libraries and buffers of MPI, without a network. 0: the system does not say. */
static double program_bytes(void) {
    void *text = NULL;
    size_t size;
    double bytes = 0.0;
    if (thaw_io_read(&text, &size, "/proc/self/status", 1 << 20) != THAW_OK)
        return 0.0;
    const char *line = strstr(text, "VmRSS:");
    if (line)
        bytes = strtod(line + strlen("VmRSS:"), NULL) * 1024.0;
    thaw_free(text);
    return bytes;
}

/* The stage that needs most memory on a rank, and how much. */
static double largest_stage(const cJSON *stages, const char **name) {
    double most = 0.0;
    const cJSON *stage;
    cJSON_ArrayForEach(stage, stages) {
        const cJSON *memory = cJSON_GetObjectItemCaseSensitive(stage, "memory");
        double bytes = number_of(stage, "memory_bytes_per_rank");
        if (number_of(memory, "program") < 0.0)
            bytes += program_bytes();
        if (bytes > most) {
            most = bytes;
            *name = cJSON_GetObjectItemCaseSensitive(stage, "name")->valuestring;
        }
    }
    return most;
}

/* Seconds of all stages with all their epochs; -1: one of them is not known. */
static double all_seconds(const cJSON *stages) {
    double sum = 0.0;
    const cJSON *stage;
    cJSON_ArrayForEach(stage, stages) {
        const double whole = number_of(stage, "seconds"), epoch = number_of(stage, "seconds_per_epoch");
        if (whole < 0.0 && epoch < 0.0)
            return -1.0;
        sum += whole >= 0.0 ? whole : epoch * number_of(stage, "epochs");
    }
    return sum;
}

static void put_places(thaw_buffer *text, const wish *w) {
    if (w->per_node)
        thaw_buffer_printf(text, "#SBATCH --nodes=%lld\n", (long long)((w->ranks + w->per_node - 1) / w->per_node));
    else
        thaw_buffer_printf(text, "##SBATCH --nodes=N                # not known without --ranks-per-node\n");
    thaw_buffer_printf(text, "#SBATCH --ntasks=%lld\n", (long long)w->ranks);
    if (w->per_node)
        thaw_buffer_printf(text, "#SBATCH --ntasks-per-node=%lld\n",
                           (long long)(w->per_node < w->ranks ? w->per_node : w->ranks));
    else
        thaw_buffer_printf(text, "##SBATCH --ntasks-per-node=N      # not known without --ranks-per-node\n");
    if (w->cores)
        thaw_buffer_printf(text, "#SBATCH --cpus-per-task=%lld\n", (long long)w->cores);
    else
        thaw_buffer_printf(text, "##SBATCH --cpus-per-task=N        # not known without --cpus-per-task\n");
}

static void put_memory(thaw_buffer *text, const wish *w, const cJSON *stages) {
    const char *stage = "";
    const double rank = largest_stage(stages, &stage) * MORE;
    const long long here = (long long)(w->per_node < w->ranks ? w->per_node : w->ranks);
    thaw_words words;
    if (w->per_node)
        thaw_buffer_printf(text, "#SBATCH --mem=%.0fM\n", ceil(rank * (double)here / 0x1p20));
    else if (w->cores)
        thaw_buffer_printf(text, "#SBATCH --mem-per-cpu=%.0fM\n", ceil(rank / (double)w->cores / 0x1p20));
    else
        thaw_buffer_printf(text, "##SBATCH --mem=N                  # not known without --ranks-per-node or --cpus-per-task\n");
    thaw_buffer_printf(text, "# memory: %s a rank (stage %s, and a quarter more). The cache of activations takes half of what is "
                             "left:\n# more memory than this may save reading and frozen layers in later epochs.\n",
                       thaw_megabytes(&words, rank), stage);
}

/* [D-]HH:MM:SS, in whole minutes. */
static void put_time(thaw_buffer *text, const cJSON *stages, const thaw_job *job) {
    const double predicted = all_seconds(stages);
    if (predicted < 0.0) {
        thaw_buffer_printf(text, "##SBATCH --time=HH:MM:SS          # not known: the plan has no seconds of an epoch here\n");
        return;
    }
    const double wanted = predicted * MORE + START_SECONDS + job->checkpoint_before_end;
    const long long minutes = (long long)ceil(wanted / 60.0), hours = minutes / 60;
    thaw_buffer_printf(text, "#SBATCH --time=");
    if (hours >= 24)
        thaw_buffer_printf(text, "%lld-", hours / 24);
    thaw_buffer_printf(text, "%02lld:%02lld:00\n", hours % 24, minutes % 60);
    thaw_buffer_printf(text, "# time: %.0f s as planned and a quarter more, %.0f s to start, checkpoint.before_end %.0f s. Early "
                             "stopping is not counted.\n", predicted, START_SECONDS, job->checkpoint_before_end);
}

thaw_status thaw_app_print_sbatch(const thaw_app *app, const cJSON *plan, const thaw_arguments *given, const thaw_job *job) {
    thaw_buffer text = {0};
    wish w = {.ranks = (int64_t)number_of(plan, "ranks")};
    const cJSON *stages = cJSON_GetObjectItemCaseSensitive(plan, "stages");
    THAW_TRY(thaw_arguments_int(&w.per_node, given, "ranks-per-node", 1, 1 << 20));
    THAW_TRY(thaw_arguments_int(&w.cores, given, "cpus-per-task", 1, 1 << 20));
    if (!stages)
        return thaw_fail(THAW_RESOURCE, "not enough memory to print the result");
    put_places(&text, &w);
    put_memory(&text, &w, stages);
    put_time(&text, stages, job);
    return thaw_app_print_buffer(app, &text);
}
