/* merge_heap: neighbours of a piece that wait to become one token, best first: what the merging
 * tokenizers (byte pairs by rank, SentencePiece by score) share. Private to tokenizer.
 */
#ifndef TOKENIZER_MERGE_HEAP_H
#define TOKENIZER_MERGE_HEAP_H

#include <stddef.h>
#include <stdint.h>

/* Lower order first, then lower left. Doubles hold ranks and negated scores as they are. */
struct merge_pair { double order; int32_t left, id; uint32_t n_bytes; };
struct merge_heap { struct merge_pair *pairs; size_t n; }; /* the owner gives pairs, and room for all */

void merge_heap_push(struct merge_heap *heap, struct merge_pair pair);
struct merge_pair merge_heap_pop(struct merge_heap *heap); /* of one that is not empty */

#endif
