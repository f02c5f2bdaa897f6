/* attention, AVX2 with FMA: eight positions or dimensions to a register. See attention_vector.h. */
#include "backend/cpu/attention.h"
#include "backend/cpu/vector_avx2.h"

#include "backend/cpu/attention_vector.h"

void attention_row_avx2(const struct attention_job *job) { attention_run(job); }
