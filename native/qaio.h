// What the library offers, and what is shared by its parts. Everything is called from one thread at a time.
//
// Weights are kept in panels of 32 outputs, one behind the other, so that a product reads them front to back:
//   exact  [n / 32][k][16] words of 32 bits: the bf16 numbers of outputs j (low half) and j + 16 (high half)
//   int8   [n / 32][k / 4][32][4] bytes: whole numbers from -127 to 127, 128 added
// n is rounded up to whole panels and k, of int8, to a multiple of 4; what is added holds zeros (int8: 128).
#ifndef QAIO_H
#define QAIO_H

#include <stddef.h>
#include <stdint.h>

enum { INTERFACE = 2 };  // goes up whenever anything here changes
enum { PANEL = 32, KEY_BLOCK = 32, RANK_CHUNK = 64, RANK_BLOCK = 16 };
enum { EXACT, INT8 };
enum { QKV, OUT, GATE_UP, DOWN, SITES };  // the linears of a layer
enum { MOST_PARTS = 3 };                  // that one of them computes side by side

// y = x W^T + b: `n` outputs, `k` inputs.
typedef struct {
    int32_t kind, n, k, unused;
    const void *weights;
    const float *scales;  // int8: what one step of each output's weights is worth, [n]
    const float *bias;    // [n], or NULL
} Linear;

typedef struct {
    Linear qkv, out, gate_up, down;
    const float *attention_norm, *mlp_norm;  // [hidden], each times sqrt(hidden)
    const float *head_norms;                 // [heads + kv_heads][head_dim], or NULL
} Layer;

typedef struct {
    int32_t layers, hidden, heads, kv_heads, head_dim, inner;
    float epsilon;  // of the norms
    int32_t unused;
    const Layer *layer;
    const float *rotations;  // [positions][head_dim]: cosine and sine of each pair of neighbours
} Model;

// Keys and values of every layer: [slots][kv_heads][blocks][head_dim][KEY_BLOCK] and
// [slots][kv_heads][blocks * KEY_BLOCK][head_dim], FP32, or FP16 where told.
typedef struct {
    int32_t blocks, keys_are_half, values_are_half, unused;
    void *const *keys, *const *values;
} Cache;

// What an adapter adds to some outputs of a linear, those of the panels from `begin` to before `end`: the numbers x A from
// `first` on times B. `up` is B, [panels][ranks][PANEL], in FP32 whatever the weights are.
typedef struct {
    int32_t begin, end, first, ranks;
    const float *up;
} Part;

// What it adds to a linear. `down` is A of all parts, each with rows of zeros up to a multiple of 4: blocks of RANK_BLOCK
// ranks (the last may have fewer), [k / RANK_CHUNK][ranks of the block][RANK_CHUNK] each, FP32, k rounded up with zeros.
typedef struct {
    int32_t ranks, parts;  // 0, 0: nothing is added
    const float *down;
    Part part[MOST_PARTS];
} LowRank;

// Rows `first` to before `end` of a batch, whose adapter adds `updates` [layers][SITES].
typedef struct {
    int32_t first, end;
    const LowRank *updates;
} Span;

// Tokens of one or several sequences. Token r is kept at `indexes[r]` of its slot and sees the slot's first `ends[r]`
// tokens, which are in the cache or among these; where `visible[r]` is not NULL, those with a byte other than 0 there.
// Rows of no span have no adapter. No linear of a span's adapter has more than `ranks` ranks.
typedef struct {
    int32_t rows, ranks, spans, unused;
    const int32_t *slots, *indexes, *ends;
    const int32_t *positions;  // for the rotations
    const uint8_t *const *visible;
    const Span *span;
    float *x;  // [rows][hidden]: embeddings in, the last layer's output out
} Batch;

// The signature of GOMP_parallel, which runs `body` on `threads` threads (libgomp, "Implementing PARALLEL construct").
typedef void Launcher(void (*body)(void *), void *argument, unsigned threads, unsigned flags);
typedef int TeamSize(void);  // omp_get_num_threads

// One instruction set's code. All take scratch of as many bytes as the function beside them says.
typedef struct {
    const char *name;
    int32_t has_fast_int8, unused;
    // y [rows][n] = x [rows][k] W^T + b.
    void (*linear)(const Linear *linear, const float *x, float *y, int rows, char *scratch);
    size_t (*linear_scratch)(const Linear *linear, int rows);
    // All layers of `model`; keys and values of the tokens go into `cache`.
    void (*step)(const Model *model, const Cache *cache, const Batch *batch, char *scratch);
    size_t (*step_scratch)(const Model *model, const Cache *cache, int rows, int ranks);
} Isa;

#endif
