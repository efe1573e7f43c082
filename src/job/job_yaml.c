/* libyaml events to a tree. Limits guard against files made to exhaust memory: no aliases, bounded size and depth. */
#include "job/job_yaml.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <yaml.h>

#include "base/memory.h"

enum {
    MAX_BYTES = 1 << 20,
    MAX_DEPTH = 16,
    MAX_KEYS = 4096, /* of one mapping: the search for duplicates is quadratic */
    CHUNK = 1 << 14
};

typedef struct thaw_yaml_chunk {
    struct thaw_yaml_chunk *next;
    size_t used, capacity;
    max_align_t data[];
} thaw_yaml_chunk;

typedef struct reader {
    thaw_yaml_tree *tree;
    yaml_parser_t parser;
    const char *text;
    const char *option; /* --set text, NULL for the file */
} reader;

static thaw_status out_of_memory(void) {
    return thaw_fail(THAW_RESOURCE, "out of memory while reading the job file");
}

static void *tree_alloc(thaw_yaml_tree *tree, size_t bytes) {
    bytes = (bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    thaw_yaml_chunk *chunk = tree->chunks;
    if (chunk == NULL || chunk->capacity - chunk->used < bytes) {
        size_t capacity = bytes > CHUNK ? bytes : CHUNK;
        chunk = thaw_malloc(sizeof(*chunk) + capacity);
        if (chunk == NULL)
            return NULL;
        chunk->capacity = capacity;
        chunk->next = tree->chunks;
        tree->chunks = chunk;
    }
    void *result = (char *)chunk->data + chunk->used;
    chunk->used += bytes;
    return result;
}

static char *tree_text(thaw_yaml_tree *tree, const char *text, size_t length) {
    char *copy = tree_alloc(tree, length + 1);
    if (copy != NULL)
        memcpy(copy, text, length); /* chunks are zeroed: the end is there */
    return copy;
}

static thaw_yaml_node *node_new(thaw_yaml_tree *tree, thaw_yaml_kind kind, int line, const char *option) {
    thaw_yaml_node *node = tree_alloc(tree, sizeof(*node));
    if (node != NULL) {
        node->kind = kind;
        node->line = line;
        node->key_line = line;
        node->option = option;
    }
    return node;
}

/* Appends an entry; key is NULL for lists. */
static bool node_add(thaw_yaml_tree *tree, thaw_yaml_node *node, char *key, thaw_yaml_node *item) {
    if (node->n == node->capacity) {
        int capacity = node->capacity > 0 ? 2 * node->capacity : 4;
        thaw_yaml_node **items = tree_alloc(tree, (size_t)capacity * sizeof(*items));
        char **keys = tree_alloc(tree, (size_t)capacity * sizeof(*keys));
        if (items == NULL || keys == NULL)
            return false;
        if (node->n > 0) {
            memcpy(items, node->items, (size_t)node->n * sizeof(*items));
            memcpy(keys, node->keys, (size_t)node->n * sizeof(*keys));
        }
        node->items = items;
        node->keys = keys;
        node->capacity = capacity;
    }
    node->keys[node->n] = key;
    node->items[node->n] = item;
    node->n++;
    return true;
}

/* A message is one line, whatever a file holds. */
static void one_line(char *text) {
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = ' ';
}

static thaw_status reader_fail(const reader *r, size_t line, const char *what) {
    char problem[512];
    snprintf(problem, sizeof(problem), "%s", what);
    one_line(problem);
    if (r->option != NULL)
        return thaw_fail(THAW_USAGE, "--set %s: %s", r->option, problem);
    return thaw_fail(THAW_USAGE, "%s:%zu: %s", r->tree->path, line, problem);
}

/* Finds "[0:15]" in a line of text that libyaml refused; copies it without spaces. */
static bool find_slice(const char *line, size_t length, char *slice, size_t size) {
    for (size_t i = 0; i < length; i++) {
        if (line[i] != '[')
            continue;
        size_t n = 0;
        bool colon = false;
        for (size_t j = i; j < length && n + 1 < size; j++) {
            if (line[j] == ' ')
                continue;
            if (j > i && strchr("0123456789:-]", line[j]) == NULL)
                break;
            colon = colon || line[j] == ':';
            slice[n++] = line[j];
            if (line[j] == ']') {
                slice[n] = '\0';
                if (colon)
                    return true;
                break;
            }
        }
    }
    return false;
}

/* libyaml's own words plus the fix for what people really meet. */
static thaw_status syntax_error(const reader *r) {
    const yaml_parser_t *parser = &r->parser;
    if (parser->error == YAML_MEMORY_ERROR)
        return out_of_memory();
    const char *problem = parser->problem != NULL ? parser->problem : "cannot be read";
    size_t line = parser->problem_mark.line + 1;
    if (parser->error == YAML_READER_ERROR) { /* has an offset and no mark */
        line = 1;
        for (size_t i = 0; i < parser->problem_offset && r->text[i] != '\0'; i++)
            line += r->text[i] == '\n';
    }
    const char *start = r->text;
    for (size_t i = 1; i < line; i++) {
        const char *next = strchr(start, '\n');
        if (next == NULL)
            break;
        start = next + 1;
    }
    size_t length = strcspn(start, "\n");
    size_t indent = strspn(start, " \t");
    char slice[64], hint[160] = "";
    if (memchr(start, '\t', indent) != NULL)
        snprintf(hint, sizeof(hint), "; indent with spaces, not with tabs");
    else if (find_slice(start, length, slice, sizeof(slice)))
        snprintf(hint, sizeof(hint), "; a slice must be quoted: \"%s\"", slice);
    else if (strstr(problem, "mapping values are not allowed") != NULL)
        snprintf(hint, sizeof(hint),
                 "; if the value itself contains ': ', put it in quotes, else check the indentation");
    else if (strstr(problem, "cannot start any token") != NULL)
        snprintf(hint, sizeof(hint), "; put a value that begins with a special character in quotes");
    else if (parser->error == YAML_READER_ERROR)
        snprintf(hint, sizeof(hint), "; save the file as UTF-8 text");
    else if (memchr(start, '[', length) != NULL)
        snprintf(hint, sizeof(hint), "; close the bracket, and put patterns and slices in quotes");
    char text[512];
    snprintf(text, sizeof(text), "not valid YAML: %s%s%s%s", problem, parser->context != NULL ? " " : "",
             parser->context != NULL ? parser->context : "", hint);
    return reader_fail(r, line, text);
}

static thaw_status next_event(reader *r, yaml_event_t *event) {
    return yaml_parser_parse(&r->parser, event) ? THAW_OK : syntax_error(r);
}

static thaw_status read_node(reader *r, yaml_event_t *event, int depth, thaw_yaml_node **out);

static thaw_status read_scalar(reader *r, const yaml_event_t *event, thaw_yaml_node **out) {
    size_t line = event->start_mark.line + 1;
    const char *value = (const char *)event->data.scalar.value;
    if (event->data.scalar.anchor != NULL || event->data.scalar.tag != NULL)
        return reader_fail(r, line, "anchors (&) and tags (!) are not used in job files; put the value in quotes");
    if (memchr(value, 0, event->data.scalar.length) != NULL)
        return reader_fail(r, line, "a value contains a zero byte");
    thaw_yaml_node *node = node_new(r->tree, THAW_YAML_SCALAR, (int)line, r->option);
    if (node == NULL || (node->text = tree_text(r->tree, value, event->data.scalar.length)) == NULL)
        return out_of_memory();
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    *out = node;
    return THAW_OK;
}

/* Reads entries up to the end of a list or mapping. */
static thaw_status read_entries(reader *r, thaw_yaml_node *node, int depth) {
    bool map = node->kind == THAW_YAML_MAP;
    for (;;) {
        yaml_event_t event;
        THAW_TRY(next_event(r, &event));
        if (event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return THAW_OK;
        }
        thaw_yaml_node *key = NULL, *item = NULL;
        if (map) {
            THAW_TRY(read_node(r, &event, depth, &key));
            if (key->kind != THAW_YAML_SCALAR)
                return reader_fail(r, (size_t)key->line, "a key must be text, not a list or mapping");
            for (int i = 0; i < node->n; i++)
                if (strcmp(node->keys[i], key->text) == 0) {
                    char text[256];
                    snprintf(text, sizeof(text), "duplicate key '%.80s', first given in line %d; keep one of the two",
                             key->text, node->items[i]->key_line);
                    return reader_fail(r, (size_t)key->line, text);
                }
            if (node->n == MAX_KEYS)
                return reader_fail(r, (size_t)key->line, "more than 4096 keys in one mapping");
            THAW_TRY(next_event(r, &event));
        }
        THAW_TRY(read_node(r, &event, depth, &item));
        if (map) {
            item->key_line = key->line;
            const char *colon = strchr(key->text, ':');
            if (key->plain && colon != NULL && thaw_yaml_is_null(item)) { /* {a:1} is the key "a:1" without value */
                char text[256];
                snprintf(text, sizeof(text), "'%.80s' is read as one key without value; write a space after the colon",
                         key->text);
                return reader_fail(r, (size_t)key->line, text);
            }
        }
        if (!node_add(r->tree, node, key != NULL ? key->text : NULL, item))
            return out_of_memory();
    }
}

/* Turns an event (consumed) and what follows it into a node. */
static thaw_status read_node(reader *r, yaml_event_t *event, int depth, thaw_yaml_node **out) {
    thaw_status status = THAW_OK;
    size_t line = event->start_mark.line + 1;
    thaw_yaml_kind kind = THAW_YAML_SCALAR;
    bool decorated = false;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        status = read_scalar(r, event, out);
        break;
    case YAML_SEQUENCE_START_EVENT:
        kind = THAW_YAML_LIST;
        decorated = event->data.sequence_start.anchor != NULL || event->data.sequence_start.tag != NULL;
        break;
    case YAML_MAPPING_START_EVENT:
        kind = THAW_YAML_MAP;
        decorated = event->data.mapping_start.anchor != NULL || event->data.mapping_start.tag != NULL;
        break;
    case YAML_ALIAS_EVENT:
        status = reader_fail(r, line, "'*' begins a YAML alias, which job files do not use; put the value in quotes");
        break;
    default:
        status = thaw_fail(THAW_INTERNAL, "%s:%zu: unexpected YAML event %d", r->tree->path, line, (int)event->type);
    }
    yaml_event_delete(event);
    if (status != THAW_OK || kind == THAW_YAML_SCALAR)
        return status;
    if (decorated)
        return reader_fail(r, line, "anchors (&) and tags (!) are not used in job files; remove them");
    if (depth == MAX_DEPTH)
        return reader_fail(r, line, "lists and mappings are nested deeper than 16 levels");
    *out = node_new(r->tree, kind, (int)line, r->option);
    if (*out == NULL)
        return out_of_memory();
    return read_entries(r, *out, depth + 1);
}

