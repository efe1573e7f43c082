/* thaw: one program, one command a file. Every rank runs the same command and ends with the same exit status. */
#include <stdio.h>
#include <string.h>

#include "app.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernels/kernels.h"

const thaw_command *const thaw_commands[] = {&thaw_command_train, &thaw_command_evaluate, &thaw_command_predict,
                                             &thaw_command_layers, &thaw_command_plan,    &thaw_command_bench,
                                             &thaw_command_fetch, &thaw_command_usage};
const int thaw_n_commands = sizeof thaw_commands / sizeof *thaw_commands;

/* Commands of the design that this version does not have. */
static const char *const later[] = {"audit", "convert"};

static void print_log(thaw_log_level level, const char *line, void *payload) {
    (void)payload;
    fprintf(stderr, "%s%s\n", level == THAW_LOG_WARNING ? "thaw: warning: " : "", line);
}

static thaw_status unknown_command(const char *name) {
    enum { COMMANDS = sizeof thaw_commands / sizeof *thaw_commands };
    const char *names[COMMANDS + 2] = {[COMMANDS] = "--version", "--help"};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (strcmp(name, later[i]) == 0)
            return thaw_fail(THAW_USAGE, "%s is not there yet: thaw " THAW_VERSION " does not have this command; `thaw help` "
                                         "lists those that it has", name);
    for (int i = 0; i < thaw_n_commands; i++)
        names[i] = thaw_commands[i]->name;
    const char *near = thaw_nearest(name, names, COMMANDS + 2);
    return thaw_fail(THAW_USAGE, "unknown %s '%s'%s%s; `thaw help` lists the commands", *name == '-' ? "option" : "command",
                     name, *near ? ", did you mean " : "", near);
}

static thaw_status print_version(thaw_app *app) {
    thaw_buffer text = {0};
    thaw_kernels_init();
    thaw_buffer_printf(&text, "thaw %s\n%s\n%s\n", THAW_VERSION, thaw_kernels_describe(), thaw_comm_library(app->comm));
    return thaw_app_print_buffer(app, &text);
}

static thaw_status run_command(thaw_app *app, const thaw_command *command, int n_words, char **words) {
    thaw_arguments given;
    thaw_status status = thaw_arguments_parse(&given, command, n_words, words);
    if (status == THAW_OK && given.help) {
        thaw_buffer text = {0};
        thaw_command_help(&text, command);
        status = thaw_app_print_buffer(app, &text);
    } else if (status == THAW_OK) {
        status = command->run(app, &given);
    }
    thaw_arguments_free(&given);
    return status;
}

static thaw_status dispatch(thaw_app *app, int argc, char **argv) {
    /* Commands are collective: ranks with different command lines would wait for each other. */
    uint64_t hash = 0;
    for (int i = 1; i < argc; i++)
        hash = thaw_hash_text(argv[i], hash + 1);
    THAW_TRY(thaw_app_same_program(app));
    THAW_TRY(thaw_comm_same(app->comm, "the command line", hash, THAW_USAGE));
    if (argc < 2)
        return thaw_fail(THAW_USAGE, "no command is given; `thaw help` lists the commands");
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 && argc == 2)
        return print_version(app);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return run_command(app, &thaw_command_usage, argc - 2, argv + 2);
    for (int i = 0; i < thaw_n_commands; i++)
        if (strcmp(name, thaw_commands[i]->name) == 0)
            return run_command(app, thaw_commands[i], argc - 2, argv + 2);
    return unknown_command(name);
}

/* The same status everywhere. Most failures are known to all ranks already, in words that fit all; only one that a rank
 * found alone is agreed on here. Collective. */
static thaw_status settle(thaw_app *app, thaw_status status) {
    double range[2] = {(double)status, -(double)status};
    THAW_TRY(thaw_comm_max(app->comm, range, 2));
    return range[0] == -range[1] ? status : thaw_comm_agree(app->comm, status);
}

int main(int argc, char **argv) {
    thaw_app app = {0};
    thaw_memory_start();
    if (argc > 1 && strcmp(argv[1], thaw_command_train.name) == 0)
        thaw_app_catch_stop(&app); /* before MPI starts, which may take long: the signal can come at any time */
    thaw_status status = thaw_comm_init(&app.comm, &argc, &argv);
    if (status != THAW_OK) {
        fprintf(stderr, "thaw: %s\n", thaw_message());
        return (int)status;
    }
    app.root = thaw_comm_rank(app.comm) == 0;
    if (app.root)
        thaw_log_set(print_log, NULL);
    status = dispatch(&app, argc, argv);
    if (status == THAW_OK)
        status = thaw_app_flush(&app);
    status = settle(&app, status);
    if (status != THAW_OK && app.root) {
        fflush(stdout);
        fprintf(stderr, "thaw: %s\n", thaw_message());
    }
    /* The message is out before any rank ends: the launcher kills what is left when one ends with a failure. */
    thaw_comm_barrier(app.comm);
    thaw_log_set(NULL, NULL);
    thaw_comm_finalize(app.comm);
    return (int)status;
}
