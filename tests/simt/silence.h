/* silence: a test whose emulated devices had something to object to fails, with their sentence. Behind cmocka.h. */
#ifndef TESTS_SIMT_SILENCE_H
#define TESTS_SIMT_SILENCE_H

#include "tests/simt/simt.h"

static inline void simt_expect_silence(void)
{
    const char *said = simt_take_error();
    if (said != NULL) {
        fail_msg("%s", said);
    }
}

#endif
