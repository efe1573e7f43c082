/* YAML as a tree in which every node knows its line: what libyaml reports, without any guess about types. */
#ifndef THAW_JOB_YAML_H
#define THAW_JOB_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "thaw/status.h"

typedef enum thaw_yaml_kind { THAW_YAML_SCALAR, THAW_YAML_LIST, THAW_YAML_MAP } thaw_yaml_kind;

typedef struct thaw_yaml_node thaw_yaml_node;
struct thaw_yaml_node {
    thaw_yaml_kind kind;
    bool plain;         /* scalar without quotes: YAML may read it as null, boolean or number */
    char *text;         /* scalar */
    int line;           /* from 1 */
    int key_line;       /* of the key that leads here, else of the node */
    const char *option; /* text of the --set option that wrote this node; NULL: the file */
    int n, capacity;    /* entries of a list or mapping */
    char **keys;        /* of a mapping */
    thaw_yaml_node **items;
};

typedef struct thaw_yaml_tree {
    char *path; /* for messages */
    thaw_yaml_node *root;
    struct thaw_yaml_chunk *chunks; /* memory of all nodes */
} thaw_yaml_tree;

/* Parses one document that is a mapping. Refuses more than 1 MiB, depth above 16, aliases, anchors, tags, duplicate
 * keys and more than one document. [out] out: freed with thaw_yaml_free. Errors: THAW_USAGE with "PATH:LINE: ". */
thaw_status thaw_yaml_parse(thaw_yaml_tree **out, const char *path, const char *text);
void thaw_yaml_free(thaw_yaml_tree *tree); /* NULL is accepted */

/* Applies one "key=value" option: dotted key, lists by index (the index behind the last entry appends), value in YAML.
 * [in] option: borrowed by the tree. Errors: THAW_USAGE with "--set OPTION: ". */
thaw_status thaw_yaml_set(thaw_yaml_tree *tree, const char *option);

/* Entry of a mapping, NULL if there is none (or `map` is NULL or no mapping). */
const thaw_yaml_node *thaw_yaml_get(const thaw_yaml_node *map, const char *key);

/* "PATH:LINE" or "--set OPTION" of a node, in `buffer`. */
const char *thaw_yaml_where(const thaw_yaml_tree *tree, const thaw_yaml_node *node, char *buffer, size_t size);
/* Fails with THAW_USAGE and the node's place before the message. */
thaw_status thaw_yaml_fail(const thaw_yaml_tree *tree, const thaw_yaml_node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same at the line of the node's key. */
thaw_status thaw_yaml_fail_key(const thaw_yaml_tree *tree, const thaw_yaml_node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* What a message shows of a node: "'text'", "a list of 2", "a mapping", "nothing"; static per-thread buffer. */
const char *thaw_yaml_show(const thaw_yaml_node *node);

/* How YAML reads a plain scalar: null (also nothing at all), or one of its words for true (1) and false (0), else -1.
 */
bool thaw_yaml_is_null(const thaw_yaml_node *node);
int thaw_yaml_boolean(const thaw_yaml_node *node);
/* "3:5", ":-5", "::2": a slice without brackets. */
bool thaw_yaml_is_slice(const char *text);
#endif
