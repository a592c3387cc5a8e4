// Attention of each token to its sequence up to itself (arXiv:1706.03762; grouped heads: arXiv:2305.13245).
#ifndef ATTENTION_H
#define ATTENTION_H

#include "rows.h"

// Rotates a head in place (arXiv:2104.09864; the two numbers of a pair are neighbours) after its norm, if it has one.
static void turn(float *head, int dim, const float *rotation, float scale, const float *norm, float epsilon) {
    if (norm) {
        float factor = 1.0f / sqrtf(square_sum(head, dim) / (float)dim + epsilon);
        for (int i = 0; i < dim; i++) head[i] *= factor * norm[i];
    }
    for (int i = 0; i < dim; i += 2) {
        float real = head[i] * scale, imaginary = head[i + 1] * scale;
        head[i] = real * rotation[i] - imaginary * rotation[i + 1];
        head[i + 1] = real * rotation[i + 1] + imaginary * rotation[i];
    }
}

// Number `at` of keys or values, and those behind it.
INLINE Floats load_kept(const int half, const void *kept, size_t at) {
    return half ? load_half((const uint16_t *)kept + at) : load((const float *)kept + at);
}
INLINE const void *kept_at(int half, const void *kept, size_t at) {
    return (const char *)kept + at * (half ? sizeof(uint16_t) : sizeof(float));
}

// The query's products with a block of keys [dim][KEY_BLOCK].
INLINE void score_block(const int half, const float *query, int dim, const void *keys, float *scores) {
    enum { VECTORS = KEY_BLOCK / LANES };
    Floats even[VECTORS] = {{0}}, odd[VECTORS] = {{0}};  // two chains: one would wait for its own sums
    for (int i = 0; i < dim; i += 2)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            even[v] += query[i] * load_kept(half, keys, (size_t)i * KEY_BLOCK + v * LANES);
            odd[v] += query[i + 1] * load_kept(half, keys, (size_t)(i + 1) * KEY_BLOCK + v * LANES);
        }
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) store(scores + v * LANES, even[v] + odd[v]);
}

static void score_float_block(const float *query, int dim, const void *keys, float *scores) {
    score_block(0, query, dim, keys, scores);
}
static void score_half_block(const float *query, int dim, const void *keys, float *scores) {
    score_block(1, query, dim, keys, scores);
}

// Scores [whole blocks] of the first `end` tokens become weights. Those behind `end`, and those that `visible` hides if it
// is not NULL, become 0.
static void weigh(float *scores, int end, const uint8_t *visible) {
    int whole = parts(end, KEY_BLOCK) * KEY_BLOCK;
    for (int i = 0; visible && i < end; i++) scores[i] = visible[i] ? scores[i] : -INFINITY;
    for (int i = end; i < whole; i++) scores[i] = -INFINITY;
    Floats top = all(-INFINITY);
    for (int i = 0; i < whole; i += LANES) top = largest(load(scores + i), top);
    float most = largest_of(top);
    Floats sums = {0};
    for (int i = 0; i < whole; i += LANES) {
        Floats score = load(scores + i), weights = exponential(score - most);
        weights = where(score == -INFINITY, (Floats){0}, weights);
        store(scores + i, weights);
        sums += weights;
    }
    float inverse = 1.0f / sum_of(sums);
    for (int i = 0; i < whole; i += LANES) store(scores + i, load(scores + i) * inverse);
}

// out [dim] += the values of `count` tokens, [dim] each, times their weights; half of them in a chain of sums of its own.
INLINE void add_values(const int half, const void *values, int dim, const float *weights, int count, float *out) {
#define VALUE(T, I) load_kept(half, values, (size_t)(T) * dim + (I))
    enum { WIDE = 64 / LANES < 4 ? 64 / LANES : 4 };
    for (int i = 0; i < dim; i += WIDE * LANES) {
        Floats even[WIDE] = {{0}}, odd[WIDE] = {{0}};
        int t = 0;
        for (; t + 1 < count; t += 2)
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; v++) {
                even[v] += weights[t] * VALUE(t, i + v * LANES);
                odd[v] += weights[t + 1] * VALUE(t + 1, i + v * LANES);
            }
        for (int v = 0; v < WIDE && t < count; v++) even[v] += weights[t] * VALUE(t, i + v * LANES);
        for (int v = 0; v < WIDE; v++) store(out + i + v * LANES, load(out + i + v * LANES) + (even[v] + odd[v]));
    }
#undef VALUE
}

static void add_float_values(const void *values, int dim, const float *weights, int count, float *out) {
    add_values(0, values, dim, weights, count, out);
}
static void add_half_values(const void *values, int dim, const float *weights, int count, float *out) {
    add_values(1, values, dim, weights, count, out);
}

