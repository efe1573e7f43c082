/* Memory that this host still has for us: of the machine, of the control groups around this process, of SLURM's promise. */
#ifndef THAW_BASE_LIMITS_H
#define THAW_BASE_LIMITS_H
#include <stdint.h>

typedef struct thaw_memory_left {
    uint64_t bytes;   /* the least of all; 0: none, or nothing is known */
    const char *what; /* static words: "memory of the host", "memory limit of the control group", "memory given by SLURM" */
} thaw_memory_left;

/* `root`: "" or, in tests, a folder in which proc/ and sys/ lie. `ranks`: processes like this one on the host, which share
 * what SLURM gave. */
thaw_memory_left thaw_memory_left_of(const char *root, int ranks);

/* Processor time that control groups give this process and those around it, in cores; 0: as much as there is. */
double thaw_cores_allowed(const char *root);

/* Memory of this process that is in the machine's memory (libraries included); zeros where the system does not say. */
typedef struct thaw_resident {
    uint64_t now, peak; /* bytes; peak: since the start of the process */
    uint64_t common;    /* of now: memory that other processes may share */
} thaw_resident;
thaw_resident thaw_resident_bytes(const char *root); /* as above */
#endif
