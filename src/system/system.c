/* About the library and the machine: names the libraries and instruction sets in use. */
#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

#include <longspan/system.h>

#include "backend/gemm.h"
#include "base/base.h"
#include "kernels/kernels.h"

static const struct {
    const char *name;
    uint64_t bit;
} cpu_names[] = {
#define LSI_CPU_NAME(name, bit) { #name, LSK_CPU_##name },
    LSK_CPU_LIST(LSI_CPU_NAME)
#undef LSI_CPU_NAME
};

const char *ls_version(void)
{
    return LS_VERSION_TEXT;
}

/* Each thread has its own text, so that callers need no lock. */
const char *ls_build_info(void)
{
    static _Thread_local char text[256];
    const uint64_t features = lsk_cpu_features();
    size_t n = (size_t)snprintf(text, sizeof text, "longspan %s, CPU", ls_version());
    for (size_t i = 0; i < LSI_LEN(cpu_names); i++)
        if ((features & cpu_names[i].bit) && n < sizeof text)
            n += (size_t)snprintf(text + n, sizeof text - n, " %s", cpu_names[i].name);
    if (features == 0 && n < sizeof text)
        n += (size_t)snprintf(text + n, sizeof text - n, " plain");
    if (n < sizeof text)
        snprintf(text + n, sizeof text - n, ", GEMM %s, Unicode %s", lsi_gemm_library(),
                 utf8proc_unicode_version());
    return text;
}

int ls_cpu_count(void)
{
    return lsi_cpu_count();
}

size_t ls_peak_bytes(void)
{
    return lsi_peak_rss_bytes();
}

size_t ls_memory_available(void)
{
    return lsi_memory_available();
}
