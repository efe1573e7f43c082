/* What a stage leaves alone, in one block that many ranks may read (thaw_host_block of base/hooks.h): packed weights that no
 * update changes, tape after tape, and behind them the large frozen tensors. */
#ifndef THAW_GRAPH_CONSTANTS_H
#define THAW_GRAPH_CONSTANTS_H

#include "base/hooks.h"
#include "graph/tape.h"

/* Floats in front of the packs of a tape (0: prefix, 1: training form, 2: inference form); 3: of the tensors. */
size_t thaw_constants_begin(const thaw_plan *plan, int which);
/* The same of packs that updates change, in a block of their own. */
size_t thaw_packs_begin(const thaw_plan *plan, int which);
/* This rank is the one that fills what begins at `at`. */
bool thaw_constants_mine(const thaw_plan *plan, const thaw_host_block *constants, size_t at);
/* Frozen tensors move into the block (their data pointers are set there; this rank's part is copied, the model's own storage
 * rests), and home again. [in] model: the plan's. */
void thaw_constants_move(const thaw_plan *plan, thaw_model *model, const thaw_host_block *constants);
void thaw_constants_return(const thaw_plan *plan, thaw_model *model);
#endif
