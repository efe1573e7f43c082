/* What `thaw predict --output FILE.h5` writes. */
#include "formats/predictions.h"

#include "base/memory.h"
#include "formats/hdf5_write.h"

thaw_status thaw_predictions_image(void **bytes, size_t *size, const float *y, int64_t n, int64_t outputs,
                                   const char *const *files) {
    *bytes = NULL;
    *size = 0;
    size_t expected;
    if (n < 0 || outputs < 0 || thaw_mul_overflow((size_t)n, (size_t)outputs, &expected) ||
        thaw_mul_overflow(expected, sizeof *y, &expected))
        return thaw_fail(THAW_INTERNAL, "predictions of %lld images by %lld outputs", (long long)n, (long long)outputs);
    hid_t file;
    thaw_h5_image image;
    THAW_TRY(thaw_h5_create(&file, &image, expected));
    thaw_status status = thaw_h5_put_floats(file, "y", y, (int64_t[]){n, outputs}, 2);
    if (status == THAW_OK && files)
        status = thaw_h5_put_text_list(file, "files", files, n);
    if (status != THAW_OK) {
        thaw_h5_drop(file, &image);
        return status;
    }
    return thaw_h5_finish(bytes, size, file, &image);
}
