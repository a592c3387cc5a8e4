// What adapters (LoRA, arXiv:2106.09685) add to a linear's sums: x A B, of each row its own A and B or none. A row's
// numbers run over inputs and ranks in one order whatever rows are beside it, so they have the same bits in any batch.
#ifndef LOWRANK_H
#define LOWRANK_H

#include "rows.h"

enum { TOGETHER = 4 };  // ranks whose sums are in registers at a time
_Static_assert((int)CHUNK == (int)RANK_CHUNK, "a chunk of a row goes with a chunk of A");

// The updates of one linear of one layer for the rows at hand.
typedef struct {
    const Batch *batch;
    int layer, site;
    float *numbers;  // [rows][batch->ranks]: x A
} Added;

INLINE const LowRank *update_of(const Added *added, const Span *span) {
    return span->updates + (size_t)added->layer * SITES + added->site;
}

// Pieces of the phase that computes x A: up to RANK_BLOCK ranks of a span's rows each.
static int low_rank_pieces(const Added *added) {
    int pieces = 0;
    for (int s = 0; s < added->batch->spans; s++)
        pieces += parts(update_of(added, added->batch->span + s)->ranks, RANK_BLOCK);
    return pieces;
}

// out [ranks] = a row [width], times `factor` and `weights`, times a block of A [chunks][ranks][RANK_CHUNK].
static void low_rank_sums(const float *x, int width, float factor, const float *weights, const float *down, int ranks,
                          float *out) {
    Floats sums[RANK_BLOCK] = {{0}};
    for (int begin = 0; begin < width; begin += CHUNK, down += (size_t)ranks * CHUNK) {
        float values[CHUNK] = {0};
        scaled(x, factor, weights, begin, width - begin < CHUNK ? width - begin : CHUNK, values);
        for (int first = 0; first < ranks; first += TOGETHER) {
            Floats now[TOGETHER];
#pragma GCC unroll 4
            for (int r = 0; r < TOGETHER; r++) now[r] = sums[first + r];
            for (int j = 0; j < CHUNK; j += LANES)
#pragma GCC unroll 4
                for (int r = 0; r < TOGETHER; r++) now[r] += load(values + j) * load(down + (size_t)(first + r) * CHUNK + j);
#pragma GCC unroll 4
            for (int r = 0; r < TOGETHER; r++) sums[first + r] = now[r];
        }
    }
    for (int r = 0; r < ranks; r++) out[r] = sum_of(sums[r]);
}

// Piece `piece` of x A, for rows of x [rows][width] that are normalised where `weights` are given, as in `put_rows`.
static void put_low_rank(const Added *added, int piece, const float *x, int width, float epsilon, const float *weights) {
    const Span *span = added->batch->span;
    int blocks;
    for (; piece >= (blocks = parts(update_of(added, span)->ranks, RANK_BLOCK)); span++) piece -= blocks;
    const LowRank *update = update_of(added, span);
    int first = piece * RANK_BLOCK, ranks = update->ranks - first < RANK_BLOCK ? update->ranks - first : RANK_BLOCK;
    const float *down = update->down + (size_t)first * (size_t)(parts(width, CHUNK) * CHUNK);
    for (int row = span->first; row < span->end; row++) {
        const float *from = x + (size_t)row * width;
        low_rank_sums(from, width, norm_of(from, width, epsilon, weights), weights, down, ranks,
                      added->numbers + (size_t)row * added->batch->ranks + first);
    }
}

// sums [PANEL] += the numbers of a row [ranks] times a panel of B [ranks][PANEL].
INLINE void add_panel(const float *numbers, int ranks, const float *up, float *sums) {
    enum { VECTORS = PANEL / LANES };
    Floats more[VECTORS] = {{0}};
    for (int i = 0; i < ranks; i++, up += PANEL)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) more[v] += numbers[i] * load(up + v * LANES);
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) store(sums + v * LANES, load(sums + v * LANES) + more[v]);
}

// Adds to the outputs of `panel`, for the `count` rows from `first` on, what their adapters make of them.
static void add_low_rank(const Added *added, int panel, int first, int count, float (*sums)[PANEL]) {
    for (int s = 0; s < added->batch->spans; s++) {
        const Span *span = added->batch->span + s;
        const LowRank *update = update_of(added, span);
        int begin = span->first > first ? span->first : first, end = span->end < first + count ? span->end : first + count;
        for (int p = 0; p < update->parts && begin < end; p++) {
            const Part *part = update->part + p;
            if (panel < part->begin || panel >= part->end) continue;
            const float *up = part->up + (size_t)(panel - part->begin) * (size_t)part->ranks * PANEL;
            for (int row = begin; row < end; row++)
                add_panel(added->numbers + (size_t)row * added->batch->ranks + part->first, part->ranks, up, sums[row - first]);
        }
    }
}

#endif
