/* virtual_target: a target whose passes last as long as asked, to reproduce the operating point of a device
 * that is not here: a large model on a GPU beside a real draft. Rows and outcomes are those of the target
 * behind it, computed when the pass begins; then the step thread waits until the time is up, and its lane
 * idles. What is measured with it is measured with a virtual target, and says so.
 *
 * It does not make anything faster: a pass that takes longer than asked is counted as late.
 */
#ifndef TARGET_VIRTUAL_TARGET_H
#define TARGET_VIRTUAL_TARGET_H

#include "target/target.h"

struct virtual_target_options {
    struct target *behind;       /* borrowed */
    int64_t pass_ns, row_ns;     /* a pass of n rows lasts pass_ns + n * row_ns */
};
/* STATUS_INVALID for times below 0, STATUS_NO_MEMORY. */
enum status virtual_target_create(const struct virtual_target_options *options, struct target **out);
struct virtual_target_report { uint64_t passes, late; };
/* All zero for another kind of target. */
struct virtual_target_report virtual_target_report(const struct target *target);

#endif
