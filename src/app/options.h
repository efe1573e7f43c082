/* The command line: one table per command gives its parser and its help. */
#ifndef THAW_APP_OPTIONS_H
#define THAW_APP_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "thaw/status.h"

struct thaw_app;
struct thaw_arguments;

typedef struct thaw_option {
    const char *name;  /* without "--" */
    const char *value; /* what the help calls its value; NULL: a switch */
    bool repeats;      /* may be given more than once */
    const char *help;
} thaw_option;

typedef struct thaw_command {
    const char *name;
    const char *positional; /* as the help writes them: "MODEL INPUT..." */
    int least, most;        /* positional arguments; most -1: any number */
    const char *summary;    /* one line */
    const char *details;    /* further lines of the help */
    const thaw_option *options;
    int n_options;
    thaw_status (*run)(struct thaw_app *app, const struct thaw_arguments *given); /* Collective */
} thaw_command;

/* What was given to a command. All texts are borrowed from argv. */
typedef struct thaw_arguments {
    const thaw_command *command;
    int n_positional, n_given;
    const char **positional;
    const thaw_option **given; /* n_given options in order */
    const char **values;       /* their values; NULL for a switch */
    bool help;                 /* --help or -h stood among them: nothing else was checked */
} thaw_arguments;

/* Takes the words behind the command apart: options before, between or behind positional arguments, as --name=value or
 * --name value; "--" ends them. Errors: THAW_USAGE naming the nearest option. */
thaw_status thaw_arguments_parse(thaw_arguments *out, const thaw_command *command, int n_words, char **words);
void thaw_arguments_free(thaw_arguments *arguments); /* frees the contents */

bool thaw_arguments_has(const thaw_arguments *arguments, const char *name);
const char *thaw_arguments_value(const thaw_arguments *arguments, const char *name, const char *otherwise);
/* Values of an option that repeats. [out] values: thaw_free. Errors: THAW_RESOURCE. */
thaw_status thaw_arguments_values(const char ***values, int *n, const thaw_arguments *arguments, const char *name);
/* An integer in [low, high]; *out keeps its value when the option is not given. Errors: THAW_USAGE. */
thaw_status thaw_arguments_int(int64_t *out, const thaw_arguments *arguments, const char *name, int64_t low, int64_t high);
/* "1,2,4" as n integers of at least `low`. [out] numbers: thaw_free. Errors: THAW_USAGE; `what` names the text. */
thaw_status thaw_numbers_parse(int64_t **numbers, int *n, const char *text, int64_t low, int64_t high, const char *what);

/* The help page of a command. */
void thaw_command_help(thaw_buffer *text, const thaw_command *command);
#endif
