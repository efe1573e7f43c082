/* How long a step takes on any number of ranks, from what one rank computes and what a network gives. Private to src/app. */
#ifndef THAW_APP_NETWORK_H
#define THAW_APP_NETWORK_H

#include "app.h"

/* Between two ranks: alpha and 1/beta of the usual model, in which a message of M bytes takes alpha + M beta. */
typedef struct thaw_network {
    double latency;   /* seconds */
    double bandwidth; /* bytes/s, in each direction at once */
} thaw_network;

/* "2e-6,12.5e9", "2us,100Gbit", "50us,1.25GB": seconds and bytes/s; s ms us ns, and k M G before B (bytes) or bit. `what`
 * names the text. Errors: THAW_USAGE. */
thaw_status thaw_network_parse(thaw_network *out, const char *text, const char *what);

/* Seconds that a rank computes. */
typedef struct thaw_pace {
    double prefix, forward, backward; /* for an image; forward with the loss */
    double update;                    /* of a step */
    double add;                       /* of a byte of gradients onto another: summing what came from another rank */
    bool half;                        /* gradients travel as halves; seconds of coding them are not counted */
} thaw_pace;

/* pace->add of this machine. */
double thaw_pace_add(void);

typedef struct thaw_forecast {
    double seconds;  /* of a step */
    double exchange; /* of it the network would take if nothing were computed meanwhile */
    double wait;     /* of it ranks wait for others */
    double sent;     /* bytes that the busiest rank sends */
    double hidden;   /* share of the gradients that are summed before they are waited for */
} thaw_forecast;

/* A step of `images` images on each of P ranks, in the order of training without cache:
 *
 *     forward, backward (a bucket is sent as soon as its gradients are final), prefix of the next batch, wait, update
 *
 * Buckets follow each other on the wire, each by the scheme that mpi/allreduce.c takes for it. Chunks of a bucket follow
 * each other too, so that its rounds of latency are paid once. Thakur, Rabenseifner, Gropp 2005,
 * https://doi.org/10.1177/1094342005051521. Each rank has a link of its own. */
thaw_forecast thaw_forecast_step(const thaw_plan *plan, const thaw_pace *pace, double images, int64_t ranks,
                                 const thaw_network *network);
#endif
