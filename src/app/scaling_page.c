/* scaling.html: one file, drawings as SVG inside, nothing loaded from elsewhere. */
#include <math.h>

#include "base/threads.h"
#include "scaling.h"

enum { WIDTH = 460, HEIGHT = 300, LEFT = 56, RIGHT = 16, TOP = 16, BOTTOM = 44 };

static const char *const colours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf"};

static const char *colour_of(int plan) { return colours[(size_t)plan % (sizeof colours / sizeof *colours)]; }

static void put_escaped(thaw_buffer *text, const char *words) {
    for (; *words; words++)
        switch (*words) {
        case '<': thaw_buffer_printf(text, "&lt;"); break;
        case '>': thaw_buffer_printf(text, "&gt;"); break;
        case '&': thaw_buffer_printf(text, "&amp;"); break;
        case '"': thaw_buffer_printf(text, "&quot;"); break;
        default: thaw_buffer_put(text, words, 1);
        }
}

/* What is drawn over the ranks. */
typedef enum figure { RATE, EFFICIENCY, WAIT } figure;

static double value_of(const thaw_scaling_point *p, figure what, bool predicted) {
    switch (what) {
    case RATE: return predicted ? (double)p->images / p->forecast.seconds : thaw_scaling_rate(p);
    case EFFICIENCY: return 100.0 * (predicted ? p->forecast_efficiency : p->efficiency);
    default: return 100.0 * (predicted ? p->forecast.wait / p->forecast.seconds : thaw_scaling_wait_share(p));
    }
}

/* The next of 1, 2, 5, 10, ... that is not below `value`. */
static double round_up(double value) {
    const double unit = pow(10.0, floor(log10(value > 1e-12 ? value : 1e-12)));
    const double m = value / unit;
    return unit * (m <= 1.0 ? 1.0 : m <= 2.0 ? 2.0 : m <= 5.0 ? 5.0 : 10.0);
}

/* Ranks have a logarithmic axis, values a linear one from 0. */
typedef struct axes {
    double most_ranks, most;
} axes;

static double x_of(const axes *a, double ranks) {
    const double whole = a->most_ranks > 1.0 ? log2(a->most_ranks) : 1.0;
    return LEFT + (WIDTH - LEFT - RIGHT) * log2(ranks) / whole;
}

static double y_of(const axes *a, double value) { return TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / a->most); }

