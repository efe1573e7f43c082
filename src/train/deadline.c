/* The end of the allocation. Rank 0 alone decides, from what it measured: its word travels with the others in the control
 * word of a step, so all ranks stop at the same step. */
#include "base/clock.h"
#include "base/log.h"
#include "train/run.h"

void thaw_deadline_open(thaw_run *run) {
    const double margin = run->job->checkpoint_before_end, end = run->options->end_time;
    if (thaw_comm_rank(run->comm) != 0 || end <= 0.0 || margin <= 0.0)
        return;
    const double left = end - thaw_clock_unix();
    if (left <= 0.0) {
        thaw_warn("the allocation ended %.0f s ago, says SLURM_JOB_END_TIME; the run does not go by it", -left);
        return;
    }
    run->deadline.end = thaw_clock() + left - margin;
    if (left <= margin)
        thaw_warn("the allocation ends in %.0f s and checkpoint.before_end is %.0f s: the run stops behind its first step; ask "
                  "for more time or set a lower checkpoint.before_end", left, margin);
    else
        thaw_info("the allocation ends in %.0f s; the run saves and stops at least %.0f s before", left, margin);
}

/* Until the next answer can be given and acted on: this step and, behind a yes, a late rank's prefix, no longer than it. Behind
 * the last step of an epoch there is no stop before the turn to the next one is over. */
static double seconds_to_next_question(const thaw_run *run, int64_t step) {
    const thaw_deadline *d = &run->deadline;
    const int64_t steps = thaw_batches(run->train->n, run->job->batch_size);
    double turn = d->turn;
    if (turn <= 0.0 && run->validation) /* not seen yet; inference takes no longer than training */
        turn = d->step * (double)thaw_batches(run->validation->n, run->job->batch_size);
    return 2.0 * d->step + (step + 1 >= steps ? turn : 0.0);
}

bool thaw_stop_wanted(thaw_run *run, int64_t step) {
    const thaw_deadline *d = &run->deadline;
    if (run->options->stop && *run->options->stop)
        return true;
    if (d->end <= 0.0 || thaw_clock() + seconds_to_next_question(run, step) + d->save < d->end)
        return false;
    run->deadline.reached = true;
    return true;
}
