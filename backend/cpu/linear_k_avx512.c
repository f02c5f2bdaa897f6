/* linear_k, AVX-512: segments of the types with blocks of 256 inputs. */
#include "backend/cpu/linear_avx512.h"

SEGMENT_FAMILY_4(linear_q2_k_avx512, TENSOR_Q2_K)
SEGMENT_FAMILY_4(linear_q3_k_avx512, TENSOR_Q3_K)
SEGMENT_FAMILY_6(linear_q4_k_avx512, TENSOR_Q4_K)
SEGMENT_FAMILY_6(linear_q5_k_avx512, TENSOR_Q5_K)
SEGMENT_FAMILY_4(linear_q6_k_avx512, TENSOR_Q6_K)
