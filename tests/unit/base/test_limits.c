/* Memory that is left, on made-up machines. */
#include "base_case.h"

#include "base/limits.h"

static void put(const char *name, const char *text) {
    char *path = thaw_path_join(folder, name), *parent = thaw_path_dirname(path);
    assert_int_equal(thaw_io_mkdirs(parent), THAW_OK);
    put_file(path, text);
    thaw_free(path);
    thaw_free(parent);
}

static void expect_left(int ranks, uint64_t bytes, const char *what) {
    thaw_memory_left left = thaw_memory_left_of(folder, ranks);
    if (left.bytes != bytes || !strstr(left.what, what))
        fail_msg("%llu (%s), expected %llu (%s)", (unsigned long long)left.bytes, left.what, (unsigned long long)bytes, what);
}

static int fresh(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s/*", folder);
    unsetenv("SLURM_MEM_PER_NODE");
    unsetenv("SLURM_MEM_PER_CPU");
    unsetenv("SLURM_CPUS_ON_NODE");
    return system(command);
}

static void test_host(void **state) {
    (void)state;
    expect_left(1, 0, "host"); /* nothing is known */
    put("proc/meminfo", "MemTotal:       100 kB\nMemFree:   1 kB\nMemAvailable:   50 kB\n");
    expect_left(1, 50 << 10, "memory of the host");
}

static void test_second_groups(void **state) {
    (void)state;
    put("proc/meminfo", "MemAvailable: 1000 kB\n");
    put("proc/self/cgroup", "0::/slurm/job7\n");
    put("sys/fs/cgroup/slurm/job7/memory.max", "max\n");
    put("sys/fs/cgroup/slurm/job7/memory.current", "400000\n");
    expect_left(1, 1000 << 10, "host");
    put("sys/fs/cgroup/slurm/job7/memory.max", "700000\n");
    expect_left(1, 300000, "control group");
    put("sys/fs/cgroup/slurm/job7/memory.stat", "anon 1\nactive_file 100\ninactive_file 50000\nshmem 7\n");
    expect_left(1, 350100, "control group");
    put("sys/fs/cgroup/slurm/memory.max", "500000\n"); /* the group above is tighter */
    put("sys/fs/cgroup/slurm/memory.current", "450000\n");
    expect_left(1, 50000, "control group");
    put("sys/fs/cgroup/slurm/memory.current", "600000\n");
    expect_left(1, 0, "control group");
    /* In a container the name is one of outside, and the root is ours. */
    put("proc/self/cgroup", "0::/../../elsewhere\n");
    put("sys/fs/cgroup/memory.max", "900000\n");
    put("sys/fs/cgroup/memory.current", "100000\n");
    expect_left(1, 800000, "control group");
}

static void test_first_groups(void **state) {
    (void)state;
    put("proc/meminfo", "MemAvailable: 1000 kB\n");
    put("proc/self/cgroup", "11:cpu:/x\n4:hugetlb,memory:/box\n0::/\n");
    put("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "600000\n");
    put("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "200000\n");
    put("sys/fs/cgroup/memory/box/memory.stat", "inactive_file 5\ntotal_inactive_file 30000\ntotal_active_file 20000\n");
    expect_left(1, 450000, "control group");
    put("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    expect_left(1, 1000 << 10, "host");
    put("proc/self/cgroup", "nonsense\n:::\n4:memory\n\n");
    expect_left(1, 1000 << 10, "host");
}

static void test_processor_time(void **state) {
    (void)state;
    assert_true(thaw_cores_allowed(folder) == 0);
    put("proc/self/cgroup", "0::/slurm/job7\n");
    put("sys/fs/cgroup/slurm/job7/cpu.max", "max 100000\n");
    assert_true(thaw_cores_allowed(folder) == 0);
    put("sys/fs/cgroup/slurm/cpu.max", "150000 100000\n");
    assert_true(thaw_cores_allowed(folder) == 1.5);
    put("sys/fs/cgroup/slurm/job7/cpu.max", "400000 100000\n"); /* the group above is tighter */
    assert_true(thaw_cores_allowed(folder) == 1.5);
    put("proc/self/cgroup", "8:cpuset:/box\n11:cpu,cpuacct:/box\n");
    assert_true(thaw_cores_allowed(folder) == 0);
    put("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "50000\n");
    assert_true(thaw_cores_allowed(folder) == 0);
    put("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "100000\n");
    assert_true(thaw_cores_allowed(folder) == 2);
    put("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "0\n");
    assert_true(thaw_cores_allowed(folder) == 0);
}

static void test_slurm(void **state) {
    (void)state;
    put("proc/meminfo", "MemAvailable: 8000000 kB\n");
    put("proc/self/status", "Name: thaw\nVmRSS:     1024 kB\n");
    setenv("SLURM_MEM_PER_NODE", "100", 1);
    expect_left(4, 96ull << 20, "SLURM");
    setenv("SLURM_MEM_PER_NODE", "0", 1); /* the whole node */
    expect_left(4, 8000000ull << 10, "host");
    setenv("SLURM_MEM_PER_CPU", "25", 1);
    setenv("SLURM_CPUS_ON_NODE", "8", 1);
    expect_left(1, 199ull << 20, "SLURM");
}

static void test_resident(void **state) {
    (void)state;
    put("proc/self/status", "Name: thaw\nVmHWM:     2048 kB\nVmRSS:     1024 kB\nRssShmem:  512 kB\n");
    thaw_resident resident = thaw_resident_bytes(folder);
    assert_int_equal(resident.now, 1 << 20);
    assert_int_equal(resident.peak, 2 << 20);
    assert_int_equal(resident.common, 1 << 19);
    put("proc/self/status", "Name: thaw\n");
    resident = thaw_resident_bytes(folder);
    assert_true(resident.now == 0 && resident.peak == 0);
}

/* What rests is not resident; the block can be written again. */
static void test_rest(void **state) {
    (void)state;
    const uint64_t size = 64ull << 20, slack = 8ull << 20; /* sanitizers keep notes of their own */
    const uint64_t before = thaw_resident_bytes("").now;
    char *block = thaw_malloc(size), *small = thaw_malloc(100);
    memset(block, 1, size);
    memset(small, 1, 100);
    assert_true(thaw_resident_bytes("").now >= before + size - slack);
    thaw_memory_rest(block);
    thaw_memory_rest(small);
    thaw_memory_rest(NULL);
    assert_true(thaw_resident_bytes("").now <= before + slack + size / 8);
    memset(block, 2, size);
    assert_true(block[0] == 2 && block[size - 1] == 2 && small[99] == 1);
    thaw_free(block);
    thaw_free(small);
}

int main(void) {
#define RUN(test) cmocka_unit_test_setup(test, fresh)
    const struct CMUnitTest tests[] = {RUN(test_host), RUN(test_second_groups), RUN(test_first_groups),
                                       RUN(test_processor_time), RUN(test_slurm), RUN(test_resident), RUN(test_rest)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
