#include "kernels/patches.h"

#include <string.h>

static void copy_floats(float *to, const float *from, int64_t count) {
    if (count > 32) {
        memcpy(to, from, (size_t)count * sizeof *to);
        return;
    }
    for (; count >= 4; count -= 4, to += 4, from += 4)
        memcpy(to, from, 4 * sizeof *to);
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i];
}

static void clear_floats(float *to, int64_t count) { memset(to, 0, (size_t)count * sizeof *to); }

/* Floats [f0, f1) that patches [m0, m1) read in tap row i from source column b*sw + col on. to: rows `stride` apart. */
static void gather_run(const thaw_patches *p, const float *source, int64_t m0, int64_t m1, int64_t i, int64_t col, int64_t f0,
                       int64_t f1, float *to, int64_t stride) {
    int64_t a = m0 / p->gw, b = m0 % p->gw;
    for (int64_t m = m0; m < m1; m++, to += stride) {
        int64_t y = a * p->sh + p->r0 + i * p->dr, x = b * p->sw + col;
        if (y < 0 || y >= p->h) {
            clear_floats(to, f1 - f0);
        } else if (x * p->c + f0 >= 0 && x * p->c + f1 <= p->w * p->c) { /* all inside */
            copy_floats(to, source + (y * p->w + x) * p->c + f0, f1 - f0);
        } else {
            int64_t low = thaw_least(thaw_most(f0, -x * p->c), f1), high = thaw_most(low, thaw_least(f1, (p->w - x) * p->c));
            if (low > f0)
                clear_floats(to, low - f0);
            if (high > low)
                copy_floats(to + low - f0, source + (y * p->w + x) * p->c + low, high - low);
            if (f1 > high)
                clear_floats(to + high - f0, f1 - high);
        }
        if (++b == p->gw) {
            b = 0;
            a++;
        }
    }
}

void thaw_patches_gather(const thaw_patches *p, const float *source, int64_t m0, int64_t m1, int64_t k0, int64_t k1,
                         float *to, int64_t stride) {
    int64_t row = p->nc * p->c; /* floats of a row of taps */
    for (int64_t i = k0 / row; i * row < k1; i++) {
        int64_t f0 = thaw_most(k0 - i * row, 0), f1 = thaw_least(k1 - i * row, row);
        float *at = to + i * row + f0 - k0;
        if (p->dc == 1 || p->nc == 1) { /* neighbours in the source too */
            gather_run(p, source, m0, m1, i, p->c0, f0, f1, at, stride);
            continue;
        }
        for (int64_t j = f0 / p->c; j * p->c < f1; j++) {
            int64_t g0 = thaw_most(f0 - j * p->c, 0), g1 = thaw_least(f1 - j * p->c, p->c);
            gather_run(p, source, m0, m1, i, p->c0 + j * p->dc, g0, g1, at + j * p->c + g0 - f0, stride);
        }
    }
}

thaw_patches thaw_patches_forward(const thaw_window *s) {
    return (thaw_patches){.h = s->h, .w = s->w, .c = s->cin, .gh = s->oh, .gw = s->ow, .sh = s->sh, .sw = s->sw, .nr = s->kh,
                     .nc = s->kw, .r0 = -s->pad_top, .c0 = -s->pad_left, .dr = s->dh, .dc = s->dw};
}

static thaw_phase_taps taps_of_phase(int64_t phase, int64_t pad, int64_t taps, int64_t stride, int64_t dilation) {
    int64_t common = stride, rest = dilation; /* greatest common divisor */
    while (rest) {
        int64_t next = common % rest;
        common = rest;
        rest = next;
    }
    thaw_phase_taps t = {.step = stride / common, .move = dilation / common};
    while (t.first < taps && (phase + pad - t.first * dilation) % stride)
        t.first++;
    t.n = t.first < taps ? (taps - 1 - t.first) / t.step + 1 : 0;
    t.offset = (phase + pad - t.first * dilation) / stride;
    return t;
}

thaw_phase thaw_phase_of(const thaw_window *s, int64_t py, int64_t px) {
    thaw_phase f = {.py = py, .px = px};
    f.row = taps_of_phase(py, s->pad_top, s->kh, s->sh, s->dh);
    f.col = taps_of_phase(px, s->pad_left, s->kw, s->sw, s->dw);
    f.p = (thaw_patches){.h = s->oh, .w = s->ow, .c = s->cout, .sh = 1, .sw = 1, .nr = f.row.n, .nc = f.col.n,
                    .gh = thaw_ceil_div(s->h - py, s->sh), .gw = thaw_ceil_div(s->w - px, s->sw),
                    .r0 = f.row.offset - (f.row.n - 1) * f.row.move, .c0 = f.col.offset - (f.col.n - 1) * f.col.move,
                    .dr = f.row.move, .dc = f.col.move};
    return f;
}

const float *thaw_phase_tap(const thaw_window *s, const thaw_phase *f, const float *kernel, int64_t i, int64_t j) {
    int64_t ty = f->row.first + (f->row.n - 1 - i) * f->row.step, tx = f->col.first + (f->col.n - 1 - j) * f->col.step;
    return kernel + (ty * s->kw + tx) * s->cin * s->cout;
}

void thaw_phase_scatter(const thaw_window *s, const thaw_phase *f, int64_t m0, int64_t m1, const float *from, float *dx,
                        bool accumulate) {
    for (int64_t m = m0; m < m1; m++) {
        int64_t iy = m / f->p.gw * s->sh + f->py, ix = m % f->p.gw * s->sw + f->px;
        float *to = dx + (iy * s->w + ix) * s->cin;
        const float *row = from ? from + (m - m0) * s->cin : NULL;
        if (!row && !accumulate)
            clear_floats(to, s->cin);
        else if (row && !accumulate)
            copy_floats(to, row, s->cin);
        else if (row)
            for (int64_t i = 0; i < s->cin; i++)
                to[i] += row[i];
    }
}
