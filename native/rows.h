// Activations as the products read them: rows in blocks, and in a block the numbers of one input of all rows together.
#ifndef ROWS_H
#define ROWS_H

#include "team.h"
#include "vectors.h"

// The most rows that a product can keep the sums of in registers, and in two tiles (AMX), which pay from a few rows on.
#if defined(__AVX512F__)
enum { BLOCK_ROWS = 14 };
#else
enum { BLOCK_ROWS = 6 };
#endif
enum { TILE_ROWS = 16, TILE_BYTES = 64, TILED_FROM = 5, MOST_ROWS = 2 * TILE_ROWS };
#if defined(__AMX_INT8__)
enum { HAS_TILES = 1 };
#else
enum { HAS_TILES = 0 };
#endif

typedef struct {
    int kind, count, width, block;  // `block`: rows of every block but the last
    int tiled;                      // int8: as tiles want it, [rows][width] bytes
    float *exact;                   // of each block [width][rows]
    int32_t *int8;                  // of each block [width / 4][rows], four signed bytes each
    int32_t *sums;                  // int8: of the whole numbers of each row
    float *scales;                  // int8: what one step of each row is worth
} Rows;

INLINE size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }
INLINE int parts(int whole, int part) { return (whole + part - 1) / part; }

// Blocks of about equal size: one row over would cost as much time as a block.
INLINE int block_of(int count, int most) { return parts(count, parts(count, most)); }

static size_t rows_scratch(int kind, int count, int width) {
    size_t numbers = rounded((size_t)count * (size_t)parts(width, 4) * 4 * (kind == EXACT ? 4 : 1));
    return numbers + (kind == INT8 ? 2 * rounded((size_t)count * 4) : 0);
}

static Rows rows_in(int kind, int count, int width, char *scratch) {
    int tiled = HAS_TILES && kind == INT8 && count >= TILED_FROM && width % TILE_BYTES == 0;
    Rows rows = {.kind = kind, .count = count, .width = width, .tiled = tiled};
    rows.block = block_of(count, tiled ? MOST_ROWS : BLOCK_ROWS);
    if (kind == EXACT) {
        rows.exact = (float *)scratch;
        return rows;
    }
    rows.sums = (int32_t *)scratch, scratch += rounded((size_t)count * 4);
    rows.scales = (float *)scratch, scratch += rounded((size_t)count * 4);
    rows.int8 = (int32_t *)scratch;
    return rows;
}

INLINE int rows_of_block(const Rows *rows, int first) {
    return rows->count - first < rows->block ? rows->count - first : rows->block;
}

INLINE float square_sum(const float *x, int width) {
    Floats sums = {0};
    int i = 0;
    for (; i + LANES <= width; i += LANES) sums += load(x + i) * load(x + i);
    float total = sum_of(sums);
    for (; i < width; i++) total += x[i] * x[i];
    return total;
}

enum { CHUNK = 64 };  // numbers of a row that are worked on together

// Numbers `begin` to `begin + count` of a row, times `factor` and `weights` where there are any.
INLINE void scaled(const float *x, float factor, const float *weights, int begin, int count, float *out) {
    if (weights)
        for (int j = 0; j < count; j++) out[j] = x[begin + j] * factor * weights[begin + j];
    else
        memcpy(out, x + begin, (size_t)count * sizeof(float));
}

// The bits of the largest size in a row. Sizes order as their bits do, infinities and NaN last.
static int32_t largest_bits(const float *x, int width, float factor, const float *weights) {
    int32_t top = 0, bits[CHUNK];
    float values[CHUNK];
    for (int begin = 0; begin < width; begin += CHUNK) {
        int count = width - begin < CHUNK ? width - begin : CHUNK;
        scaled(x, factor, weights, begin, count, values);
        memcpy(bits, values, sizeof bits);
        for (int j = 0; j < count; j++) {
            int32_t size = bits[j] & 0x7fffffff;
            top = size > top ? size : top;
        }
    }
    return top;
}

