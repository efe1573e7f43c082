/* log.jsonl: values, escapes, going back, failing writes. */
#include "train_case.h"

#include <cjson/cJSON.h>
#include <errno.h>

#include "train/events.h"

static void test_values(void **state) {
    (void)state;
    const char *folder = temporary_folder();
    thaw_events *events;
    assert_ok(thaw_events_open(&events, folder));
    thaw_event *e = thaw_event_begin("epoch");
    thaw_event_text(e, "stage", "fine \"tune\"\n\\ \t\x01 \xc3\xa9 \xff\xc3 \xed\xa0\x80 \xf0\x9f\x8c\xb1");
    thaw_event_text(e, "nothing", NULL);
    thaw_event_number(e, "third", 1.0 / 3);
    thaw_event_number(e, "small", 1.2345678901234e-30);
    thaw_event_number(e, "nan", NAN);
    thaw_event_number(e, "infinite", -INFINITY);
    thaw_event_integer(e, "large", INT64_C(9007199254740993));
    thaw_event_flag(e, "flag", true);
    thaw_event_hash(e, "hash", UINT64_C(0xfedcba987654321));
    thaw_event *metrics = thaw_event_object(e, "metrics");
    thaw_event *list = thaw_event_list(e, "names");
    thaw_event_number(metrics, "loss", 0.5);
    thaw_event_text(list, NULL, "a");
    thaw_event_integer(list, NULL, -2);
    assert_ok(thaw_event_write(events, e));
    char *text = file_text(folder, "log.jsonl");
    assert_int_equal(thaw_events_size(events), strlen(text));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_says(text, "{\"event\":\"epoch\",\"stage\":");
    assert_says(text, "\"large\":9007199254740993,");
    assert_says(text, "\"nan\":null,\"infinite\":null,");
    assert_says(text, "\"hash\":\"0fedcba987654321\"");
    assert_says(text, "\"metrics\":{\"loss\":0.5},\"names\":[\"a\",-2]}");
    assert_says(text, "\"nothing\":null");
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    assert_true(cJSON_GetObjectItem(json, "third")->valuedouble == 1.0 / 3);
    assert_near(cJSON_GetObjectItem(json, "small")->valuedouble, 1.2345678901234e-30, 1e-44);
    /* bytes that are no UTF-8 (a lone 0xff, an unfinished sequence, a surrogate) are replaced one by one */
    assert_string_equal(cJSON_GetObjectItem(json, "stage")->valuestring,
                        "fine \"tune\"\n\\ \t\x01 \xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd "
                        "\xf0\x9f\x8c\xb1");
    cJSON_Delete(json);
    thaw_free(text);
    thaw_events_free(events);
    remove_folder(folder);
}

static void write_one(thaw_events *events, const char *name) { assert_ok(thaw_event_write(events, thaw_event_begin(name))); }

static void test_rewind(void **state) {
    (void)state;
    const char *folder = temporary_folder();
    thaw_events *events;
    size_t live = thaw_memory_live();
    assert_ok(thaw_events_open(&events, folder));
    write_one(events, "start");
    uint64_t size = thaw_events_size(events);
    write_one(events, "lost");
    thaw_events_free(events);
    assert_ok(thaw_events_open(&events, folder));
    assert_true(thaw_events_size(events) > size);
    assert_ok(thaw_events_rewind(events, size));
    assert_ok(thaw_events_verify(events, "head", 3, true, 1, 2, false));
    char *text = file_text(folder, "log.jsonl");
    assert_string_equal(text, "{\"event\":\"start\"}\n{\"event\":\"verify\",\"stage\":\"head\",\"epoch\":3,\"stage_end\":true,"
                              "\"frozen_hash\":{\"before\":\"0000000000000001\",\"after\":\"0000000000000002\"},"
                              "\"frozen_equal\":false,\"replicas_equal\":false}\n");
    thaw_free(text);
    thaw_events_free(events);
    assert_int_equal(thaw_memory_live(), live);
    remove_folder(folder);
}

/* Ranks without a log; events without memory. */
static void test_none(void **state) {
    (void)state;
    const char *folder = temporary_folder();
    thaw_events *events;
    write_one(NULL, "start");
    assert_ok(thaw_events_verify(NULL, "s", 0, false, 1, 1, true));
    assert_int_equal(thaw_events_size(NULL), 0);
    assert_ok(thaw_events_rewind(NULL, 3));
    thaw_event_number(NULL, "a", 1.0);
    thaw_event_text(thaw_event_object(NULL, "a"), "b", "c");
    assert_ok(thaw_events_open(&events, folder));
    assert_int_equal(thaw_event_write(events, NULL), THAW_RESOURCE);
    thaw_event *e = thaw_event_begin("epoch"), *inner = thaw_event_object(thaw_event_object(e, "a"), "b");
    thaw_memory_fail_after(1); /* a value deep inside cannot be made: the whole line is missing */
    thaw_event_text(inner, "c", "text");
    thaw_memory_fail_after(-1);
    assert_int_equal(thaw_event_write(events, e), THAW_RESOURCE);
    thaw_io_fail_after(2, ENOSPC);
    assert_int_equal(thaw_event_write(events, thaw_event_begin("epoch")), THAW_IO);
    thaw_io_fail_after(-1, 0);
    assert_int_equal(thaw_events_size(events), 0);
    write_one(events, "end");
    char *text = file_text(folder, "log.jsonl");
    assert_string_equal(text, "{\"event\":\"end\"}\n");
    thaw_free(text);
    thaw_events_free(events);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_rewind),
                                       cmocka_unit_test(test_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
