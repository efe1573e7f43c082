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

/* The data of an attribute message, if it is that of `name` and holds `bytes` bytes. */
static const unsigned char *attribute_data(const unsigned char *body, uint64_t size, const char *name, uint64_t bytes) {
    if (size < 8 || body[0] < 1 || body[0] > 3 || (body[0] > 1 && body[1] != 0)) /* flags: shared parts */
        return NULL;
    uint64_t parts[3] = {get(body + 2, 2), get(body + 4, 2), get(body + 6, 2)}, used = body[0] == 3 ? 9 : 8;
    uint64_t length = strlen(name) + 1, start = used;
    for (int i = 0; i < 3; i++)
        used += body[0] == 1 ? align8(parts[i]) : parts[i];
    if (used > size || bytes > size - used || parts[0] != length || memcmp(body + start, name, length) != 0)
        return NULL;
    return body + used;
}

const unsigned char *thaw_h5_find_references(const thaw_h5_bytes *file, uint64_t address, const char *name, size_t n,
                                             bool *newer) {
    const unsigned char *block = at(file, 0, 24), *head = at(file, address, 16);
    *newer = !block || memcmp(block, "\211HDF\r\n\032\n", 8) != 0 || block[8] > 1 || block[SUPERBLOCK_SIZES] != 8 ||
             block[SUPERBLOCK_SIZES + 1] != 8 || (head && memcmp(head, "OHDR", 4) == 0);
    if (*newer || !head || head[0] != 1 || n > file->size / REFERENCE)
        return NULL;
    struct {
        uint64_t offset, size;
    } chunks[64] = {{address + 16, get(head + 8, 4)}};
    int n_chunks = 1;
    for (int c = 0; c < n_chunks; c++) {
        const unsigned char *chunk = at(file, chunks[c].offset, chunks[c].size);
        for (uint64_t used = 0; chunk && used + 8 <= chunks[c].size;) {
            const unsigned char *message = chunk + used;
            uint64_t type = get(message, 2), size = get(message + 2, 2);
            used += 8 + size;
            if (used > chunks[c].size)
                break;
            if (type == CONTINUATION && size >= 16 && n_chunks < (int)(sizeof chunks / sizeof *chunks)) {
                chunks[n_chunks].offset = get(message + 8, 8);
                chunks[n_chunks++].size = get(message + 16, 8);
            }
            const unsigned char *data = type == ATTRIBUTE ? attribute_data(message + 8, size, name, n * REFERENCE) : NULL;
            if (data)
                return data;
        }
    }
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
