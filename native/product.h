// Products of a block of rows with a panel of weights. A row's sums run over the inputs in one order whatever rows are
// beside it, so its result has the same bits alone and in a batch.
#ifndef PRODUCT_H
#define PRODUCT_H

#include "lowrank.h"

typedef float Sums[MOST_ROWS][PANEL];
typedef void Product(const Linear *linear, int panel, const Rows *rows, int first, Sums sums);

enum { AHEAD = 2048 };  // bytes: how far before its use a weight is asked for

#if defined(__AVX512F__)
#define STRIP_OF(M) 1
#elif LANES == 8
#define STRIP_OF(M) ((M) <= 3 ? 2 : 1)
#else
#define STRIP_OF(M) ((M) <= 3 ? 4 : 2)
#endif

// `m` rows times the panel, `strip` vectors of words at a time: 2 x m x strip vectors of sums are in registers.
INLINE void exact_sums(const int m, const int strip, const uint32_t *weights, int width, const float *x, Sums sums) {
    for (int part = 0; part < PANEL / 2; part += strip * LANES) {
        Floats low[BLOCK_ROWS * 4] = {{0}}, high[BLOCK_ROWS * 4] = {{0}};
        const uint32_t *from = weights + part;
        const float *numbers = x;
        for (int i = 0; i < width; i++, from += PANEL / 2, numbers += m) {
            __builtin_prefetch((const char *)from + AHEAD);
#pragma GCC unroll 4
            for (int s = 0; s < strip; s++) {
                Words pairs = *(const Words *)(from + s * LANES);
                Floats first = (Floats)(pairs << 16), second = (Floats)(pairs & 0xffff0000u);
#pragma GCC unroll 14
                for (int r = 0; r < m; r++) {
                    low[r * strip + s] += first * numbers[r];
                    high[r * strip + s] += second * numbers[r];
                }
            }
        }
#pragma GCC unroll 14
        for (int r = 0; r < m; r++)
#pragma GCC unroll 4
            for (int s = 0; s < strip; s++) {
                store(sums[r] + part + s * LANES, low[r * strip + s]);
                store(sums[r] + PANEL / 2 + part + s * LANES, high[r * strip + s]);
            }
    }
}

// Weights have 128 added, as the instruction for bytes without a sign wants them: 128 times a row's sum is taken off.
INLINE void int8_sums(const int m, const uint8_t *weights, int fours, const int32_t *x, const int32_t *row_sums,
                      int32_t sums[][PANEL]) {
#if defined(__AVX512VNNI__)
    __m512i low[BLOCK_ROWS], high[BLOCK_ROWS];
#pragma GCC unroll 14
    for (int r = 0; r < m; r++) low[r] = high[r] = _mm512_set1_epi32(-128 * row_sums[r]);
    for (int i = 0; i < fours; i++, weights += 4 * PANEL, x += m) {
        _mm_prefetch((const char *)weights + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)weights + AHEAD + 64, _MM_HINT_T0);
        __m512i first = _mm512_loadu_si512(weights), second = _mm512_loadu_si512(weights + 64);
#pragma GCC unroll 14
        for (int r = 0; r < m; r++) {
            __m512i four = _mm512_set1_epi32(x[r]);
            low[r] = _mm512_dpbusd_epi32(low[r], first, four);
            high[r] = _mm512_dpbusd_epi32(high[r], second, four);
        }
    }
#pragma GCC unroll 14
    for (int r = 0; r < m; r++) {
        _mm512_storeu_si512(sums[r], low[r]);
        _mm512_storeu_si512(sums[r] + PANEL / 2, high[r]);
    }
#else
    for (int r = 0; r < m; r++)
        for (int j = 0; j < PANEL; j++) sums[r][j] = -128 * row_sums[r];
    for (int i = 0; i < fours; i++, weights += 4 * PANEL, x += m)
        for (int r = 0; r < m; r++) {
            int8_t four[4];
            memcpy(four, x + r, 4);
            for (int j = 0; j < PANEL; j++)
                sums[r][j] += weights[4 * j] * four[0] + weights[4 * j + 1] * four[1] + weights[4 * j + 2] * four[2] +
                              weights[4 * j + 3] * four[3];
        }
