// What the library exports, the team of threads, and the choice of an instruction set by what the processor has.
#define _DEFAULT_SOURCE  // syscall()
#include <string.h>

#include "team.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
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

#if defined(__x86_64__)
extern const Isa isa_plain, isa_avx2, isa_avx512, isa_avx512vnni, isa_amx;

// The kernel hands tiles out on request, for all threads of the process (Linux: "Using XSTATE features in user space
// applications"). It refuses where a thread's signal stack has no room for them.
static int may_use_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}

static int bits(unsigned word, unsigned wanted) { return (word & wanted) == wanted; }

// Read from the processor itself: compilers' own builtins for this need a start-up routine that not every linker brings.
// What x86-64-v3 and v4 hold: System V ABI, AMD64 supplement, "Micro-Architecture Levels". Bits: Intel's Software
// Developer's Manual, CPUID; XCR0 says which registers the system saves.
static int runs(const Isa *isa) {
    enum { FMA = 1 << 12, MOVBE = 1 << 22, OSXSAVE = 1 << 27, F16C = 1 << 29 };              // leaf 1, ecx
    enum { BMI1 = 1 << 3, AVX2 = 1 << 5, BMI2 = 1 << 8 };                                    // leaf 7, ebx
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;            // F, DQ, CD, BW, VL
    enum { VNNI = 1 << 11, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };  // leaf 7, ecx and edx
    enum { LZCNT = 1 << 5 };                                          // leaf 0x80000001, ecx
    enum { YMM_SAVED = 6, ZMM_SAVED = 0xe6, TILES_SAVED = 3 << 17 };
    unsigned a, b, c, d, more, saved, high;
    if (isa == &isa_plain) return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bits(c, FMA | MOVBE | OSXSAVE | F16C)) return 0;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if (!__get_cpuid(0x80000001, &a, &b, &more, &d) || !bits(more, LZCNT) || !bits(saved, YMM_SAVED)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !bits(b, BMI1 | AVX2 | BMI2)) return 0;
    if (isa == &isa_avx2) return 1;
    if (!bits(saved, ZMM_SAVED) || !bits(b, avx512)) return 0;
    if (isa == &isa_avx512) return 1;
    if (!bits(c, VNNI)) return 0;
    return isa == &isa_avx512vnni || (bits(d, AMX_TILE | AMX_INT8) && bits(saved, TILES_SAVED) && may_use_tiles());
}
static const Isa *const isas[] = {&isa_amx, &isa_avx512vnni, &isa_avx512, &isa_avx2, &isa_plain};
#else
extern const Isa isa_neon;
static int runs(const Isa *isa) { return isa == &isa_neon; }
static const Isa *const isas[] = {&isa_neon};
#endif

enum { ISAS = sizeof isas / sizeof *isas };

// Of qaio.h: who was written for another one cannot call this.
EXPORT int qaio_interface(void) { return INTERFACE; }

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
