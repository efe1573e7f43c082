#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { MOST_OPTIONS = 32 };

static thaw_status no_memory(void) { return thaw_fail(THAW_RESOURCE, "not enough memory to read the command line"); }

static thaw_status unknown_option(const thaw_command *command, const char *word, size_t length) {
    char texts[MOST_OPTIONS][32];
    const char *names[MOST_OPTIONS];
    int n = 0;
    for (; n < command->n_options && n < MOST_OPTIONS; n++) {
        texts[n][0] = texts[n][1] = '-';
        strncpy(texts[n] + 2, command->options[n].name, sizeof texts[n] - 3);
        texts[n][sizeof texts[n] - 1] = 0;
        names[n] = texts[n];
    }
    char *name = thaw_strndup(word, length);
    const char *near = name ? thaw_nearest(name, names, n) : "";
    thaw_status status = thaw_fail(THAW_USAGE, "%s: unknown option %s%s%s; `thaw help %s` lists the options", command->name,
                                   name ? name : "", *near ? ", did you mean " : "", near, command->name);
    thaw_free(name);
    return status;
}

static bool is_given(const thaw_arguments *arguments, const thaw_option *option) {
    for (int i = 0; i < arguments->n_given; i++)
        if (arguments->given[i] == option)
            return true;
    return false;
}

/* One option at words[*at]; moves *at to the last word that it took. */
static thaw_status take_option(thaw_arguments *out, int n_words, char **words, int *at) {
    const thaw_command *command = out->command;
    const char *word = words[*at], *equals = strchr(word, '=');
    const size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const thaw_option *option = NULL;
    for (int i = 0; i < command->n_options && !option; i++) {
        const char *name = command->options[i].name;
        if (word[1] == '-' && length == strlen(name) + 2 && strncmp(word + 2, name, length - 2) == 0)
            option = &command->options[i];
    }
    if (!option)
        return unknown_option(command, word, length);
    if (!option->repeats && is_given(out, option))
        return thaw_fail(THAW_USAGE, "%s: --%s is given twice; give it once", command->name, option->name);
    const char *value = NULL;
    if (!option->value && equals)
        return thaw_fail(THAW_USAGE, "%s: --%s takes no value, found '%s'", command->name, option->name, equals + 1);
    if (option->value) {
        /* A word that is an option itself is no value: the value was forgotten. */
        value = equals ? equals + 1 : *at + 1 < n_words && strncmp(words[*at + 1], "--", 2) != 0 ? words[++*at] : NULL;
        if (!value || !*value)
            return thaw_fail(THAW_USAGE, "%s: --%s needs a value: --%s %s", command->name, option->name, option->name,
                             option->value);
    }
    out->given[out->n_given] = option;
    out->values[out->n_given++] = value;
    return THAW_OK;
}

static thaw_status check_number(const thaw_arguments *given) {
    const thaw_command *command = given->command;
    if (given->n_positional < command->least)
        return thaw_fail(THAW_USAGE, "%s: expected %s, found %d argument%s; see `thaw help %s`", command->name,
                         command->positional, given->n_positional, given->n_positional == 1 ? "" : "s", command->name);
    if (command->most >= 0 && given->n_positional > command->most)
        return thaw_fail(THAW_USAGE, "%s: unexpected argument '%s'; expected %s, see `thaw help %s`", command->name,
                         given->positional[command->most], *command->positional ? command->positional : "options only",
                         command->name);
    return THAW_OK;
}

thaw_status thaw_arguments_parse(thaw_arguments *out, const thaw_command *command, int n_words, char **words) {
    const size_t room = (size_t)n_words + 1;
    *out = (thaw_arguments){.command = command};
    out->positional = thaw_calloc(room, sizeof *out->positional);
    out->given = thaw_calloc(room, sizeof *out->given);
    out->values = thaw_calloc(room, sizeof *out->values);
    if (!out->positional || !out->given || !out->values)
        return no_memory();
    bool options = true;
    for (int i = 0; i < n_words; i++)
        if (strcmp(words[i], "--") == 0)
            break;
        else if (strcmp(words[i], "--help") == 0 || strcmp(words[i], "-h") == 0)
            out->help = true;
    for (int i = 0; i < n_words && !out->help; i++) {
        if (options && strcmp(words[i], "--") == 0)
            options = false;
        else if (options && words[i][0] == '-' && words[i][1])
            THAW_TRY(take_option(out, n_words, words, &i));
        else
            out->positional[out->n_positional++] = words[i];
    }
    return out->help ? THAW_OK : check_number(out);
}

