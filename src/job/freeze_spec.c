#include "job/freeze_spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"

#define MAX_LAYERS 1000000 /* any index beyond this is a slip of the pen */

static const char *const forms = "all, none, file, keep, before:NAME, NAME, a number, \"[a:b]\", \"model[a:b]\", "
                                 "glob:PATTERN or class:CLASS";

static thaw_status out_of_memory(void) {
    return thaw_fail(THAW_RESOURCE, "out of memory while reading a freeze spec");
}

/* Appends a selector that takes over `text` (which may be NULL). */
static thaw_status add(thaw_freeze_spec *spec, thaw_selector selector) {
    thaw_selector *selectors = thaw_realloc(spec->selectors, (size_t)(spec->n + 1) * sizeof(*selectors));
    if (selectors == NULL) {
        thaw_free(selector.text);
        return out_of_memory();
    }
    spec->selectors = selectors;
    spec->selectors[spec->n++] = selector;
    return THAW_OK;
}

static thaw_status add_text(thaw_freeze_spec *spec, thaw_selector_kind kind, const char *text, int line) {
    char *copy = thaw_strdup(text);
    if (copy == NULL)
        return out_of_memory();
    return add(spec, (thaw_selector){.kind = kind, .text = copy, .step = 1, .line = line});
}

/* A whole text as a small integer. */
static bool parse_index(int64_t *out, const char *text) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (*digits == '\0' || strspn(digits, "0123456789") != strlen(digits))
        return false;
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (errno != 0 || value > MAX_LAYERS || value < -MAX_LAYERS)
        return false;
    *out = value;
    return true;
}

static char *trim(char *text) {
    text += strspn(text, " \t");
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        text[--length] = '\0';
    return text;
}

static bool slice_like(const char *text) {
    return strspn(text, "0123456789:-+ ") == strlen(text) && strchr(text, ':') != NULL;
}

/* inner: "a:b" or "a:b:step" without the brackets; modified. */
static thaw_status add_slice(thaw_freeze_spec *spec, char *inner, bool whole, int line, const char *where,
                             const char *shown) {
    thaw_selector selector = {.kind = THAW_SELECT_SLICE, .step = 1, .whole = whole, .line = line};
    for (int part = 0; inner != NULL; part++) {
        char *next = strchr(inner, ':');
        if (next != NULL)
            *next++ = '\0';
        char *text = trim(inner);
        int64_t value = 0;
        bool given = *text != '\0';
        if (part > 2 || (given && !parse_index(&value, text)))
            return thaw_fail(THAW_USAGE, "%s: '%s' is not a slice; write \"[start:stop]\" with whole numbers", where,
                             shown);
        if (part == 0 && given) {
            selector.has_start = true;
            selector.start = value;
        } else if (part == 1 && given) {
            selector.has_stop = true;
            selector.stop = value;
        } else if (part == 2 && given) {
            if (value < 1)
                return thaw_fail(THAW_USAGE, "%s: the slice '%s' has step %lld; a step is at least 1", where, shown,
                                 (long long)value);
            selector.step = value;
        }
        inner = next;
    }
    return add(spec, selector);
}

/* inner: "a, b" without the brackets; modified. Commas inside brackets (glob:x[a,b]) do not separate. */
static thaw_status add_list(thaw_freeze_spec *spec, char *inner, int line, const char *where, const char *shown) {
    if (*trim(inner) == '\0')
        return thaw_fail(THAW_USAGE, "%s: the list '%s' is empty; write none to freeze nothing", where, shown);
    while (inner != NULL) {
        char *end = inner;
        for (int depth = 0; *end != '\0' && (*end != ',' || depth > 0); end++)
            depth += *end == '[' ? 1 : *end == ']' && depth > 0 ? -1 : 0;
        char *next = *end == ',' ? end + 1 : NULL;
        *end = '\0';
        char *item = trim(inner);
        size_t length = strlen(item);
        if (length >= 2 && (item[0] == '"' || item[0] == '\'') && item[length - 1] == item[0]) {
            item[length - 1] = '\0';
            item++;
        } else if (item[0] == '[') {
            return thaw_fail(THAW_USAGE, "%s: '%s' has a list inside a list", where, shown);
        }
        if (*item == '\0')
            return thaw_fail(THAW_USAGE, "%s: '%s' has an empty entry", where, shown);
        THAW_TRY(thaw_freeze_spec_add(spec, item, line, where));
        inner = next;
    }
    return THAW_OK;
}

