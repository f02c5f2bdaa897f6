/* the plain C roof loops, compiled with hardware fma */
#define KERNEL(name) name##_fma
#include "backend/cpu/roof_scalar.c"
