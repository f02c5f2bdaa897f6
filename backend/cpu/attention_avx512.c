/* attention, AVX-512: sixteen positions or dimensions to a register. See attention_vector.h. */
#include "backend/cpu/attention.h"
#include "backend/cpu/vector_avx512.h"

#include "backend/cpu/attention_vector.h"

void attention_row_avx512(const struct attention_job *job) { attention_run(job); }
