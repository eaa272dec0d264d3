/* About the library and the machine. */
#ifndef LONGSPAN_SYSTEM_H
#define LONGSPAN_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

#include <longspan/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** "0.1.0". */
LS_API const char *ls_version(void);
/** One line: instruction sets in use, GEMM library and its version, Unicode tables. */
LS_API const char *ls_build_info(void);
/** Processors this process may use. */
LS_API int ls_cpu_count(void);
/** Highest resident memory of the process so far, bytes. */
LS_API size_t ls_peak_bytes(void);
/** Bytes the system (and a container's limit) could give now without swapping, 0 if unknown. */
LS_API size_t ls_memory_available(void);

#ifdef __cplusplus
}
#endif
#endif