#endif
}

#define PRODUCTS(M)                                                                                                  \
    static void exact_##M(const Linear *linear, int panel, const Rows *rows, int first, Sums sums) {                 \
        const uint32_t *weights = (const uint32_t *)linear->weights + (size_t)panel * (size_t)linear->k * (PANEL / 2); \
        exact_sums(M, STRIP_OF(M), weights, linear->k, rows->exact + (size_t)first * linear->k, sums);                \
    }                                                                                                                \
    static void int8_##M(const Linear *linear, int panel, const Rows *rows, int first, Sums sums) {                  \
        int fours = parts(linear->k, 4);                                                                             \
        const uint8_t *weights = (const uint8_t *)linear->weights + (size_t)panel * (size_t)fours * 4 * PANEL;        \
        int32_t whole[BLOCK_ROWS][PANEL];                                                                            \
        int8_sums(M, weights, fours, rows->int8 + (size_t)first * fours, rows->sums + first, whole);                  \
        for (int r = 0; r < M; r++)                                                                                  \
            for (int j = 0; j < PANEL; j++) sums[r][j] = (float)whole[r][j];                                          \
    }

PRODUCTS(1) PRODUCTS(2) PRODUCTS(3) PRODUCTS(4) PRODUCTS(5) PRODUCTS(6)
#if defined(__AVX512F__)
PRODUCTS(7) PRODUCTS(8) PRODUCTS(9) PRODUCTS(10) PRODUCTS(11) PRODUCTS(12) PRODUCTS(13) PRODUCTS(14)
#define MORE(KIND) , KIND##_7, KIND##_8, KIND##_9, KIND##_10, KIND##_11, KIND##_12, KIND##_13, KIND##_14
#else
#define MORE(KIND)
#endif

static Product *const exact_products[] = {NULL, exact_1, exact_2, exact_3, exact_4, exact_5, exact_6 MORE(exact)};
static Product *const int8_products[] = {NULL, int8_1, int8_2, int8_3, int8_4, int8_5, int8_6 MORE(int8)};

