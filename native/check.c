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

static void check_step(const Isa *isa, const Isa *plain) {
    int kind = between(EXACT, INT8), dim = 64 * between(1, 2), shared = between(1, 2), heads = shared * between(1, 3);
    int hidden = between(0, 1) ? between(1, 90) : 64, inner = PANEL * between(1, 4), half = between(0, 1), values_half = between(half, 1), rows = between(1, SLOTS);
    Layer layers[LAYERS];
    for (int i = 0; i < LAYERS; i++)
        layers[i] = (Layer){
            random_linear(kind, (heads + 2 * shared) * dim, hidden), random_linear(kind, hidden, heads * dim),
            random_linear(kind, 2 * inner, hidden), random_linear(kind, hidden, inner),
            numbers((size_t)hidden), numbers((size_t)hidden),
            between(0, 1) ? numbers((size_t)(heads + shared) * (size_t)dim) : NULL,
        };
    Model model = {LAYERS, hidden, heads, shared, dim, inner, 1e-6f, 0, layers, numbers((size_t)(POSITIONS * dim))};
    size_t count = (size_t)(SLOTS * shared * POSITIONS * dim);
    float *x[2];
    void *keys[2][LAYERS], *values[2][LAYERS];
    Cache caches[2] = {{BLOCKS, half, values_half, 0, keys[0], values[0]}, {BLOCKS, half, values_half, 0, keys[1], values[1]}};
    for (int i = 0; i < LAYERS; i++)
        for (int which = 0; which < 2; which++) {
            keys[which][i] = calloc(count, half ? 2 : 4);
            values[which][i] = calloc(count, values_half ? 2 : 4);
        }
    int32_t slots[SLOTS], indexes[SLOTS], ends[SLOTS];
    uint8_t seen[SLOTS][POSITIONS];
    const uint8_t *visible[SLOTS];
    int prompt = between(0, 1), start = between(0, POSITIONS - SLOTS);
    for (int r = 0; r < rows; r++) {
        slots[r] = prompt ? 1 : SLOTS - 1 - r, indexes[r] = prompt ? start + r : between(0, POSITIONS - 1);
        ends[r] = indexes[r] + 1, visible[r] = between(0, 1) ? seen[r] : NULL;
        for (int i = 0; i < POSITIONS; i++) seen[r][i] = i == indexes[r] || between(0, 1);
    }
    x[0] = numbers((size_t)rows * (size_t)hidden);
    x[1] = memcpy(numbers((size_t)rows * (size_t)hidden), x[0], (size_t)rows * (size_t)hidden * sizeof(float));
    for (int which = 0; which < 2; which++) {
        const Isa *one = which ? isa : plain;
        Batch batch = {rows, 0, slots, indexes, ends, indexes, visible, x[which]};
        char *scratch = room(one->step_scratch(&model, &caches[which], rows));
        one->step(&model, &caches[which], &batch, scratch);
        free(scratch);
    }
    compare("step", x[0], x[1], (size_t)rows * (size_t)hidden, kind == EXACT && !values_half ? 1e-4f : 5e-2f);
    if (!half) compare("keys", keys[0][0], keys[1][0], count, 1e-4f);
    for (int i = 0; i < LAYERS; i++) {
        for (int which = 0; which < 2; which++) free(keys[which][i]), free(values[which][i]);
        drop(&layers[i].qkv), drop(&layers[i].out), drop(&layers[i].gate_up), drop(&layers[i].down);
        free((void *)layers[i].attention_norm), free((void *)layers[i].mlp_norm), free((void *)layers[i].head_norms);
    }
    free((void *)model.rotations), free(x[0]), free(x[1]);
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