static void put_axes(thaw_buffer *text, const axes *a, const thaw_scaling *s, const char *label) {
    const int bottom = HEIGHT - BOTTOM;
    for (int i = 0; i <= 5; i++) {
        const double value = a->most * i / 5.0, y = y_of(a, value);
        thaw_buffer_printf(text, "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>", LEFT, y, WIDTH - RIGHT);
        thaw_buffer_printf(text, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", LEFT - 6, y + 4.0, value);
    }
    for (int w = 0; w < s->n_worlds; w++)
        thaw_buffer_printf(text, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n", x_of(a, s->counts[w]),
                           bottom + 16, s->counts[w]);
    thaw_buffer_printf(text, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">ranks</text>\n", (LEFT + WIDTH - RIGHT) / 2,
                       HEIGHT - 8);
    thaw_buffer_printf(text, "<text x=\"12\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 12 %d)\">%s</text>\n",
                       bottom / 2, bottom / 2, label);
}

static void put_line(thaw_buffer *text, const axes *a, const thaw_scaling *s, int plan, thaw_scaling_kind kind, figure what,
                     bool predicted) {
    bool first = true;
    thaw_buffer_printf(text, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s d=\"", colour_of(plan),
                       predicted ? " stroke-dasharray=\"5 4\"" : "");
    for (int i = 0; i < s->n_points; i++) {
        const thaw_scaling_point *p = &s->points[i];
        if (p->plan != plan || p->kind != kind)
            continue;
        thaw_buffer_printf(text, "%s%.1f %.1f", first ? "M" : " L", x_of(a, p->ranks), y_of(a, value_of(p, what, predicted)));
        first = false;
    }
    thaw_buffer_printf(text, "\"/>\n");
    for (int i = 0; i < s->n_points && !predicted; i++) {
        const thaw_scaling_point *p = &s->points[i];
        if (p->plan == plan && p->kind == kind)
            thaw_buffer_printf(text, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x_of(a, p->ranks),
                               y_of(a, value_of(p, what, false)), colour_of(plan));
    }
}

static void put_drawing(thaw_buffer *text, const thaw_scaling *s, thaw_scaling_kind kind, figure what) {
    static const char *const labels[] = {"images/s", "efficiency in %", "waiting in % of a step"};
    axes a = {s->counts[s->n_worlds - 1], what == EFFICIENCY ? 100.0 : 1.0};
    for (int i = 0; i < s->n_points; i++)
        for (int predicted = 0; predicted <= (s->has_network ? 1 : 0) && s->points[i].kind == kind; predicted++)
            a.most = fmax(a.most, value_of(&s->points[i], what, predicted));
    a.most = round_up(a.most);
    thaw_buffer_printf(text, "<svg width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-size=\"12\">\n", WIDTH, HEIGHT, WIDTH,
                       HEIGHT);
    put_axes(text, &a, s, labels[what]);
    for (int plan = 0; plan < s->n_plans; plan++)
        for (int predicted = 0; predicted <= (s->has_network ? 1 : 0); predicted++)
            put_line(text, &a, s, plan, kind, what, predicted);
    thaw_buffer_printf(text, "</svg>\n");
}

static void put_rows(thaw_buffer *text, const thaw_scaling *s, thaw_scaling_kind kind) {
    thaw_words a;
    thaw_buffer_printf(text, "<table><tr><th>plan<th>ranks<th>hosts<th>images a step<th>ms a step<th>images/s<th>efficiency %%"
                             "<th>exchanged a step<th>waiting %%<th>hidden %%%s</tr>\n",
                       s->has_network ? "<th>predicted images/s<th>predicted efficiency %" : "");
    for (int i = 0; i < s->n_points; i++) {
        const thaw_scaling_point *p = &s->points[i];
        if (p->kind != kind)
            continue;
        thaw_buffer_printf(text, "<tr><td>");
        put_escaped(text, s->plans[p->plan].name);
        thaw_buffer_printf(text, "<td>%d<td>%d<td>%lld<td>%.2f<td>%.2f<td>%.1f<td>%s<td>%.1f<td>", p->ranks, p->hosts,
                           (long long)p->images, 1e3 * p->step.median, thaw_scaling_rate(p), 100.0 * p->efficiency,
                           thaw_megabytes(&a, p->handed), 100.0 * thaw_scaling_wait_share(p));
        if (p->ranks > 1)
            thaw_buffer_printf(text, "%.1f", 100.0 * p->hidden);
        if (s->has_network)
            thaw_buffer_printf(text, "<td>%.2f<td>%.1f", (double)p->images / p->forecast.seconds,
                               100.0 * p->forecast_efficiency);
        thaw_buffer_printf(text, "</tr>\n");
    }
    thaw_buffer_printf(text, "</table>\n");
}

void thaw_scaling_page(thaw_buffer *text, const thaw_scaling *s, const char *scene) {
    thaw_words a, b;
    thaw_buffer_printf(text, "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>thaw: scaling</title>\n<style>"
                             "body{font:15px sans-serif;max-width:1000px;margin:2em auto}table{border-collapse:collapse}"
                             "td,th{padding:3px 9px;border-bottom:1px solid #ccc;text-align:right}"
                             "td:first-child,th:first-child{text-align:left}</style>\n<h1>Scaling of ");
    put_escaped(text, s->name);
    thaw_buffer_printf(text, "</h1>\n<p>Input %s, %d thread%s a rank, median of %lld steps, on ",
                       thaw_shape_words(&a, &s->model->nodes[s->model->input].shape), thaw_threads(),
                       thaw_threads() == 1 ? "" : "s", (long long)s->repeat);
    put_escaped(text, scene);
    thaw_buffer_printf(text, ", thaw %s; ", THAW_VERSION);
    put_escaped(text, thaw_comm_library(s->app->comm));
    thaw_buffer_printf(text, ".</p>\n<ul>\n");
    for (int i = 0; i < s->n_plans; i++) {
        const thaw_scaling_plan *plan = &s->plans[i];
        thaw_buffer_printf(text, "<li><b style=\"color:%s\">", colour_of(i));
        put_escaped(text, plan->name);
        thaw_buffer_printf(text, "</b>: ");
        put_escaped(text, plan->frozen);
        thaw_buffer_printf(text, "; %s parameters train, %s of gradients a step</li>\n",
                           thaw_commas(&a, plan->trainable_params), thaw_megabytes(&b, (double)plan->gradient_bytes));
    }
    thaw_buffer_printf(text, "</ul>\n");
    if (s->has_network)
        thaw_buffer_printf(text, "<p>Dashed: predicted from one rank's figures for a network of %g s latency and %g bytes/s."
                                 "</p>\n", s->network.latency, s->network.bandwidth);
    for (int kind = 0; kind < 2; kind++) {
        if (!s->kinds[kind])
            continue;
        thaw_buffer_printf(text, "<h2>%s scaling: %lld images %s</h2>\n", kind == THAW_WEAK ? "Weak" : "Strong",
                           (long long)(kind == THAW_WEAK ? s->batch : s->global_batch),
                           kind == THAW_WEAK ? "on each rank" : "over all ranks");
        put_drawing(text, s, (thaw_scaling_kind)kind, RATE);
        put_drawing(text, s, (thaw_scaling_kind)kind, EFFICIENCY);
        put_drawing(text, s, (thaw_scaling_kind)kind, WAIT);
        put_rows(text, s, (thaw_scaling_kind)kind);
    }
    thaw_buffer_printf(text, "<p>Efficiency: images/s of a rank over those of one rank alone. Waiting: for sums of gradients "
                             "from other ranks. Hidden: share of the gradients that were summed before they were waited for. "
                             "Random weights and images, no cache.</p>\n</html>\n");
}
