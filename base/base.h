/* base: the door of the lowest room. Everything above may use everything here.
 *
 * Nothing in this room knows what a model is. Threads: each header says.
 */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/mathx.h"
#include "base/mem.h"
#include "base/mutant.h"
#include "base/queue.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/timeline.h"
#include "base/trace.h"

#endif
