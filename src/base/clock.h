/* Time, replaceable in tests. */
#ifndef THAW_BASE_CLOCK_H
#define THAW_BASE_CLOCK_H
double thaw_clock(void);                  /* monotonic seconds */
void thaw_clock_set(double (*source)(void)); /* NULL: the real one */
#endif
