/* attention_body.h for each stored format: f32_attend, bf16_attend, q8_attend. */
#define NAME(x)     f32_##x
#define FIELDS      1
#define SCALES      0
#define PAIRS       0
#define KEY(w, c)   ((void)(c), vec_as_floats(w))
#define VALUE(w, c) ((void)(c), vec_as_floats(w))
#include "kernels/x86/attention_body.h"

#define NAME(x)     bf16_##x
#define FIELDS      2
#define SCALES      0
#define PAIRS       0
#define KEY(w, c)   ((c) ? vec_bf16_high(w) : vec_bf16_low(w))
#define VALUE(w, c) ((c) ? vec_bf16_high(w) : vec_bf16_low(w))
#include "kernels/x86/attention_body.h"

#define NAME(x)     q8_##x
#define FIELDS      4
#define SCALES      1
#define PAIRS       0
#define KEY(w, c)   vec_byte(vec_flip_bytes(w), c)
#define VALUE(w, c) vec_byte(w, c)
#include "kernels/x86/attention_body.h"
