/* What the commands share: ranks, output, models and jobs from the command line. Private to src/app. */
#ifndef THAW_APP_H
#define THAW_APP_H

#include <cjson/cJSON.h>
#include <signal.h>
#include <stdbool.h>

#include "base/text.h"
#include "job/job.h"
#include "options.h"
#include "thaw/comm.h"
#include "thaw/model.h"
#include "thaw/plan.h"

typedef struct thaw_app {
    thaw_comm *comm;
    bool root;                         /* rank 0: prints */
    const volatile sig_atomic_t *stop; /* SIGTERM, SIGUSR1 or SIGUSR2 arrived (train) */
    int cores;                         /* of this host that its ranks may use; set by thaw_app_threads */
} thaw_app;

/* The commands, one file each, and their table (main.c). */
extern const thaw_command thaw_command_train, thaw_command_evaluate, thaw_command_predict, thaw_command_layers,
    thaw_command_plan, thaw_command_bench, thaw_command_fetch, thaw_command_usage;
extern const thaw_command *const thaw_commands[];
extern const int thaw_n_commands;

/* ranks.c */
/* Sets this rank's threads: `wanted` if > 0, else OMP_NUM_THREADS, else its cores divided by the ranks of the host that
 * share them. `say`: one line on ranks, threads and cores, and a warning when ranks share or waste cores. Collective. */
thaw_status thaw_app_threads(thaw_app *app, int wanted, bool say);
/* From now on SIGTERM, SIGUSR1 and SIGUSR2 set *app->stop, and a closed pipe is an error of writing, not the end. */
void thaw_app_catch_stop(thaw_app *app);

/* startup.c */
/* Another version of thaw on a rank is THAW_MISMATCH. Collective. */
thaw_status thaw_app_same_program(thaw_app *app);
/* Ranks that compute with other instruction sets, algorithms or BLAS libraries are THAW_MISMATCH, said in words. After
 * thaw_app_threads. Collective. */
thaw_status thaw_app_same_kernels(thaw_app *app);
/* Warns of what will make a run slow or break it: other builds or MPI libraries on a rank, little /dev/shm, a slow or uneven
 * network, and says when one of `paths` (NULL: skipped) lies on a network file system. With one rank nothing. Collective. */
thaw_status thaw_app_look_around(thaw_app *app, const char *const *paths, int n);

/* inputs.c */
/* Reads and checks a job file: rank 0 reads, all parse. Takes the --set options of `given`. Collective. */
thaw_status thaw_app_job(thaw_job **out, thaw_app *app, const thaw_arguments *given);
/* Options of built-in networks: --no-top, --input-shape. Errors: THAW_USAGE when `model` is a file and one is given. */
thaw_status thaw_app_builtin(thaw_builtin_options *out, const thaw_arguments *given, const char *model);
/* MODEL with its weights: --weights, else a file's own, or imagenet for a built-in name. Collective. */
thaw_status thaw_app_model(thaw_model **out, thaw_app *app, const thaw_arguments *given, const char *name);
/* --conv: from here on this algorithm of convolutions, whatever THAW_CONV says. Before anything asks for kernels. Errors:
 * THAW_USAGE. */
thaw_status thaw_app_convolution(const thaw_arguments *given);
/* --freeze options (`otherwise` if there is none; NULL: the stored flags) as one flag a layer. [out] trainable: thaw_free. */
thaw_status thaw_app_freeze(bool **trainable, const thaw_arguments *given, const thaw_model *model, const char *otherwise);

#define THAW_OPTION_NO_TOP {"no-top", NULL, false, "built-in network without its classifier (include_top: false)"}
#define THAW_OPTION_INPUT_SHAPE {"input-shape", "H,W,C", false, "input of a built-in network (default: its own, e.g. 224,224,3)"}
#define THAW_OPTION_WEIGHTS                                                                                         \
    {"weights", "WEIGHTS", false, "imagenet, none (random) or a file (default: a file's own; imagenet for a name)"}
#define THAW_OPTION_PREPROCESS                                                                                     \
    {"preprocess", "P", false, "auto, caffe, tf, torch, rescale or none, as data.preprocess of a job (default: auto)"}
#define THAW_OPTION_CONV                                                                                            \
    {"conv", "ALGORITHM", false, "convolutions by auto, direct, winograd or blas (default: THAW_CONV, else auto)"}
#define THAW_OPTION_JSON {"json", NULL, false, "print one JSON object"}
#define THAW_OPTION_FREEZE                                                                                          \
    {"freeze", "SPEC", true, "freeze as in a job: before:NAME, \"[:-5]\", NAME, glob:P, class:C, all, ... (in order)"}

/* output.c: rank 0 prints, on other ranks these do nothing. */
void thaw_app_print(const thaw_app *app, const char *text);
/* Prints what the buffer or object holds and frees it. Errors: THAW_RESOURCE when it could not be completed. */
thaw_status thaw_app_print_buffer(const thaw_app *app, thaw_buffer *text);
thaw_status thaw_app_print_json(const thaw_app *app, cJSON *object);
/* Standard output is complete. Errors: THAW_IO (on rank 0). */
thaw_status thaw_app_flush(const thaw_app *app);
/* sbatch.c */
/* The #SBATCH lines for a job with the options --ranks-per-node and --cpus-per-task. [in] plan: what `thaw plan --json`
 * prints. Errors: THAW_USAGE. */
thaw_status thaw_app_print_sbatch(const thaw_app *app, const cJSON *plan, const thaw_arguments *given, const thaw_job *job);

/* output.c, continued */
/* Adds an integer with all its digits. */
void thaw_json_int(cJSON *object, const char *key, int64_t value);
/* [null, H, W, C]: the null stands for the images of a batch, as in Keras. */
cJSON *thaw_json_shape(const thaw_shape *shape);
/* "14,714,688"; "58.9 MB"; "(None, 4, 4, 512)". In the buffer that is given. */
typedef struct thaw_words {
    char text[64];
} thaw_words;
const char *thaw_commas(thaw_words *words, int64_t value);
const char *thaw_megabytes(thaw_words *words, double bytes);
const char *thaw_shape_words(thaw_words *words, const thaw_shape *shape);
/* Shape of the layer's (first) output. Borrowed from the model. */
const thaw_shape *thaw_layer_shape(const thaw_model *model, int layer);
#endif
