/* rows, the definition once more, compiled with hardware fma (the Makefile's flags for *_fma.c). */
#define KERNEL(name) name##_fma
#include "backend/cpu/rows_scalar.c"