// Keeps the key of a token as column `column` of a block, and its value as a row.
static void keep_key(int half, void *block, int column, const float *key, int dim) {
    uint16_t halves[LANES];
    for (int i = 0; i < dim; i += LANES) {
        if (half) store_half(halves, load(key + i));
        for (int j = 0; j < LANES; j++) {
            size_t at = (size_t)(i + j) * KEY_BLOCK + column;
            if (half)
                ((uint16_t *)block)[at] = halves[j];
            else
                ((float *)block)[at] = key[i + j];
        }
    }
}
static void keep_value(int half, void *row, const float *value, int dim) {
    for (int i = 0; i < dim; i += LANES)
        if (half)
            store_half((uint16_t *)row + i, load(value + i));
        else
            store((float *)row + i, load(value + i));
}

// Where the keys and values of a key head of a sequence begin, in numbers.
INLINE size_t sequence_of(const Model *model, const Cache *cache, int slot, int shared) {
    return ((size_t)slot * model->kv_heads + shared) * ((size_t)cache->blocks * KEY_BLOCK) * model->head_dim;
}

// Turns key head `shared` of row `row` and the queries that share it, in `qkv`, and puts key and value into the cache.
static void place(const Model *model, const Cache *cache, const Batch *batch, int layer, int shared, int row, float *qkv) {
    int dim = model->head_dim, group = model->heads / model->kv_heads, index = batch->indexes[row];
    const float *rotation = model->rotations + (size_t)batch->positions[row] * dim;
    const float *norms = model->layer[layer].head_norms;
    float *queries = qkv + (size_t)shared * group * dim, *key = qkv + (size_t)(model->heads + shared) * dim;
    float scale = 1.0f / sqrtf((float)dim);
    for (int g = 0; g < group; g++) {
        const float *norm = norms ? norms + (size_t)(shared * group + g) * dim : NULL;
        turn(queries + (size_t)g * dim, dim, rotation, scale, norm, model->epsilon);
    }
    turn(key, dim, rotation, 1.0f, norms ? norms + (size_t)(model->heads + shared) * dim : NULL, model->epsilon);

    size_t sequence = sequence_of(model, cache, batch->slots[row], shared);
    size_t block = sequence + (size_t)(index / KEY_BLOCK) * dim * KEY_BLOCK, at = sequence + (size_t)index * dim;
    const float *value = qkv + (size_t)(model->heads + model->kv_heads + shared) * dim;
    keep_key(cache->keys_are_half, (void *)kept_at(cache->keys_are_half, cache->keys[layer], block), index % KEY_BLOCK, key, dim);
    keep_value(cache->values_are_half, (void *)kept_at(cache->values_are_half, cache->values[layer], at), value, dim);
}

// What the queries of row `row` that share a key head take from the tokens they see. `scores`: room for a row of whole
// blocks for each of these queries.
static void attend(const Model *model, const Cache *cache, const Batch *batch, int layer, int shared, int row, const float *qkv,
                   float *scores, float *out) {
    int dim = model->head_dim, group = model->heads / model->kv_heads, end = batch->ends[row], blocks = parts(end, KEY_BLOCK);
    size_t tokens = (size_t)cache->blocks * KEY_BLOCK, sequence = sequence_of(model, cache, batch->slots[row], shared);
    const float *queries = qkv + (size_t)shared * group * dim;
    float *heads_out = out + (size_t)shared * group * dim;
    for (int b = 0; b < blocks; b++)
        for (int g = 0; g < group; g++) {
            const void *block = kept_at(cache->keys_are_half, cache->keys[layer], sequence + (size_t)b * dim * KEY_BLOCK);
            (cache->keys_are_half ? score_half_block : score_float_block)(queries + (size_t)g * dim, dim, block,
                                                                          scores + g * tokens + (size_t)b * KEY_BLOCK);
        }
    for (int g = 0; g < group; g++) weigh(scores + g * tokens, end, batch->visible[row]);
    memset(heads_out, 0, (size_t)group * dim * sizeof(float));
    for (int b = 0; b < blocks; b++)
        for (int g = 0; g < group; g++) {
            int begin = b * KEY_BLOCK, count = end - begin < KEY_BLOCK ? end - begin : KEY_BLOCK;
            const void *block = kept_at(cache->values_are_half, cache->values[layer], sequence + (size_t)begin * dim);
            (cache->values_are_half ? add_half_values : add_float_values)(block, dim, scores + g * tokens + begin, count,
                                                                          heads_out + (size_t)g * dim);
        }
}

#endif