/* Parses `text` as one document into *out (NULL if it is empty). */
static thaw_status read_document(thaw_yaml_tree *tree, const char *text, const char *option, thaw_yaml_node **out) {
    reader r = {.tree = tree, .text = text, .option = option};
    *out = NULL;
    if (strlen(text) > MAX_BYTES)
        return reader_fail(&r, 1, "more than 1 MiB of text: this is not a job file");
    if (!yaml_parser_initialize(&r.parser))
        return out_of_memory();
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, strlen(text));
    thaw_status status = THAW_OK;
    for (bool done = false; !done;) {
        yaml_event_t event;
        THAW_GOTO(next_event(&r, &event));
        switch (event.type) {
        case YAML_STREAM_END_EVENT:
            done = true;
            yaml_event_delete(&event);
            break;
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            yaml_event_delete(&event);
            break;
        case YAML_DOCUMENT_START_EVENT: {
            size_t line = event.start_mark.line + 1;
            yaml_event_delete(&event);
            if (*out != NULL)
                THAW_GOTO(reader_fail(&r, line, "a second document begins here (---); a job file holds one"));
            break;
        }
        default:
            THAW_GOTO(read_node(&r, &event, 0, out));
        }
    }
out:
    yaml_parser_delete(&r.parser);
    return status;
}

