/* thaw train JOB.yaml */
#include <stdlib.h>

#include "app.h"
#include "base/log.h"
#include "thaw/train.h"

static void print_result(const char *text, void *payload) { thaw_app_print(payload, text); }

/* What SLURM says (its job scripts can say it where SLURM is too old to): seconds since 1970. 0: nothing is known. */
static double end_of_allocation(void) {
    const char *text = getenv("SLURM_JOB_END_TIME");
    char *rest;
    if (!text || !*text)
        return 0.0;
    const double seconds = strtod(text, &rest);
    if (*rest == 0 && seconds > 0.0 && seconds < 1e12)
        return seconds;
    thaw_warn("SLURM_JOB_END_TIME is '%s', not a time in seconds since 1970: the end of the allocation is not known", text);
    return 0.0;
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    thaw_job *job = NULL;
    THAW_TRY(thaw_app_convolution(given));
    THAW_TRY(thaw_app_job(&job, app, given));
    thaw_train_options options = {
        .resume = thaw_arguments_value(given, "resume", "auto"),
        .stop = app->stop,
        .end_time = end_of_allocation(),
        .result = print_result,
        .payload = app,
    };
    thaw_status status = thaw_comm_watch(app->comm, job->watchdog_seconds);
    if (status == THAW_OK)
        status = thaw_app_threads(app, 0, true);
    if (status == THAW_OK)
        status = thaw_app_same_kernels(app);
    const char *const paths[] = {job->train, job->train_x, job->validation, job->validation_x};
    if (status == THAW_OK)
        status = thaw_app_look_around(app, paths, sizeof paths / sizeof *paths);
    if (status == THAW_OK)
        status = thaw_train(app->comm, job, &options);
    thaw_job_free(job);
    return status;
}

static const thaw_option options[] = {
    {"set", "KEY=VALUE", true, "set a key of the job, e.g. training.batch_size=16, stages.0.epochs=3"},
    {"resume", "auto|never|PATH", false, "go on where the run folder stands (default), start over, or from a checkpoint"},
    THAW_OPTION_CONV,
};
const thaw_command thaw_command_train = {
    .name = "train",
    .positional = "JOB.yaml",
    .least = 1,
    .most = 1,
    .summary = "fine-tunes a network as a job file says; run under mpirun or srun for several ranks",
    .details = "The job's `output` folder receives history.csv, log.jsonl, checkpoints, best.h5 and model.h5 (`thaw help job`).\n"
               "SIGTERM, SIGUSR1 or SIGUSR2 to any rank writes a checkpoint and ends with status 75; the same command resumes.\n"
               "So does, in time, the end of a SLURM allocation (SLURM_JOB_END_TIME, checkpoint.before_end): see jobs/slurm.\n"
               "With Open MPI and one or two ranks, --bind-to none (or --map-by slot:PE=N) gives a rank more than one core.\n"
               "OMP_NUM_THREADS sets the threads of a rank; by default its cores are divided by the ranks that share them.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run,
};
