/* linear_simple, AVX-512: segments of the types with blocks of 32 inputs. */
#include "backend/cpu/linear_avx512.h"

SEGMENT_FAMILY_6(linear_q8_0_avx512, TENSOR_Q8_0)
SEGMENT_FAMILY_6(linear_q4_0_avx512, TENSOR_Q4_0)
SEGMENT_FAMILY_6(linear_q4_1_avx512, TENSOR_Q4_1)
SEGMENT_FAMILY_6(linear_q5_0_avx512, TENSOR_Q5_0)
SEGMENT_FAMILY_6(linear_q5_1_avx512, TENSOR_Q5_1)
