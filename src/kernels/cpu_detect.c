/*
 * What the processor and the operating system support. A wide register file counts
 * only if the system saves it on a context switch (XCR0), and the tiles of AMX only
 * after the kernel has granted them to this process.
 */
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define LEVEL_AVX2   ((uint64_t)(LSK_CPU_AVX2 | LSK_CPU_FMA | LSK_CPU_F16C))
#define LEVEL_AVX512 (LEVEL_AVX2 | (uint64_t)LSK_CPU_AVX512)

#if defined(__x86_64__)

#define XCR0_AVX    0x6u
#define XCR0_AVX512 0xe6u
#define XCR0_AMX    0x60000u

struct leaf {
    uint32_t a, b, c, d;
};

static struct leaf cpuid_leaf(uint32_t id, uint32_t sub)
{
    struct leaf l = { 0, 0, 0, 0 };
    if (!__get_cpuid_count(id, sub, &l.a, &l.b, &l.c, &l.d))
        l = (struct leaf){ 0, 0, 0, 0 };
    return l;
}

static uint64_t read_xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool all_set(uint64_t value, uint64_t bits)
{
    return (value & bits) == bits;
}

static bool amx_granted(void)
{
#if defined(__linux__)
    const long req_xcomp_perm = 0x1023, xtiledata = 18;
    return syscall(SYS_arch_prctl, req_xcomp_perm, xtiledata) == 0;
#else
    return false;
#endif
}

uint64_t lsk_cpu_detect(void)
{
    const struct leaf l1 = cpuid_leaf(1, 0);
    const uint32_t osxsave_avx = 1u << 27 | 1u << 28;
    uint64_t f = 0;

    if (!all_set(l1.c, osxsave_avx))
        return 0;
    const uint64_t xcr0 = read_xcr0();
    if (!all_set(xcr0, XCR0_AVX))
        return 0;

    const struct leaf l7 = cpuid_leaf(7, 0);
    const struct leaf l71 = l7.a >= 1 ? cpuid_leaf(7, 1) : (struct leaf){ 0, 0, 0, 0 };
    const uint32_t avx512_fdq_cd_bw_vl = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
    const uint32_t amx_bf16_tile_int8 = 1u << 22 | 1u << 24 | 1u << 25;

    f |= (l7.b & 1u << 5) ? LSK_CPU_AVX2 : 0;
    f |= (l1.c & 1u << 12) ? LSK_CPU_FMA : 0;
    f |= (l1.c & 1u << 29) ? LSK_CPU_F16C : 0;
    f |= (l71.a & 1u << 4) ? LSK_CPU_AVXVNNI : 0;
    if (all_set(xcr0, XCR0_AVX512) && all_set(l7.b, avx512_fdq_cd_bw_vl)) {
        f |= LSK_CPU_AVX512;
        f |= (l7.c & 1u << 1) ? LSK_CPU_VBMI : 0;
        f |= (l7.c & 1u << 11) ? LSK_CPU_VNNI : 0;
        f |= (l71.a & 1u << 5) ? LSK_CPU_BF16 : 0;
        if (all_set(xcr0, XCR0_AMX) && all_set(l7.d, amx_bf16_tile_int8) && amx_granted())
            f |= LSK_CPU_AMX;
    }
    return f;
}

#else

uint64_t lsk_cpu_detect(void)
{
    return 0;
}

#endif

bool lsk_cpu_mask_from_name(const char *name, uint64_t *mask)
{
    static const struct {
        const char *name;
        uint64_t mask;
    } levels[] = {
        { "ref", 0 },
        { "avx2", LEVEL_AVX2 },
        { "avx512", LEVEL_AVX512 },
        { "native", ~(uint64_t)0 },
    };

    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (strcmp(name, levels[i].name) == 0) {
            *mask = levels[i].mask;
            return true;
        }
    }
    return false;
}

uint64_t lsk_cpu_features(void)
{
    const char *level = getenv("LS_CPU");
    uint64_t mask = ~(uint64_t)0;

    if (level && !lsk_cpu_mask_from_name(level, &mask))
        mask = ~(uint64_t)0;
    return lsk_cpu_detect() & mask;
}
