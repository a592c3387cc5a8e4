// Holds every instruction set that this processor has to the plainest, on random shapes and arrays of exactly the size
// that is promised: for runs under the address and undefined-behaviour sanitizers, or an emulator of another machine.
// `native/build.py --check OUT` builds it; it prints what it did and returns 1 at a difference.
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qaio.h"

const char *qaio_name(int number);
const Isa *qaio_isa(const char *name);
void qaio_team(Launcher *launcher, TeamSize *size, int threads);

enum { THREADS = 3, LAYERS = 2, SLOTS = 20, BLOCKS = 3, POSITIONS = BLOCKS * KEY_BLOCK };
enum { ADAPTERS = 2, MOST_RANK = 40 };

static uint64_t state = 88172645463325252u;
static uint32_t random_bits(void) {  // xorshift (Marsaglia 2003)
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 20);
}
static int between(int low, int high) { return low + (int)(random_bits() % (uint32_t)(high - low + 1)); }
static float number(void) { return (float)between(-1000, 1000) / 1000.0f; }

static void *room(size_t bytes) {
    void *made = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!made) exit(2);
    return made;
}
static float *numbers(size_t count) {
    float *made = malloc(count * sizeof(float));
    for (size_t i = 0; i < count; i++) made[i] = number();
    return made;
}

typedef struct {
    void (*body)(void *);
    void *argument;
} Start;
static void *run(void *start) {
    ((Start *)start)->body(((Start *)start)->argument);
    return NULL;
}
static void launch(void (*body)(void *), void *argument, unsigned threads, unsigned flags) {
    (void)flags;
    pthread_t others[THREADS];
    Start start = {body, argument};
    for (unsigned i = 1; i < threads; i++) pthread_create(&others[i], NULL, run, &start);
    body(argument);
    for (unsigned i = 1; i < threads; i++) pthread_join(others[i], NULL);
}
static int team_of_three(void) { return THREADS; }

static Linear random_linear(int kind, int n, int k) {
    int panels = (n + PANEL - 1) / PANEL, fours = (k + 3) / 4;
    size_t bytes = (size_t)panels * PANEL * (kind == EXACT ? (size_t)k * 2 : (size_t)fours * 4);
    uint8_t *weights = malloc(bytes);
    for (size_t i = 0; i < bytes; i += 2) {
        float value = number() * 0.2f;
        uint32_t word;
        memcpy(&word, &value, 4);
        word = kind == EXACT ? word >> 16 : random_bits();
        memcpy(weights + i, &word, 2);
    }
    return (Linear){kind, n, k, 0, weights, kind == INT8 ? numbers((size_t)panels * PANEL) : NULL, between(0, 1) ? numbers((size_t)n) : NULL};
}
static void drop(Linear *linear) { free((void *)linear->weights), free((void *)linear->scales), free((void *)linear->bias); }

static int differences = 0;
static void compare(const char *what, const float *a, const float *b, size_t count, float bound) {
    float most = 1e-3f, worst = 0;
    for (size_t i = 0; i < count; i++) most = fmaxf(most, fabsf(a[i]));
    for (size_t i = 0; i < count; i++) worst = fabsf(a[i] - b[i]) <= worst ? worst : fabsf(a[i] - b[i]);
    if (worst <= bound * most) return;
    printf("%s: off by %g of %g\n", what, (double)worst, (double)most);
    differences++;
}

static void check_linear(const Isa *isa, const Isa *plain) {
    int kind = between(EXACT, INT8), n = between(1, 150), rows = between(1, 40);
    int k = between(0, 1) ? between(1, 200) : 64 * between(1, 3);  // tiles take whole numbers of 64
    Linear linear = random_linear(kind, n, k);
    float *x = numbers((size_t)rows * (size_t)k), *y = numbers((size_t)rows * (size_t)n), *wanted = numbers((size_t)rows * (size_t)n);
    float *alone = numbers((size_t)n);
    char *scratch = room(isa->linear_scratch(&linear, rows)), *other = room(plain->linear_scratch(&linear, rows));
    isa->linear(&linear, x, y, rows, scratch);
    plain->linear(&linear, x, wanted, rows, other);
    // INT8 may round an activation the other way where it lies between two whole numbers.
    compare("linear", wanted, y, (size_t)rows * (size_t)n, kind == EXACT ? 1e-5f : 5e-3f);
    int row = between(0, rows - 1);
    isa->linear(&linear, x + (size_t)row * (size_t)k, alone, 1, scratch);
    if (memcmp(alone, y + (size_t)row * (size_t)n, (size_t)n * sizeof(float))) printf("a row differs alone\n"), differences++;
    free(x), free(y), free(wanted), free(alone), free(scratch), free(other), drop(&linear);
}

