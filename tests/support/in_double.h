/* Forced in front of every file of the target thaw_double: all of the engine computes in double, so that finite differences
 * can tell a wrong gradient from a rounded one. System headers come first, and keep their float. */
#ifndef THAW_TEST_IN_DOUBLE_H
#define THAW_TEST_IN_DOUBLE_H

#include <Random123/philox.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <float.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#define float double
#define ceilf ceil
#define expf exp
#define expm1f expm1
#define fabsf fabs
#define floorf floor
#define fmaf fma
#define fmaxf fmax
#define fminf fmin
#define log1pf log1p
#define logf log
#define powf pow
#define sqrtf sqrt
#define tanhf tanh

#endif
