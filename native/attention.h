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

// The query's products with a block of keys [dim][KEY_BLOCK].
INLINE void score_block(const float *query, int dim, const float *keys, float *scores) {
    enum { VECTORS = KEY_BLOCK / LANES };
    Floats even[VECTORS] = {{0}}, odd[VECTORS] = {{0}};  // two chains: one would wait for its own sums
    for (int i = 0; i < dim; i += 2, keys += 2 * KEY_BLOCK)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            even[v] += query[i] * load(keys + v * LANES);
            odd[v] += query[i + 1] * load(keys + KEY_BLOCK + v * LANES);
        }
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) store(scores + v * LANES, even[v] + odd[v]);
}

// Scores [whole blocks] of the first `end` tokens become weights, not yet divided by their sum, which is returned. Those
// behind `end` become 0.
static float weigh(float *scores, int end) {
    int whole = parts(end, KEY_BLOCK) * KEY_BLOCK;
    for (int i = end; i < whole; i++) scores[i] = -INFINITY;
    Floats top = all(-INFINITY);
    for (int i = 0; i < whole; i += LANES) top = largest(load(scores + i), top);
    float most = largest_of(top);
    Floats sums = {0};
    for (int i = 0; i < whole; i += LANES) {
        Floats weights = exponential(load(scores + i) - most);
        store(scores + i, weights);
        sums += weights;
    }
    float total = sum_of(sums);
    for (int i = end; i < whole; i++) scores[i] = 0;
    return total;
}

// out [dim] += the values of `count` tokens, [dim] each, times their weights; half of them in a chain of sums of its own.
INLINE void add_values(const int half, const void *values, int dim, const float *weights, int count, float *out) {
#define VALUE(T, I) \
    (half ? load_half((const uint16_t *)values + (size_t)(T) * dim + (I)) : load((const float *)values + (size_t)(T) * dim + (I)))
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

static void keep_value(int half, void *values, size_t at, const float *value, int dim) {
    for (int i = 0; i < dim; i += LANES)
        if (half)
            store_half((uint16_t *)values + at + i, load(value + i));
        else
            store((float *)values + at + i, load(value + i));
}

// Where the keys and values of a key head of a sequence begin, in numbers.
INLINE size_t sequence_of(const Model *model, const Cache *cache, int slot, int shared) {
    return ((size_t)slot * model->kv_heads + shared) * ((size_t)cache->blocks * KEY_BLOCK) * model->head_dim;
}

// Turns key head `shared` of one token and the queries that share it, in `qkv`, and puts key and value into the cache.
static void place(const Model *model, const Cache *cache, int layer, int shared, int slot, int position, float *qkv) {
    int dim = model->head_dim, group = model->heads / model->kv_heads, half = model->values_are_half;
    const float *rotation = model->rotations + (size_t)position * dim, *norms = model->layer[layer].head_norms;
    float *queries = qkv + (size_t)shared * group * dim, *key = qkv + (size_t)(model->heads + shared) * dim;
    float scale = 1.0f / sqrtf((float)dim);
    for (int g = 0; g < group; g++) {
        const float *norm = norms ? norms + (size_t)(shared * group + g) * dim : NULL;
        turn(queries + (size_t)g * dim, dim, rotation, scale, norm, model->epsilon);
    }
    turn(key, dim, rotation, 1.0f, norms ? norms + (size_t)(model->heads + shared) * dim : NULL, model->epsilon);

    size_t sequence = sequence_of(model, cache, slot, shared);
    float *block = cache->keys[layer] + sequence + (size_t)(position / KEY_BLOCK) * dim * KEY_BLOCK;
    for (int i = 0; i < dim; i++) block[(size_t)i * KEY_BLOCK + position % KEY_BLOCK] = key[i];
    const float *value = qkv + (size_t)(model->heads + model->kv_heads + shared) * dim;
    keep_value(half, cache->values[layer], sequence + (size_t)position * dim, value, dim);
}

// What the queries of one token that share a key head take from all tokens up to its own. `scores`: room for a row of whole
// blocks for each of these queries.
static void attend(const Model *model, const Cache *cache, int layer, int shared, int slot, int position, const float *qkv,
                   float *scores, float *out) {
    int dim = model->head_dim, group = model->heads / model->kv_heads, end = position + 1;
    int blocks = parts(end, KEY_BLOCK), half = model->values_are_half;
    size_t tokens = (size_t)cache->blocks * KEY_BLOCK, sequence = sequence_of(model, cache, slot, shared);
    const float *queries = qkv + (size_t)shared * group * dim, *keys = cache->keys[layer] + sequence;
    const char *values = (const char *)cache->values[layer] + sequence * (half ? 2 : 4);
    for (int b = 0; b < blocks; b++)
        for (int g = 0; g < group; g++) {
            const float *block = keys + (size_t)b * dim * KEY_BLOCK;
            score_block(queries + (size_t)g * dim, dim, block, scores + g * tokens + (size_t)b * KEY_BLOCK);
        }
    for (int g = 0; g < group; g++) {
        float inverse = 1.0f / weigh(scores + g * tokens, end);
        for (int t = 0; t < end; t++) scores[g * tokens + t] *= inverse;
    }
    float *heads_out = out + (size_t)shared * group * dim;
    memset(heads_out, 0, (size_t)group * dim * sizeof(float));
    for (int b = 0; b < blocks; b++)
        for (int g = 0; g < group; g++) {
            int begin = b * KEY_BLOCK, count = end - begin < KEY_BLOCK ? end - begin : KEY_BLOCK;
            const void *block = values + (size_t)begin * dim * (half ? 2 : 4);
            const float *weights = scores + g * tokens + begin;
            (half ? add_half_values : add_float_values)(block, dim, weights, count, heads_out + (size_t)g * dim);
        }
}

#endif