// Of some of the panels of a linear with `n` outputs and `k` inputs, or of none.
static LowRank random_update(int n, int k) {
    LowRank update = {0};
    int panels = (n + PANEL - 1) / PANEL, at = 0;
    while (between(0, 3) && update.parts < MOST_PARTS && at < panels) {
        Part *part = &update.part[update.parts++];
        *part = (Part){.begin = between(at, panels - 1), .first = update.ranks, .ranks = between(1, MOST_RANK)};
        part->end = at = between(part->begin + 1, panels);
        part->up = numbers((size_t)(part->end - part->begin) * (size_t)part->ranks * PANEL);
        update.ranks += (part->ranks + 3) / 4 * 4;
    }
    int chunks = (k + RANK_CHUNK - 1) / RANK_CHUNK;
    if (update.ranks) update.down = numbers((size_t)update.ranks * (size_t)chunks * RANK_CHUNK);
    return update;
}
static void drop_updates(LowRank *updates) {
    for (int i = 0; i < LAYERS * SITES; i++) {
        free((void *)updates[i].down);
        for (int p = 0; p < updates[i].parts; p++) free((void *)updates[i].part[p].up);
    }
}

// Some rows of `rows`, each with one of the adapters; returns how many spans they are.
static int random_spans(int rows, LowRank updates[ADAPTERS][LAYERS * SITES], Span *spans) {
    int count = 0;
    for (int at = between(0, 4); at < rows; at += between(0, 2)) {
        int end = between(at + 1, rows);
        spans[count++] = (Span){at, end, updates[between(0, ADAPTERS - 1)]};
        at = end;
    }
    return count;
}

static void run_step(const Isa *isa, const Model *model, const Cache *cache, const Batch *batch) {
    char *scratch = room(isa->step_scratch(model, cache, batch->rows, batch->ranks));
    isa->step(model, cache, batch, scratch);
    free(scratch);
}

// Row `row` of `batch`, with `x` and `cache` of its own, has the same bits as in the batch.
static void check_alone(const Isa *isa, const Model *model, const Cache *cache, const Batch *batch, int row, float *x) {
    Batch alone = *batch;
    alone.rows = 1, alone.spans = 0, alone.x = x;
    alone.slots += row, alone.indexes += row, alone.ends += row, alone.positions += row, alone.visible += row;
    Span span = {0, 1, NULL};
    for (int s = 0; s < batch->spans; s++)
        if (batch->span[s].first <= row && row < batch->span[s].end) span.updates = batch->span[s].updates, alone.spans = 1;
    alone.span = &span;
    run_step(isa, model, cache, &alone);
    if (memcmp(x, batch->x + (size_t)row * (size_t)model->hidden, (size_t)model->hidden * sizeof(float)))
        printf("a row of a step differs alone\n"), differences++;
}