static thaw_status add_brackets(thaw_freeze_spec *spec, char *text, int line, const char *where, const char *shown) {
    bool whole = *text != '[';
    size_t length = strlen(text);
    if (text[length - 1] != ']')
        return thaw_fail(THAW_USAGE, "%s: '%s' has no closing bracket", where, shown);
    text[length - 1] = '\0';
    char *inner = strchr(text, '[') + 1;
    if (slice_like(inner))
        return add_slice(spec, inner, whole, line, where, shown);
    int64_t index;
    if (!whole)
        return add_list(spec, inner, line, where, shown);
    if (!parse_index(&index, trim(inner)))
        return thaw_fail(THAW_USAGE, "%s: '%s': behind model comes a slice, e.g. \"model[:-5]\"", where, shown);
    thaw_selector one = {.kind = THAW_SELECT_SLICE,
                         .start = index,
                         .has_start = true,
                         .stop = index + 1,
                         .has_stop = index != -1,
                         .step = 1,
                         .whole = true,
                         .line = line};
    return add(spec, one);
}

static thaw_status add_trimmed(thaw_freeze_spec *spec, char *text, int line, const char *where) {
    static const struct {
        const char *word;
        thaw_selector_kind kind;
    } words[] = {{"all", THAW_SELECT_ALL},
                 {"none", THAW_SELECT_NONE},
                 {"file", THAW_SELECT_FILE},
                 {"keep", THAW_SELECT_KEEP}},
      prefixes[] = {{"before:", THAW_SELECT_BEFORE}, {"glob:", THAW_SELECT_GLOB}, {"class:", THAW_SELECT_CLASS}};
    if (*text == '\0')
        return thaw_fail(THAW_USAGE, "%s: an empty freeze selector; write %s", where, forms);
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            return thaw_fail(THAW_USAGE, "%s: a freeze selector has a line break or control character", where);
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (strcmp(text, words[i].word) == 0)
            return add(spec, (thaw_selector){.kind = words[i].kind, .step = 1, .line = line});
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
        size_t length = strlen(prefixes[i].word);
        if (strncmp(text, prefixes[i].word, length) != 0)
            continue;
        char *rest = trim(text + length);
        if (*rest == '\0')
            return thaw_fail(THAW_USAGE, "%s: nothing follows '%s'", where, prefixes[i].word);
        return add_text(spec, prefixes[i].kind, rest, line);
    }
    int64_t index;
    if (parse_index(&index, text))
        return add(spec, (thaw_selector){.kind = THAW_SELECT_INDEX, .start = index, .step = 1, .line = line});
    if (*text == '[' || strncmp(text, "model[", 6) == 0) {
        char *shown = thaw_strdup(text);
        if (shown == NULL)
            return out_of_memory();
        thaw_status status = add_brackets(spec, text, line, where, shown);
        thaw_free(shown);
        return status;
    }
    if (slice_like(text))
        return thaw_fail(THAW_USAGE, "%s: '%s' is a slice without brackets; write \"[%s]\" in quotes", where, text,
                         text);
    char *colon = strchr(text, ':');
    if (colon != NULL) {
        static const char *const names[] = {"before", "glob", "class"};
        *colon = '\0';
        const char *near = thaw_nearest(text, names, 3);
        return thaw_fail(THAW_USAGE, "%s: unknown selector '%s:'%s%s; write %s", where, text,
                         *near ? ", did you mean " : "", near, forms);
    }
    if (strpbrk(text, "*?[]") != NULL)
        return thaw_fail(THAW_USAGE, "%s: '%s' is a pattern; write \"glob:%s\" in quotes", where, text, text);
    return add_text(spec, THAW_SELECT_NAME, text, line);
}

thaw_status thaw_freeze_spec_add(thaw_freeze_spec *spec, const char *text, int line, const char *where) {
    char *copy = thaw_strdup(text);
    if (copy == NULL)
        return out_of_memory();
    thaw_status status = add_trimmed(spec, trim(copy), line, where);
    thaw_free(copy);
    return status;
}

void thaw_freeze_spec_free(thaw_freeze_spec *spec) {
    for (int i = 0; i < spec->n; i++)
        thaw_free(spec->selectors[i].text);
    thaw_free(spec->selectors);
    spec->selectors = NULL;
    spec->n = 0;
}
