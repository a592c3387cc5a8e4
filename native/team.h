// A team of threads that does a job in phases: within a phase whoever is free takes the next piece, and all wait for the
// last before the next phase begins. The threads are those of torch's own OpenMP library: a second pool beside it
// would fight for the cores.
#ifndef TEAM_H
#define TEAM_H

#include <sched.h>
#include <stdatomic.h>

#include "qaio.h"

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() (void)0
#endif

enum { SPINS = 2000, CACHE_LINE = 64, MAX_THREADS = 256 };

typedef struct {
    void (*job)(void *argument, int member);
    void *argument;
    // A cache line each: they are written by all.
    _Alignas(CACHE_LINE) atomic_int joined;
    _Alignas(CACHE_LINE) atomic_int arrived;
    _Alignas(CACHE_LINE) atomic_uint phase;
    _Alignas(CACHE_LINE) atomic_int next[2][CACHE_LINE / sizeof(atomic_int)];
} Team;

extern Team team;
extern int team_threads;      // how many are asked for
extern TeamSize *team_size;   // how many there are, within a job

void team_run(void (*job)(void *argument, int member), void *argument);

// The next piece of the running phase, counted from 0.
static inline int team_take(void) {
    unsigned phase = atomic_load_explicit(&team.phase, memory_order_relaxed);
    return atomic_fetch_add_explicit(&team.next[phase & 1][0], 1, memory_order_relaxed);
}

#define EACH_PIECE(piece, count) for (int piece = team_take(); piece < (count); piece = team_take())

// Ends a phase.
static inline void team_wait(void) {
    unsigned phase = atomic_load_explicit(&team.phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team.arrived, 1, memory_order_acq_rel) == team_size() - 1) {
        atomic_store_explicit(&team.arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team.next[phase & 1][0], 0, memory_order_relaxed);  // for the phase after the next
        atomic_store_explicit(&team.phase, phase + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team.phase, memory_order_acquire) == phase; spins++) {
        if (spins < SPINS)
            PAUSE();
        else
            sched_yield();  // somebody else has a core of ours
    }
}

#endif