static void check_step(const Isa *isa, const Isa *plain) {
    int kind = between(EXACT, INT8), dim = 64 * between(1, 2), shared = between(1, 2), heads = shared * between(1, 3);
    int hidden = between(0, 1) ? between(1, 90) : 64, inner = PANEL * between(1, 4);
    int half = between(0, 1), values_half = between(half, 1), rows = between(1, SLOTS);
    Layer layers[LAYERS];
    LowRank updates[ADAPTERS][LAYERS * SITES];
    for (int i = 0; i < LAYERS; i++) {
        layers[i] = (Layer){
            random_linear(kind, (heads + 2 * shared) * dim, hidden), random_linear(kind, hidden, heads * dim),
            random_linear(kind, 2 * inner, hidden), random_linear(kind, hidden, inner),
            numbers((size_t)hidden), numbers((size_t)hidden),
            between(0, 1) ? numbers((size_t)(heads + shared) * (size_t)dim) : NULL,
        };
        const Linear *linears[SITES] = {&layers[i].qkv, &layers[i].out, &layers[i].gate_up, &layers[i].down};
        for (int a = 0; a < ADAPTERS; a++)
            for (int site = 0; site < SITES; site++)
                updates[a][i * SITES + site] = random_update(linears[site]->n, linears[site]->k);
    }
    Model model = {LAYERS, hidden, heads, shared, dim, inner, 1e-6f, 0, layers, numbers((size_t)(POSITIONS * dim))};
    enum { ISA, PLAIN, ALONE, RUNS };
    size_t count = (size_t)(SLOTS * shared * POSITIONS * dim), width = (size_t)hidden;
    float *x[RUNS];
    void *keys[RUNS][LAYERS], *values[RUNS][LAYERS];
    Cache caches[RUNS];
    for (int run = 0; run < RUNS; run++) {
        caches[run] = (Cache){BLOCKS, half, values_half, 0, keys[run], values[run]};
        for (int i = 0; i < LAYERS; i++)
            keys[run][i] = calloc(count, half ? 2 : 4), values[run][i] = calloc(count, values_half ? 2 : 4);
    }
    int32_t slots[SLOTS], indexes[SLOTS], ends[SLOTS];
    uint8_t seen[SLOTS][POSITIONS];
    const uint8_t *visible[SLOTS];
    int prompt = between(0, 1), start = between(0, POSITIONS - SLOTS), row = between(0, rows - 1);
    for (int r = 0; r < rows; r++) {
        slots[r] = prompt ? 1 : SLOTS - 1 - r, indexes[r] = prompt ? start + r : between(0, POSITIONS - 1);
        ends[r] = indexes[r] + 1, visible[r] = between(0, 1) ? seen[r] : NULL;
        for (int i = 0; i < POSITIONS; i++) seen[r][i] = i == indexes[r] || between(0, 1);
    }
    Span spans[SLOTS];
    int spanned = between(0, 1) ? random_spans(rows, updates, spans) : 0;
    int ranks = spanned ? MOST_PARTS * MOST_RANK : 0;
    x[ISA] = numbers((size_t)rows * width), x[ALONE] = numbers(width);
    x[PLAIN] = memcpy(numbers((size_t)rows * width), x[ISA], (size_t)rows * width * sizeof(float));
    memcpy(x[ALONE], x[ISA] + (size_t)row * width, width * sizeof(float));
    Batch batch = {rows, ranks, spanned, 0, slots, indexes, ends, indexes, visible, spans, x[PLAIN]};
    run_step(plain, &model, &caches[PLAIN], &batch);
    batch.x = x[ISA];
    run_step(isa, &model, &caches[ISA], &batch);
    compare("step", x[PLAIN], x[ISA], (size_t)rows * width, kind == EXACT && !values_half ? 1e-4f : 5e-2f);
    if (!half) compare("keys", keys[PLAIN][0], keys[ISA][0], count, 1e-4f);
    if (!prompt) check_alone(isa, &model, &caches[ALONE], &batch, row, x[ALONE]);
    for (int i = 0; i < LAYERS; i++) {
        for (int run = 0; run < RUNS; run++) free(keys[run][i]), free(values[run][i]);
        drop(&layers[i].qkv), drop(&layers[i].out), drop(&layers[i].gate_up), drop(&layers[i].down);
        free((void *)layers[i].attention_norm), free((void *)layers[i].mlp_norm), free((void *)layers[i].head_norms);
    }
    for (int a = 0; a < ADAPTERS; a++) drop_updates(updates[a]);
    for (int run = 0; run < RUNS; run++) free(x[run]);
    free((void *)model.rotations);
}

int main(int argc, char **argv) {
    int times = argc > 1 ? atoi(argv[1]) : 100;
    const Isa *plain = NULL;
    for (int i = 0; qaio_name(i); i++) plain = qaio_isa(qaio_name(i));
    qaio_team(launch, team_of_three, THREADS);
    for (int i = 0; qaio_name(i); i++) {
        const Isa *isa = qaio_isa(qaio_name(i));
        printf("%s: %s\n", qaio_name(i), isa ? "checked" : "not on this processor");
        for (int t = 0; isa && t < times; t++) check_linear(isa, plain), check_step(isa, plain);
    }
    printf("%d differences\n", differences);
    return differences != 0;
}
