// What the library exports, the team of threads, and the choice of an instruction set by what the processor has.
#include <string.h>

#include "team.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define EXPORT __attribute__((visibility("default")))

Team team;
int team_threads = 1;
TeamSize *team_size;
static Launcher *launch;

static void member_of_team(void *unused) {
    (void)unused;
    team.job(team.argument, atomic_fetch_add(&team.joined, 1));
}

void team_run(void (*job)(void *argument, int member), void *argument) {
    team.job = job, team.argument = argument;
    atomic_store(&team.joined, 0);
    atomic_store(&team.arrived, 0);
    atomic_store(&team.next[0][0], 0);
    atomic_store(&team.next[1][0], 0);
    launch(member_of_team, NULL, (unsigned)team_threads, 0);
}

extern const Isa isa_plain;
#if defined(__x86_64__)
extern const Isa isa_avx2, isa_avx512, isa_avx512vnni;

// Read from the processor itself: compilers' own builtins for this need a start-up routine that not every linker brings.
// Bits: Intel's Software Developer's Manual, CPUID leaves 1 and 7; XCR0 says which registers the system saves.
static int runs(const Isa *isa) {
    unsigned a, b, c, d, low, high;
    if (isa == &isa_plain) return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    int fma = c >> 12 & 1, saves = c >> 27 & 1, half = c >> 29 & 1;
    if (!fma || !saves || !half || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    int avx2 = (low & 6) == 6 && b >> 5 & 1;
    int avx512 = avx2 && (low & 0xe0) == 0xe0 && b >> 16 & 1 && b >> 17 & 1 && b >> 30 & 1 && b >> 31 & 1;
    if (isa == &isa_avx2) return avx2;
    return avx512 && (isa == &isa_avx512 || c >> 11 & 1);
}
static const Isa *const isas[] = {&isa_avx512vnni, &isa_avx512, &isa_avx2, &isa_plain};
#else
static int runs(const Isa *isa) { return isa == &isa_plain; }
static const Isa *const isas[] = {&isa_plain};
#endif

enum { ISAS = sizeof isas / sizeof *isas };

// The names of the instruction sets that this library has code for, best first, NULL behind the last.
EXPORT const char *qaio_name(int number) { return number >= 0 && number < ISAS ? isas[number]->name : NULL; }

// The best that the processor has, or the one of that name; NULL if the processor lacks it.
EXPORT const Isa *qaio_isa(const char *name) {
    for (int i = 0; i < ISAS; i++)
        if (runs(isas[i]) && (!name || !strcmp(name, isas[i]->name))) return isas[i];
    return NULL;
}

// How threads are had: `launcher` is GOMP_parallel or works like it, `size` says within a job how many there are.
EXPORT void qaio_team(Launcher *launcher, TeamSize *size, int threads) {
    launch = launcher, team_size = size;
    team_threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
}
