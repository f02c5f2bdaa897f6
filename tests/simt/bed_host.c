/* bed_host: the bed's memory where device code is emulated: plain memory, which an address sanitizer watches
 * block by block. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/simt/bed.h"
#include "tests/simt/simt.h"

void *bed_alloc(size_t n, size_t size)
{
    void *memory = mem_alloc(n, size);
    assert_non_null(memory);
    return memory;
}

void *bed_alloc_pointers(size_t n, size_t size) { return bed_alloc(n, size); }

void bed_free(void *memory) { mem_free(memory); }

void *bed_enter(const void *op, size_t bytes)
{
    (void)bytes;
    return (void *)(uintptr_t)op;
}

void bed_launched(int error)
{
    const char *said = simt_take_error();
    if (said != NULL) {
        fail_msg("%s", said);
    }
    assert_int_equal(error, 0);
}

void bed_order(int backward)
{
    const enum simt_order order = backward ? SIMT_BACKWARD : SIMT_FORWARD;
    simt_set_order(order, order);
}
