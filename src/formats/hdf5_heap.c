#include "formats/hdf5_heap.h"

#include <string.h>

enum {
    SUPERBLOCK_SIZES = 13, /* of offsets and of lengths, in superblocks of version 0 and 1 */
    ATTRIBUTE = 0x000c,
    CONTINUATION = 0x0010,
    REFERENCE = 16
};

static uint64_t get(const unsigned char *at, int bytes) { /* little-endian */
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

/* `size` bytes at `offset`; NULL if they are not all in the file. */
static const unsigned char *at(const thaw_h5_bytes *file, uint64_t offset, uint64_t size) {
    return offset <= file->size && size <= file->size - offset ? file->data + offset : NULL;
}

static uint64_t align8(uint64_t n) { return (n + 7) & ~(uint64_t)7; }

/* Messages of an object header of version 1, over all of its chunks. */
typedef struct walk {
    const thaw_h5_bytes *file;
    struct {
        uint64_t offset, size;
    } chunks[64];
    int n_chunks, chunk;
    uint64_t used; /* of the current chunk */
} walk;

/* Is the file of the older layout, as Keras' files are, with a header of version 1 at `address`? */
static bool is_old_header(const thaw_h5_bytes *file, uint64_t address) {
    const unsigned char *block = at(file, 0, 24), *head = at(file, address, 16);
    return block && memcmp(block, "\211HDF\r\n\032\n", 8) == 0 && block[8] <= 1 && block[SUPERBLOCK_SIZES] == 8 &&
           block[SUPERBLOCK_SIZES + 1] == 8 && head && head[0] == 1;
}

static walk start_walk(const thaw_h5_bytes *file, uint64_t address) {
    return (walk){.file = file, .chunks = {{address + 16, get(at(file, address, 16) + 8, 4)}}, .n_chunks = 1};
}

static const unsigned char *next_message(walk *w, uint64_t *type, uint64_t *size) {
    for (; w->chunk < w->n_chunks; w->chunk++, w->used = 0) {
        uint64_t all = w->chunks[w->chunk].size;
        const unsigned char *chunk = at(w->file, w->chunks[w->chunk].offset, all);
        if (!chunk || w->used + 8 > all)
            continue;
        const unsigned char *message = chunk + w->used;
        *type = get(message, 2);
        *size = get(message + 2, 2);
        w->used += 8 + *size;
        if (w->used > all)
            continue;
        if (*type == CONTINUATION && *size >= 16 && w->n_chunks < (int)(sizeof w->chunks / sizeof *w->chunks)) {
            w->chunks[w->n_chunks].offset = get(message + 8, 8);
            w->chunks[w->n_chunks++].size = get(message + 16, 8);
        }
        return message + 8;
    }
    return NULL;
}

/* An attribute message: where name, datatype, dataspace and data stand. */
typedef struct attribute {
    const unsigned char *name, *type, *space, *data;
    uint64_t name_size, type_size, space_size, data_size; /* data: what is left of the message */
    bool shared; /* type or space stand elsewhere */
} attribute;

static bool split_attribute(attribute *a, const unsigned char *body, uint64_t size) {
    if (size < 9 || body[0] < 1 || body[0] > 3)
        return false;
    uint64_t used = body[0] == 3 ? 9 : 8;
    bool pads = body[0] == 1;
    *a = (attribute){.name_size = get(body + 2, 2), .type_size = get(body + 4, 2), .space_size = get(body + 6, 2),
                     .shared = body[0] > 1 && body[1] != 0};
    a->name = body + used;
    used += pads ? align8(a->name_size) : a->name_size;
    a->type = body + used;
    used += pads ? align8(a->type_size) : a->type_size;
    a->space = body + used;
    used += pads ? align8(a->space_size) : a->space_size;
    a->data = body + used;
    a->data_size = used <= size ? size - used : 0;
    return used <= size && a->name_size > 0 && a->name[a->name_size - 1] == 0;
}

/* Does the message hold as much data as its type and space declare? HDF5 1.10 copies without asking. */
static bool holds_data(const attribute *a) {
    if (a->shared)
        return true; /* user-defined types; Keras has none */
    if (a->type_size < 8 || a->space_size < 4)
        return false;
    uint64_t bytes = get(a->type + 4, 4), head = a->space[0] == 1 ? 8 : 4;
    int rank = a->space[1];
    if (a->space[0] < 1 || a->space[0] > 2 || rank > 32 || head + 8 * (uint64_t)rank > a->space_size)
        return false;
    for (int i = 0; i < rank; i++)
        if (__builtin_mul_overflow(bytes, get(a->space + head + 8 * (uint64_t)i, 8), &bytes))
            return false;
    return bytes <= a->data_size;
}

bool thaw_h5_check_header(const thaw_h5_bytes *file, uint64_t address) {
    if (!is_old_header(file, address))
        return true;
    walk w = start_walk(file, address);
    uint64_t type, size;
    attribute a;
    for (const unsigned char *body; (body = next_message(&w, &type, &size));)
        if (type == ATTRIBUTE && !(split_attribute(&a, body, size) && holds_data(&a)))
            return false;
    return true;
}

const unsigned char *thaw_h5_find_references(const thaw_h5_bytes *file, uint64_t address, const char *name, size_t n,
                                             bool *newer) {
    *newer = !is_old_header(file, address);
    if (*newer)
        return NULL;
    walk w = start_walk(file, address);
    uint64_t type, size, length = strlen(name) + 1;
    attribute a;
    for (const unsigned char *body; (body = next_message(&w, &type, &size));)
        if (type == ATTRIBUTE && split_attribute(&a, body, size) && a.name_size == length &&
            memcmp(a.name, name, length) == 0 && a.data_size / REFERENCE >= n)
            return a.data;
    return NULL;
}

const char *thaw_h5_follow_reference(const thaw_h5_bytes *file, const unsigned char *reference, size_t *length) {
    uint64_t bytes = get(reference, 4), address = get(reference + 4, 8), index = get(reference + 12, 4);
    *length = 0;
    if (bytes == 0)
        return "";
    const unsigned char *head = at(file, address, 16);
    if (!head || memcmp(head, "GCOL\1", 5) != 0)
        return NULL;
    uint64_t size = get(head + 8, 8);
    const unsigned char *heap = at(file, address, size);
    for (uint64_t used = 16; heap && used + 16 <= size;) {
        const unsigned char *object = heap + used;
        uint64_t own = get(object, 2), held = get(object + 8, 8);
        if (own == 0 || held > size - used - 16) /* 0: the free space behind the last one */
            return NULL;
        if (own == index) {
            *length = (size_t)(held < bytes ? held : bytes);
            return (const char *)object + 16;
        }
        used += 16 + align8(held);
    }
    return NULL;
}
