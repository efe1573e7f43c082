/* JPEG by libjpeg-turbo with TensorFlow's choices (core/lib/jpeg/jpeg_mem.cc): fast integer DCT, fancy upsampling, no
 * rotation by EXIF, CMYK multiplied out. A file whose picture data is damaged or ends early is an error; oddities that cost
 * no pixel (bytes between segments, an unknown JFIF revision), which photographs of the wild often have, are not. */
#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>
#include <jerror.h>

#include "base/memory.h"
#include "data/image.h"

enum { MOST_SCANS = 200 }; /* of a progressive file; each costs a pass over the whole image */

typedef struct jpeg_reader {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    bool lost; /* a warning said that picture data is missing or wrong */
    thaw_status status; /* of a failure that set its own message */
    char message[JMSG_LENGTH_MAX];
    uint8_t *row; /* of CMYK */
} jpeg_reader;

static void on_error(j_common_ptr info) {
    jpeg_reader *reader = info->client_data;
    info->err->format_message(info, reader->message);
    longjmp(reader->failed, 1);
}

static void on_message(j_common_ptr info, int level) {
    jpeg_reader *reader = info->client_data;
    if (level >= 0 || reader->lost)
        return;
    switch (info->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_BOGUS_ICC:
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_TOO_MUCH_DATA:
        return;
    default:
        reader->lost = true;
        info->err->format_message(info, reader->message);
    }
}

static void on_progress(j_common_ptr info) {
    jpeg_reader *reader = info->client_data;
    if (reader->info.input_scan_number <= MOST_SCANS)
        return;
    snprintf(reader->message, sizeof reader->message, "more than %d scans", MOST_SCANS);
    longjmp(reader->failed, 1);
}

/* One row of CMYK to RGB. Adobe stores inverted values, so K is the light that is left. */
static void from_cmyk(uint8_t *rgb, const uint8_t *cmyk, int64_t width, bool adobe) {
    for (int64_t x = 0; x < width; x++)
        for (int c = 0; c < 3; c++) {
            const int ink = cmyk[4 * x + c], k = cmyk[4 * x + 3];
            rgb[3 * x + c] = (uint8_t)(adobe ? k * ink / 255 : (255 - k) * (255 - ink) / 255);
        }
}

/* Chooses the scale M/8. The inverse DCT then leaves out the higher frequencies of each block, which saves most of its work. */
static void choose_scale(j_decompress_ptr info, const thaw_pixels *pixels) {
    if (pixels->least_height < 1 || pixels->least_width < 1)
        return;
    int64_t m = 1;
    while (m < 8 && ((m * info->image_height + 7) / 8 < pixels->least_height ||
                     (m * info->image_width + 7) / 8 < pixels->least_width))
        m++;
    info->scale_num = (unsigned)m;
    info->scale_denom = 8;
}

/* Decodes inside the caller's setjmp. False: reader->message says why, or reader->status is set. */
static bool decode(jpeg_reader *reader, thaw_pixels *pixels, size_t size, const char *name) {
    j_decompress_ptr info = &reader->info;
    jpeg_read_header(info, TRUE);
    const bool cmyk = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
    info->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    info->dct_method = JDCT_IFAST;
    info->do_fancy_upsampling = TRUE;
    /* A block of 8x8 pixels takes one bit at least, so a small file cannot make us ask for much memory. */
    if (!info->arith_code && (uint64_t)info->image_width * info->image_height > (uint64_t)size * 512) {
        snprintf(reader->message, sizeof reader->message, "%zu bytes cannot hold %u x %u pixels", size, info->image_width,
                 info->image_height);
        return false;
    }
    choose_scale(info, pixels);
    jpeg_calc_output_dimensions(info);
    reader->status = thaw_pixels_check(info->image_height, info->image_width, name); /* as if it were decoded whole */
    if (reader->status == THAW_OK)
        reader->status = thaw_pixels_reserve(pixels, info->output_height, info->output_width, name);
    if (reader->status != THAW_OK)
        return false;
    jpeg_start_decompress(info);
    if (info->output_components != (cmyk ? 4 : 3) || info->output_width != pixels->width ||
        info->output_height != pixels->height) {
        snprintf(reader->message, sizeof reader->message, "%d color components", info->output_components);
        return false;
    }
    if (cmyk && !(reader->row = thaw_calloc((size_t)pixels->width, 4))) {
        reader->status = thaw_fail(THAW_RESOURCE, "%s: no memory for a row of pixels", name);
        return false;
    }
    while (info->output_scanline < info->output_height) {
        uint8_t *to = pixels->data + (size_t)info->output_scanline * (size_t)pixels->width * 3;
        JSAMPROW row = cmyk ? reader->row : to;
        if (jpeg_read_scanlines(info, &row, 1) != 1 || reader->lost)
            return false;
        if (cmyk)
            from_cmyk(to, reader->row, pixels->width, info->saw_Adobe_marker);
    }
    jpeg_finish_decompress(info); /* up to the end marker: a file without one is cut */
    return !reader->lost;
}

thaw_status thaw_jpeg_decode(thaw_pixels *pixels, const uint8_t *bytes, size_t size, const char *name) {
    jpeg_reader reader = {.message = "the data ends early"};
    /* Changed between setjmp and longjmp, hence volatile. */
    volatile bool good = false;
    reader.info.err = jpeg_std_error(&reader.errors);
    reader.errors.error_exit = on_error;
    reader.errors.emit_message = on_message;
    reader.progress.progress_monitor = on_progress;
    reader.info.client_data = &reader;
    if (setjmp(reader.failed) == 0) {
        jpeg_create_decompress(&reader.info); /* keeps err and client_data */
        reader.info.progress = &reader.progress;
        jpeg_mem_src(&reader.info, bytes, (unsigned long)size);
        good = decode(&reader, pixels, size, name);
    }
    jpeg_destroy_decompress(&reader.info);
    thaw_free(reader.row);
    if (good)
        return THAW_OK;
    if (reader.status != THAW_OK)
        return reader.status;
    if (reader.errors.msg_code == JERR_OUT_OF_MEMORY)
        return thaw_fail(THAW_RESOURCE, "%s: no memory to decode this JPEG image", name);
    return thaw_fail(THAW_DATA, "%s is a damaged or unsupported JPEG image: %s; restore, convert or remove it", name,
                     reader.message);
}