void thaw_arguments_free(thaw_arguments *arguments) {
    thaw_free(arguments->positional);
    thaw_free(arguments->given);
    thaw_free(arguments->values);
    *arguments = (thaw_arguments){0};
}

bool thaw_arguments_has(const thaw_arguments *arguments, const char *name) {
    for (int i = 0; i < arguments->n_given; i++)
        if (strcmp(arguments->given[i]->name, name) == 0)
            return true;
    return false;
}

const char *thaw_arguments_value(const thaw_arguments *arguments, const char *name, const char *otherwise) {
    for (int i = 0; i < arguments->n_given; i++)
        if (strcmp(arguments->given[i]->name, name) == 0)
            return arguments->values[i];
    return otherwise;
}

thaw_status thaw_arguments_values(const char ***values, int *n, const thaw_arguments *arguments, const char *name) {
    *n = 0;
    *values = thaw_calloc((size_t)arguments->n_given + 1, sizeof **values);
    if (!*values)
        return no_memory();
    for (int i = 0; i < arguments->n_given; i++)
        if (strcmp(arguments->given[i]->name, name) == 0)
            (*values)[(*n)++] = arguments->values[i];
    return THAW_OK;
}

/* An integer that ends at *end, or false. */
static bool parse_int(int64_t *out, const char *text, char **end) {
    errno = 0;
    long long value = strtoll(text, end, 10);
    *out = value;
    return errno == 0 && *end != text && *text >= '+' && *text != ',';
}

thaw_status thaw_arguments_int(int64_t *out, const thaw_arguments *arguments, const char *name, int64_t low, int64_t high) {
    const char *text = thaw_arguments_value(arguments, name, NULL);
    if (!text)
        return THAW_OK;
    char *end;
    int64_t value;
    if (!parse_int(&value, text, &end) || *end || value < low || value > high)
        return thaw_fail(THAW_USAGE, "%s: --%s: expected an integer from %lld to %lld, found '%s'", arguments->command->name,
                         name, (long long)low, (long long)high, text);
    *out = value;
    return THAW_OK;
}

thaw_status thaw_numbers_parse(int64_t **numbers, int *n, const char *text, int64_t low, int64_t high, const char *what) {
    size_t room = 1;
    for (const char *c = text; *c; c++)
        room += *c == ',';
    *n = 0;
    *numbers = thaw_calloc(room, sizeof **numbers);
    if (!*numbers)
        return no_memory();
    for (const char *at = text;; at++) {
        char *end;
        int64_t value;
        if (!parse_int(&value, at, &end) || (*end && *end != ',') || value < low || value > high) {
            thaw_free(*numbers);
            *numbers = NULL;
            return thaw_fail(THAW_USAGE, "%s: expected integers from %lld to %lld separated by commas, found '%s'", what,
                             (long long)low, (long long)high, text);
        }
        (*numbers)[(*n)++] = value;
        at = end;
        if (!*at)
            return THAW_OK;
    }
}

void thaw_command_help(thaw_buffer *text, const thaw_command *command) {
    enum { WIDTH = 110 };
    thaw_buffer_printf(text, "usage: thaw %s%s%s", command->name, *command->positional ? " " : "", command->positional);
    size_t used = strlen("usage: thaw ") + strlen(command->name) + strlen(command->positional);
    for (int i = 0; i < command->n_options; i++) {
        const thaw_option *o = &command->options[i];
        const size_t width = strlen(" [--]...") + strlen(o->name) + (o->value ? strlen(o->value) + 1 : 0);
        if (used + width > WIDTH) { /* options go on in a new line */
            thaw_buffer_printf(text, "\n           ");
            used = strlen("           ");
        }
        used += width;
        thaw_buffer_printf(text, " [--%s%s%s]%s", o->name, o->value ? " " : "", o->value ? o->value : "",
                           o->repeats ? "..." : "");
    }
    thaw_buffer_printf(text, "\n\n%s\n", command->summary);
    if (command->n_options)
        thaw_buffer_printf(text, "\n");
    for (int i = 0; i < command->n_options; i++) {
        const thaw_option *o = &command->options[i];
        char left[64];
        int room = 22 - (int)strlen(o->name) - (o->value ? (int)strlen(o->value) + 1 : 0);
        left[0] = 0;
        if (o->value) {
            left[0] = ' ';
            strncpy(left + 1, o->value, sizeof left - 2);
            left[sizeof left - 1] = 0;
        }
        thaw_buffer_printf(text, "  --%s%s%*s %s\n", o->name, left, room > 0 ? room : 0, "", o->help);
    }
    if (command->details)
        thaw_buffer_printf(text, "\n%s\n", command->details);
}