#if defined(__AMX_INT8__)
// The same with tiles (Intel's Software Developer's Manual, "Advanced Matrix Extensions"): 4 and 5 hold up to 16 rows of
// activations each, 6 and 7 the halves of the panel, 0 to 3 their sums.
INLINE void tile_sums(const int both, const uint8_t *weights, const int8_t *x, int width) {
    const int8_t *more = x + (size_t)TILE_ROWS * width;
    for (int i = 0; i < width; i += TILE_BYTES, weights += TILE_BYTES * PANEL) {
        for (int line = 0; line < TILE_BYTES * PANEL; line += 64)
            _mm_prefetch((const char *)weights + 2 * AHEAD + line, _MM_HINT_T0);
        _tile_loadd(4, x + i, width);
        _tile_loadd(6, weights, 4 * PANEL);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(7, weights + 2 * PANEL, 4 * PANEL);
        _tile_dpbsud(1, 4, 7);
        if (!both) continue;
        _tile_loadd(5, more + i, width);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
}

static void int8_tiles(const Linear *linear, int panel, const Rows *rows, int first, Sums sums) {
    struct {
        uint8_t palette, start, unused[14];
        uint16_t bytes[16];
        uint8_t count[16];
    } __attribute__((aligned(64))) shape = {.palette = 1};
    int count = rows_of_block(rows, first), both = count > TILE_ROWS;
    for (int tile = 0; tile < 8; tile++) {
        int second = tile == 2 || tile == 3 || tile == 5, held = second ? count - TILE_ROWS : count;
        shape.bytes[tile] = TILE_BYTES;
        shape.count[tile] = (uint8_t)(tile > 5 || held > TILE_ROWS || held < 1 ? TILE_ROWS : held);
    }
    _tile_loadconfig(&shape);
    const uint8_t *weights = (const uint8_t *)linear->weights + (size_t)panel * (size_t)linear->k * PANEL;
    const int8_t *x = (const int8_t *)rows->int8 + (size_t)first * rows->width;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    int32_t whole[MOST_ROWS][PANEL];
    if (both)
        tile_sums(1, weights, x, rows->width);
    else
        tile_sums(0, weights, x, rows->width);
    _tile_stored(0, whole[0], sizeof *whole);
    _tile_stored(1, whole[0] + PANEL / 2, sizeof *whole);
    if (both) {
        _tile_stored(2, whole[TILE_ROWS], sizeof *whole);
        _tile_stored(3, whole[TILE_ROWS] + PANEL / 2, sizeof *whole);
    }
    for (int r = 0; r < count; r++)
        for (int j = 0; j < PANEL; j++) sums[r][j] = (float)(whole[r][j] - 128 * rows->sums[first + r]);
}
INLINE void leave_tiles(void) { _tile_release(); }  // or every switch of threads would save them
#else
#define int8_tiles int8_1  // never called: no rows are tiled
INLINE void leave_tiles(void) {}
#endif

// The outputs of `panel` for the block of rows that begins at `first`, scaled, with their bias and with what `added`, if it
// is not NULL, adds.
static void multiply(const Linear *linear, int panel, const Rows *rows, int first, const Added *added, Sums sums) {
    int count = rows_of_block(rows, first), begin = panel * PANEL;
    Product *const product = rows->tiled ? int8_tiles : (linear->kind == EXACT ? exact_products : int8_products)[count];
    product(linear, panel, rows, first, sums);
    int outputs = linear->n - begin < PANEL ? linear->n - begin : PANEL;
    for (int r = 0; r < count; r++) {
        if (linear->kind == INT8)
            for (int j = 0; j < outputs; j++) sums[r][j] *= linear->scales[begin + j] * rows->scales[first + r];
        if (linear->bias)
            for (int j = 0; j < outputs; j++) sums[r][j] += linear->bias[begin + j];
    }
    if (added) add_low_rank(added, panel, first, count, sums);
}

// Packs the rows of x [count][width], normalised where `weights` are given, and computes what `added`, if it is not NULL,
// needs of them. A phase.
static void put_rows(const Rows *rows, const Added *added, const float *x, float epsilon, const float *weights) {
    int before = added ? low_rank_pieces(added) : 0, pieces = before + put_pieces(rows);
    EACH_PIECE(piece, pieces)
    if (piece < before)
        put_low_rank(added, piece, x, rows->width, epsilon, weights);
    else
        put_piece(rows, piece - before, x, epsilon, weights);
}

// Panels taken at a time: a few that lie together, but enough pieces for everybody.
INLINE int panels_at_once(int panels) {
    int fair = panels / (4 * team_threads);
    return fair < 1 ? 1 : fair > 4 ? 4 : fair;
}

// y [rows][n] = the product of all rows, with what is added, or y += it. A phase.
static void product_of_rows(const Linear *linear, const Rows *rows, const Added *added, float *y, int adds) {
    int panels = parts(linear->n, PANEL), piece_size = panels_at_once(panels);
    EACH_PIECE(piece, parts(panels, piece_size))
    for (int panel = piece * piece_size; panel < panels && panel < (piece + 1) * piece_size; panel++) {
        int begin = panel * PANEL, outputs = linear->n - begin < PANEL ? linear->n - begin : PANEL;
        for (int first = 0; first < rows->count; first += rows->block) {
            Sums sums;
            multiply(linear, panel, rows, first, added, sums);
            for (int r = 0; r < rows_of_block(rows, first); r++) {
                float *to = y + (size_t)(first + r) * linear->n + begin;
                if (adds)
                    for (int j = 0; j < outputs; j++) to[j] += sums[r][j];
                else
                    memcpy(to, sums[r], (size_t)outputs * sizeof(float));
            }
        }
    }
}

#endif
