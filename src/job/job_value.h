/* From a YAML node to a field of the job: types, ranges, choices and paths, as the table of keys says. */
#ifndef THAW_JOB_VALUE_H
#define THAW_JOB_VALUE_H

#include "job/job.h"
#include "job/job_keys.h"
#include "job/job_yaml.h"

typedef struct thaw_job_reader {
    const thaw_yaml_tree *tree;
    thaw_job *job;
    thaw_job_stage *stage; /* NULL outside of stages */
    int stage_index;
    bool in_training; /* keys of a stage are read from their place below training: */
    char label[128];
} thaw_job_reader;

/* Name of a key as --set takes it ("stages.1.epochs"); lives in the reader. */
const char *thaw_job_label(thaw_job_reader *reader, const thaw_key *key);
/* Memory of the field that a key describes. */
void *thaw_job_field(const thaw_job *job, const thaw_job_stage *stage, const thaw_key *key);
/* Sets the field (and flag) of a key that is no mapping of keys. */
thaw_status thaw_job_set_value(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node);
/* "LABEL is X; it must be ..." for a node of the wrong type. */
thaw_status thaw_job_wrong(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node);
/* Sets job->head. */
thaw_status thaw_job_read_head(thaw_job_reader *reader, const thaw_key *key, const thaw_yaml_node *node);
/* A number in YAML's decimal form ("1e-4" and ".5" too, no octal, no infinity); false for other text. */
bool thaw_job_parse_number(double *out, const char *text);
/* The job's folder plus a path, without "." and "//" (and "a/.." with `collapse`); thaw_free, NULL without memory. */
char *thaw_job_absolute(const char *folder, const char *path, bool collapse);
thaw_status thaw_job_out_of_memory(void);
#endif
