/* THAW_KERNELS=reference chooses the reference table at the first call. */
#include <stdlib.h>

#include "kernel_case.h"

static void test_choice(void **state) {
    (void)state;
    assert_int_equal(setenv("THAW_KERNELS", "reference", 1), 0);
    assert_ptr_equal(thaw_kernels_get(), thaw_kernels_reference());
    assert_string_equal(thaw_kernels_describe(), "reference (plain loops, 1 thread)");
    unsetenv("THAW_KERNELS");
    assert_ptr_equal(thaw_kernels_get(), thaw_kernels_reference()); /* only the first call asks */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_choice)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