thaw_status thaw_yaml_parse(thaw_yaml_tree **out, const char *path, const char *text) {
    *out = NULL;
    thaw_yaml_tree *tree = thaw_malloc(sizeof(*tree));
    if (tree == NULL)
        return out_of_memory();
    thaw_status status = THAW_OK;
    tree->path = thaw_strdup(path);
    if (tree->path == NULL)
        THAW_GOTO(out_of_memory());
    THAW_GOTO(read_document(tree, text, NULL, &tree->root));
    if (tree->root == NULL)
        THAW_GOTO(thaw_fail(THAW_USAGE, "%s:1: the job file is empty; see 'thaw help job'", path));
    if (tree->root->kind != THAW_YAML_MAP)
        THAW_GOTO(thaw_yaml_fail(tree, tree->root,
                                 "the job file is %s; it must be a mapping with the keys model, data, training, stages",
                                 thaw_yaml_show(tree->root)));
    *out = tree;
    return THAW_OK;
out:
    thaw_yaml_free(tree);
    return status;
}

void thaw_yaml_free(thaw_yaml_tree *tree) {
    if (tree == NULL)
        return;
    for (thaw_yaml_chunk *chunk = tree->chunks, *next; chunk != NULL; chunk = next) {
        next = chunk->next;
        thaw_free(chunk);
    }
    thaw_free(tree->path);
    thaw_free(tree);
}

