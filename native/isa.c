// One linear, and the decoder's layers over tokens of several sequences, compiled once for each instruction set.
#include "attention.h"
#include "product.h"

typedef struct {
    const Linear *linear;
    const float *x;
    float *y;
    Rows rows;
} LinearJob;

static void linear_job(void *argument, int member) {
    (void)member;
    const LinearJob *job = argument;
    put_rows(&job->rows, NULL, job->x, 0, NULL);
    team_wait();
    product_of_rows(job->linear, &job->rows, NULL, job->y, 0);
    leave_tiles();
}

static size_t linear_scratch(const Linear *linear, int rows) { return rows_scratch(linear->kind, rows, linear->k); }

static void linear(const Linear *linear, const float *x, float *y, int rows, char *scratch) {
    LinearJob job = {linear, x, y, rows_in(linear->kind, rows, linear->k, scratch)};
    team_run(linear_job, &job);
}

typedef struct {
    const Model *model;
    const Cache *cache;
    const Batch *batch;
    char *packed;                  // the rows of the linear at hand
    float *qkv, *attended, *gated;  // [rows][...]
    float *numbers;                 // of the rows' adapters, for the linear at hand
    char *scores;                  // of each member
    size_t score_bytes;
} StepJob;

INLINE int projections(const Model *model) { return (model->heads + 2 * model->kv_heads) * model->head_dim; }
INLINE int attended_width(const Model *model) { return model->heads * model->head_dim; }

// Panels of gate and up beside each other, and what goes into the down projection. A phase.
static void gate_up(const Linear *linear, const Rows *rows, const Added *added, int inner, float *out) {
    int panels = inner / PANEL, piece_size = parts(panels_at_once(panels), 2);
    EACH_PIECE(piece, parts(panels, piece_size))
    for (int panel = piece * piece_size; panel < panels && panel < (piece + 1) * piece_size; panel++)
        for (int first = 0; first < rows->count; first += rows->block) {
            Sums gates, ups;
            multiply(linear, panel, rows, first, added, gates);
            multiply(linear, panels + panel, rows, first, added, ups);
            for (int r = 0; r < rows_of_block(rows, first); r++)
                for (int j = 0; j < PANEL; j += LANES)
                    store(out + (size_t)(first + r) * inner + panel * PANEL + j, gated(load(gates[r] + j), load(ups[r] + j)));
        }
}

static void step_layer(const StepJob *job, int number, int member) {
    const Model *model = job->model;
    const Layer *layer = model->layer + number;
    const Batch *batch = job->batch;
    int count = batch->rows, kind = layer->qkv.kind;
    Rows rows = rows_in(kind, count, model->hidden, job->packed);
    Added added = {.batch = batch, .layer = number, .site = QKV, .numbers = job->numbers};
    put_rows(&rows, &added, batch->x, model->epsilon, layer->attention_norm);
    team_wait();
    product_of_rows(&layer->qkv, &rows, &added, job->qkv, 0);
    team_wait();
    EACH_PIECE(piece, count * model->kv_heads) {
        int row = piece / model->kv_heads;
        place(model, job->cache, batch, number, piece % model->kv_heads, row, job->qkv + (size_t)row * projections(model));
    }
    team_wait();  // a token may see others of this very step
    EACH_PIECE(piece, count * model->kv_heads) {
        int row = piece % count;  // head by head: neighbours in a prompt read the same keys
        attend(model, job->cache, batch, number, piece / count, row, job->qkv + (size_t)row * projections(model),
               (float *)(job->scores + (size_t)member * job->score_bytes),
               job->attended + (size_t)row * attended_width(model));
    }
    team_wait();
    rows = rows_in(kind, count, attended_width(model), job->packed);
    added.site = OUT;
    put_rows(&rows, &added, job->attended, 0, NULL);
    team_wait();
    product_of_rows(&layer->out, &rows, &added, batch->x, 1);
    team_wait();
    rows = rows_in(kind, count, model->hidden, job->packed);
    added.site = GATE_UP;
    put_rows(&rows, &added, batch->x, model->epsilon, layer->mlp_norm);
    team_wait();
    gate_up(&layer->gate_up, &rows, &added, model->inner, job->gated);
    team_wait();
    rows = rows_in(kind, count, model->inner, job->packed);
    added.site = DOWN;
    put_rows(&rows, &added, job->gated, 0, NULL);
    team_wait();
    product_of_rows(&layer->down, &rows, &added, batch->x, 1);
    team_wait();
}

static void step_job(void *argument, int member) {
    const StepJob *job = argument;
    for (int number = 0; number < job->model->layers; number++) step_layer(job, number, member);
    leave_tiles();
}

// The next `bytes` of `scratch`, or NULL where only their sum is asked for.
static void *take(char **scratch, size_t *used, size_t bytes) {
    char *taken = *scratch;
    *used += rounded(bytes);
    if (taken) *scratch = taken + rounded(bytes);
    return taken;
}

// Lays the step's arrays out in `scratch`; returns their size, also where `scratch` is NULL.
static size_t lay_out(StepJob *job, char *scratch) {
    const Model *model = job->model;
    size_t rows = (size_t)job->batch->rows, used = 0;
    int kind = model->layer[0].qkv.kind, widest = model->hidden > model->inner ? model->hidden : model->inner;
    widest = attended_width(model) > widest ? attended_width(model) : widest;
    size_t tokens = (size_t)job->cache->blocks * KEY_BLOCK;
    job->score_bytes = rounded((size_t)(model->heads / model->kv_heads) * tokens * sizeof(float));
    job->packed = take(&scratch, &used, rows_scratch(kind, job->batch->rows, widest));
    job->qkv = take(&scratch, &used, rows * (size_t)projections(model) * sizeof(float));
    job->attended = take(&scratch, &used, rows * (size_t)attended_width(model) * sizeof(float));
    job->gated = take(&scratch, &used, rows * (size_t)model->inner * sizeof(float));
    job->numbers = take(&scratch, &used, rows * (size_t)job->batch->ranks * sizeof(float));
    job->scores = take(&scratch, &used, (size_t)team_threads * job->score_bytes);
    return used;
}

static size_t step_scratch(const Model *model, const Cache *cache, int rows, int ranks) {
    Batch batch = {.rows = rows, .ranks = ranks};
    StepJob job = {.model = model, .cache = cache, .batch = &batch};
    return lay_out(&job, NULL);
}

static void step(const Model *model, const Cache *cache, const Batch *batch, char *scratch) {
    StepJob job = {.model = model, .cache = cache, .batch = batch};
    lay_out(&job, scratch);
    team_run(step_job, &job);
}

#if defined(__AVX512VNNI__)
enum { FAST_INT8 = 1 };
#else
enum { FAST_INT8 = 0 };
#endif

#define NAMED(PREFIX, NAME) PREFIX##NAME
#define OBJECT(NAME) NAMED(isa_, NAME)
#define TEXT_OF(NAME) #NAME
#define TEXT(NAME) TEXT_OF(NAME)
extern const Isa OBJECT(ISA);
const Isa OBJECT(ISA) = {TEXT(ISA), FAST_INT8, 0, linear, linear_scratch, step, step_scratch};
