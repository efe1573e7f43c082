/* thaw help [COMMAND|exit-codes|job] */
#include <string.h>

#include "app.h"
#include "base/memory.h"

static void put_commands(thaw_buffer *text) {
    thaw_buffer_printf(text, "thaw %s: fine-tunes pretrained convolutional networks on clusters of CPU machines\n\n"
                             "usage: thaw COMMAND ...\n\n", THAW_VERSION);
    for (int i = 0; i < thaw_n_commands; i++)
        thaw_buffer_printf(text, "  %-10s %s\n", thaw_commands[i]->name, thaw_commands[i]->summary);
    thaw_buffer_printf(text, "  %-10s %s\n", "--version", "version of thaw, its kernels and its MPI library");
    thaw_buffer_printf(text, "\nthaw help COMMAND      options of a command\nthaw help job          every key of a job file\n"
                             "thaw help exit-codes   what exit statuses mean\n\nOn several ranks: mpirun -n 4 --bind-to none "
                             "thaw train JOB.yaml\n");
}

static void put_exit_codes(thaw_buffer *text) {
#define PUT_STATUS(name, code, meaning) thaw_buffer_printf(text, "%3d  %s\n", code, meaning);
    THAW_STATUS_LIST(PUT_STATUS)
#undef PUT_STATUS
}

static thaw_status unknown_topic(const char *topic) {
    const char *names[16] = {"job", "exit-codes"};
    int n = 2;
    for (int i = 0; i < thaw_n_commands && n < 16; i++)
        names[n++] = thaw_commands[i]->name;
    const char *near = thaw_nearest(topic, names, n);
    return thaw_fail(THAW_USAGE, "help: nothing is known of '%s'%s%s; `thaw help` lists what there is", topic,
                     *near ? ", did you mean " : "", near);
}

static thaw_status run(thaw_app *app, const thaw_arguments *given) {
    const char *topic = given->n_positional ? given->positional[0] : NULL;
    const bool markdown = thaw_arguments_has(given, "markdown");
    thaw_buffer text = {0};
    if (markdown && (!topic || strcmp(topic, "job") != 0))
        return thaw_fail(THAW_USAGE, "help: --markdown goes with `thaw help job` alone");
    if (!topic) {
        put_commands(&text);
    } else if (strcmp(topic, "exit-codes") == 0) {
        put_exit_codes(&text);
    } else if (strcmp(topic, "job") == 0) {
        char *manual = thaw_job_manual(markdown);
        text.failed = !manual;
        if (manual)
            thaw_buffer_put(&text, manual, strlen(manual));
        thaw_free(manual);
    } else {
        for (int i = 0; i < thaw_n_commands; i++)
            if (strcmp(topic, thaw_commands[i]->name) == 0)
                thaw_command_help(&text, thaw_commands[i]);
        if (!text.size && !text.failed)
            return unknown_topic(topic);
    }
    return thaw_app_print_buffer(app, &text);
}

static const thaw_option options[] = {
    {"markdown", NULL, false, "with `job`: as the page jobs/README.md"},
};
const thaw_command thaw_command_usage = {
    .name = "help",
    .positional = "[COMMAND|exit-codes|job]",
    .most = 1,
    .summary = "explains commands, exit statuses and the keys of job files",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run,
};