/* The key that a scalar stands for where a mapping is meant: optimizer: adam is {name: adam}. NULL: none. */
static const char *short_for(const char *name) {
    return strcmp(name, "optimizer") == 0 ? "name" : strcmp(name, "cache") == 0 ? "mode" : NULL;
}

/* Makes a scalar into the container that the next component of a --set key needs: a list for an index (the keys of
 * class_weight may be numbers too). */
static bool to_container(thaw_yaml_tree *tree, thaw_yaml_node *node, const char *name, bool index) {
    if (short_for(name) != NULL && !thaw_yaml_is_null(node) && !index) {
        thaw_yaml_node *kind = node_new(tree, THAW_YAML_SCALAR, node->line, node->option);
        char *key = tree_text(tree, short_for(name), strlen(short_for(name)));
        if (kind == NULL || key == NULL)
            return false;
        kind->text = node->text;
        kind->plain = node->plain;
        node->kind = THAW_YAML_MAP;
        return node_add(tree, node, key, kind);
    }
    node->kind = index && strcmp(name, "class_weight") != 0 ? THAW_YAML_LIST : THAW_YAML_MAP;
    return true;
}

thaw_status thaw_yaml_set(thaw_yaml_tree *tree, const char *option) {
    for (const char *c = option; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            return thaw_fail(THAW_USAGE,
                             "--set: an option has a line break or control character; write it on one line");
    const char *equals = strchr(option, '=');
    if (equals == NULL || equals == option)
        return thaw_fail(THAW_USAGE, "--set %s: expected key=value, e.g. training.batch_size=16", option);
    for (const char *c = option; c < equals; c++)
        if (*c <= ' ' || *c > '~')
            return thaw_fail(THAW_USAGE, "--set %s: the key has a character that dotted keys do not have", option);
    thaw_yaml_node *value = NULL;
    THAW_TRY(read_document(tree, equals + 1, option, &value));
    if (value == NULL)
        return thaw_fail(THAW_USAGE, "--set %s: no value behind '='", option);
    thaw_yaml_node *node = tree->root;
    const char *parent = "";
    for (const char *at = option; at <= equals;) {
        size_t length = strcspn(at, ".=");
        bool last = at[length] == '=';
        char *name = tree_text(tree, at, length);
        if (name == NULL)
            return out_of_memory();
        if (length == 0)
            return thaw_fail(THAW_USAGE, "--set %s: an empty part in the dotted key", option);
        bool index = strspn(name, "0123456789") == length;
        if (node->kind == THAW_YAML_SCALAR) {
            if (!thaw_yaml_is_null(node) && short_for(parent) == NULL)
                return thaw_fail(THAW_USAGE, "--set %s: '%s' has the value %s and no key '%s' below it", option, parent,
                                 thaw_yaml_show(node), name);
            if (!to_container(tree, node, parent, index))
                return out_of_memory();
        }
        int at_entry = -1;
        if (node->kind == THAW_YAML_LIST) {
            at_entry = index && length < 6 ? atoi(name) : -1;
            if (at_entry < 0 || at_entry > node->n)
                return thaw_fail(THAW_USAGE,
                                 "--set %s: '%s' is a list of %d; its entries are numbered from 0, not '%s'", option,
                                 parent, node->n, name);
            name = NULL;
        } else {
            for (int i = 0; i < node->n; i++)
                if (strcmp(node->keys[i], name) == 0)
                    at_entry = i;
            if (at_entry < 0)
                at_entry = node->n;
        }
        if (at_entry == node->n) {
            thaw_yaml_node *fresh = node_new(tree, THAW_YAML_SCALAR, 0, option); /* null until it gets a value */
            if (fresh == NULL || (fresh->text = tree_text(tree, "", 0)) == NULL)
                return out_of_memory();
            fresh->plain = true;
            if (!node_add(tree, node, name, fresh))
                return out_of_memory();
        }
        if (last) {
            node->items[at_entry] = value;
            return THAW_OK;
        }
        parent = tree_text(tree, at, length);
        if (parent == NULL)
            return out_of_memory();
        node = node->items[at_entry];
        at += length + 1;
    }
    return THAW_OK;
}

const thaw_yaml_node *thaw_yaml_get(const thaw_yaml_node *map, const char *key) {
    if (map == NULL || map->kind != THAW_YAML_MAP)
        return NULL;
    for (int i = 0; i < map->n; i++)
        if (strcmp(map->keys[i], key) == 0)
            return map->items[i];
    return NULL;
}

static const char *where(const thaw_yaml_tree *tree, const thaw_yaml_node *node, int line, char *buffer, size_t size) {
    if (node->option != NULL)
        snprintf(buffer, size, "--set %s", node->option);
    else
        snprintf(buffer, size, "%s:%d", tree->path, line);
    return buffer;
}

const char *thaw_yaml_where(const thaw_yaml_tree *tree, const thaw_yaml_node *node, char *buffer, size_t size) {
    return where(tree, node, node->line, buffer, size);
}

static thaw_status fail_at(const thaw_yaml_tree *tree, const thaw_yaml_node *node, int line, const char *format,
                           va_list arguments) {
    char text[1024], place[512];
    vsnprintf(text, sizeof(text), format, arguments);
    one_line(text);
    return thaw_fail(THAW_USAGE, "%s: %s", where(tree, node, line, place, sizeof(place)), text);
}

thaw_status thaw_yaml_fail(const thaw_yaml_tree *tree, const thaw_yaml_node *node, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    thaw_status status = fail_at(tree, node, node->line, format, arguments);
    va_end(arguments);
    return status;
}

thaw_status thaw_yaml_fail_key(const thaw_yaml_tree *tree, const thaw_yaml_node *node, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    thaw_status status = fail_at(tree, node, node->key_line, format, arguments);
    va_end(arguments);
    return status;
}

const char *thaw_yaml_show(const thaw_yaml_node *node) {
    static _Thread_local char buffer[80];
    if (node->kind == THAW_YAML_MAP)
        return node->n > 0 ? "a mapping" : "an empty mapping";
    if (node->kind == THAW_YAML_LIST) {
        snprintf(buffer, sizeof(buffer), node->n > 0 ? "a list of %d" : "an empty list", node->n);
        return buffer;
    }
    if (thaw_yaml_is_null(node))
        return node->text[0] == '\0' ? "nothing" : "null";
    snprintf(buffer, sizeof(buffer), node->plain ? "'%.60s'" : "the quoted text '%.50s'", node->text);
    one_line(buffer);
    return buffer;
}

bool thaw_yaml_is_null(const thaw_yaml_node *node) {
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (node->kind == THAW_YAML_SCALAR && node->plain && strcmp(node->text, words[i]) == 0)
            return true;
    return false;
}

int thaw_yaml_boolean(const thaw_yaml_node *node) {
    static const char *const words[] = {"no", "yes", "off", "on", "false", "true"};
    for (int i = 0; i < 6; i++)
        if (node->kind == THAW_YAML_SCALAR && node->plain && strcasecmp(node->text, words[i]) == 0)
            return i % 2;
    return -1;
}

bool thaw_yaml_is_slice(const char *text) {
    return text[0] != '\0' && strspn(text, "0123456789:- ") == strlen(text) && strchr(text, ':') != NULL;
}
