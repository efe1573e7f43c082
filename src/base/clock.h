/* Time, replaceable in tests. */
#ifndef THAW_BASE_CLOCK_H
#define THAW_BASE_CLOCK_H
double thaw_clock(void);                  /* monotonic seconds */
double thaw_clock_unix(void);             /* seconds since 1970, for times that others give; not replaced */
void thaw_clock_set(double (*source)(void)); /* NULL: the real one */
#endif
