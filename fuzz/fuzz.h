/* The entry point that libFuzzer and the replay program call. */
#ifndef LS_FUZZ_H
#define LS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/** Feed one input to the code under test. Always 0; faults end the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A condition that holds for every input. */
#define FUZZ_CHECK(cond)      \
    do {                      \
        if (!(cond))          \
            __builtin_trap(); \
    } while (0)

#endif