// Whole numbers from -127 to 127 times the row's own scale, so that no row depends on its neighbours. A row that holds
// NaN or an infinity has the scale NaN.
static void put_int8(const Rows *rows, int row, const float *x, float factor, const float *weights) {
    int first = row / rows->block * rows->block, beside = rows_of_block(rows, first), fours = parts(rows->width, 4);
    int32_t *to = rows->int8 + (size_t)first * fours + (row - first), top_bits = largest_bits(x, rows->width, factor, weights);
    int finite = top_bits < 0x7f800000, sum = 0;
    float top;
    memcpy(&top, &top_bits, 4);
    top = finite && top > 1e-30f ? top : 1e-30f;
    float inverse = finite ? 127.0f / top : 0.0f;
    for (int begin = 0; begin < rows->width; begin += CHUNK) {
        int count = rows->width - begin < CHUNK ? rows->width - begin : CHUNK;
        float values[CHUNK] = {0};
        uint32_t whole[CHUNK];
        scaled(x, factor, weights, begin, count, values);
        for (int j = 0; j < CHUNK; j++) values[j] = finite ? values[j] * inverse + 12582912.0f : 12582912.0f;
        memcpy(whole, values, sizeof whole);  // 1.5 x 2^23 was added: the last bits are the whole number nearest
        for (int j = 0; j < CHUNK; j++) {
            sum += (int)(whole[j] - 0x4b400000u);
            whole[j] &= 0xff;
        }
        int8_t *bytes = (int8_t *)rows->int8 + (size_t)row * rows->width + begin;
        if (rows->tiled)
            for (int j = 0; j < CHUNK; j++) bytes[j] = (int8_t)whole[j];
        else
            for (int j = 0; j < count; j += 4)
                to[(size_t)((begin + j) / 4) * beside] =
                    (int32_t)(whole[j] | whole[j + 1] << 8 | whole[j + 2] << 16 | whole[j + 3] << 24);
    }
    rows->sums[row] = sum;
    rows->scales[row] = finite ? top / 127.0f : NAN;
}

// What a row is multiplied with by its RMS norm (arXiv:1910.07467), beside `weights`, which hold the factor sqrt(width).
INLINE float norm_of(const float *x, int width, float epsilon, const float *weights) {
    return weights ? 1.0f / sqrtf(square_sum(x, width) + epsilon * (float)width) : 1.0f;
}

// Columns `begin` to `end` of the block of rows that begins at `first`. Rows lie side by side, in the same cache lines:
// two threads that wrote a row each would wait for each other at every number.
static void put_exact(const Rows *rows, int first, int begin, int end, const float *x, float epsilon, const float *weights) {
    int beside = rows_of_block(rows, first);
    float *to = rows->exact + (size_t)first * rows->width, values[CHUNK], factors[BLOCK_ROWS];
    for (int r = 0; r < beside; r++)
        factors[r] = norm_of(x + (size_t)(first + r) * rows->width, rows->width, epsilon, weights);
    for (; begin < end; begin += CHUNK) {
        int count = end - begin < CHUNK ? end - begin : CHUNK;
        for (int r = 0; r < beside; r++) {
            scaled(x + (size_t)(first + r) * rows->width, factors[r], weights, begin, count, values);
            for (int j = 0; j < count; j++) to[(size_t)(begin + j) * beside + r] = values[j];
        }
    }
}

// How the columns of FP32 rows are shared out: `splits` parts of each block, of `columns` each.
INLINE int column_splits(const Rows *rows) { return parts(team_threads, parts(rows->count, rows->block)); }

// Pieces of the phase that packs the rows.
INLINE int put_pieces(const Rows *rows) {
    return rows->kind == INT8 ? rows->count : parts(rows->count, rows->block) * column_splits(rows);
}

// Piece `piece` of the rows of x [count][width], normalised where `weights` are given.
static void put_piece(const Rows *rows, int piece, const float *x, float epsilon, const float *weights) {
    if (rows->kind == INT8) {
        const float *from = x + (size_t)piece * rows->width;
        put_int8(rows, piece, from, norm_of(from, rows->width, epsilon, weights), weights);
        return;
    }
    int splits = column_splits(rows), columns = parts(parts(rows->width, splits), CHUNK) * CHUNK;
    int begin = piece % splits * columns, end = begin + columns < rows->width ? begin + columns : rows->width;
    put_exact(rows, piece / splits * rows->block, begin, end, x, epsilon, weights);
}

#endif
