#include "train/update.h"

#include "base/clock.h"
#include "base/memory.h"

thaw_host_block thaw_host_block_of(const thaw_common *common) {
    return (thaw_host_block){thaw_common_block(common), {thaw_common_part(common), thaw_common_parts(common)}};
}

/* Parameters, slots and packs one behind the other. */
static thaw_status find_common(thaw_update *u, const thaw_plan *plan) {
    thaw_common *common = NULL;
    THAW_TRY(thaw_common_create(&common, u->comm, plan->memory.updated, "trained weights and optimizer state"));
    const thaw_host_block block = thaw_host_block_of(common);
    if (block.mine.parts == 1) { /* no room */
        thaw_common_free(common);
        return THAW_OK;
    }
    thaw_common_enlarge(common);
    u->common = common;
    u->mine = block.mine;
    u->parameters = block.floats;
    u->slots = u->parameters + plan->count;
    u->packs = (thaw_host_block){u->slots + plan->memory.optimizer / sizeof(float), block.mine};
    return THAW_OK;
}

thaw_status thaw_update_create(thaw_update *u, const thaw_plan *plan, thaw_comm *comm, bool share) {
    *u = (thaw_update){.comm = comm, .mine = THAW_WHOLE};
    double not = !share || plan->memory.updated == 0; /* packs, and with them this, may differ between hosts in a benchmark */
    THAW_TRY(thaw_comm_max(comm, &not, 1));
    if (not == 0.0 && thaw_comm_size(comm) > thaw_comm_hosts(comm))
        THAW_TRY(find_common(u, plan));
    if (!u->common) /* on a host with one rank, or everywhere */
        u->parameters = thaw_calloc(plan->count, sizeof *u->parameters);
    return thaw_comm_agree(comm, u->parameters ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory for %zu trained parameters",
                                                                     plan->count));
}

void thaw_update_free(thaw_update *u) {
    if (u->common)
        thaw_common_free(u->common);
    else
        thaw_free(u->parameters);
    *u = (thaw_update){0};
}

static void use(void *payload, float *sums, float *results, size_t count) {
    thaw_update *u = payload;
    const ptrdiff_t at = results - u->parameters;
    if (!thaw_optimizer_update_span(u->optimizer, u->parameters, sums - at, (size_t)at, count, u->segments, u->n_segments)) {
#pragma omp atomic write
        u->bad = true;
    }
}

thaw_status thaw_update_divide(thaw_update *u, thaw_exchange *exchange, thaw_optimizer *optimizer, const thaw_segment *segments,
                               int n_segments) {
    const thaw_job_optimizer *c = &optimizer->config;
    /* clipvalue would make weights of what is not finite, which all ranks are to see behind the last step */
    double whole = u->common || c->clipnorm > 0.0 || c->global_clipnorm > 0.0 || c->clipvalue > 0.0;
    for (int i = 0; i < n_segments; i++)
        whole += segments[i].l1 > 0.0f || segments[i].l2 > 0.0f;
    THAW_TRY(thaw_comm_max(u->comm, &whole, 1)); /* hosts with one rank have no common memory where others have */
    u->optimizer = optimizer;
    u->segments = segments;
    u->n_segments = n_segments;
    u->owned = whole == 0.0 && thaw_exchange_for_owners(exchange, u->parameters, use, u);
    return THAW_OK;
}

int64_t thaw_update_gather(const thaw_update *u, thaw_exchange *exchange) {
    for (int i = 0; u->owned && i < u->optimizer->n_slots; i++)
        thaw_exchange_gather(exchange, u->optimizer->slots[i]);
    return u->owned ? (int64_t)(u->optimizer->count * sizeof(float)) * u->optimizer->n_slots : 0;
}

/* Ranks of the host wait for each other; whether any of them brings `mine`. */
static bool meet(thaw_update *u, bool mine) {
    const double began = thaw_clock();
    const bool any = thaw_common_meet(u->common, mine);
    u->waited += thaw_clock() - began;
    return any;
}

bool thaw_update_step(thaw_update *u, thaw_engine *engine, thaw_optimizer *optimizer, float *gradients,
                      const thaw_segment *segments, int n_segments) {
    bool bad = false;
    u->waited = 0.0;
    if (u->owned) { /* all is updated */
        thaw_optimizer_stepped(optimizer);
    } else {
        thaw_optimizer_prepare(optimizer, u->parameters, gradients, segments, n_segments);
        thaw_update_begin(u);
        const bool finite = thaw_optimizer_update(optimizer, u->parameters, gradients, segments, n_segments, u->mine);
        bad = meet(u, !finite); /* packs are made of what others have updated */
    }
    thaw_engine_update_statistics(engine);
    thaw_update_end(u, engine);
    return !bad;
}

void thaw_update_begin(thaw_update *u) { meet(u, false); }

void thaw_update_end(thaw_update *u, thaw_engine *engine) {
    thaw_engine_refresh(engine);
    meet(u, false);
}
