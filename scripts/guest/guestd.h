/* What the parts of the sample guest's program offer each other. */
#ifndef GUESTD_H
#define GUESTD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every answer is JSON and fits in this. */
#define BODY_BYTES 16384

struct answer {
  int status;
  size_t length;
  char body[BODY_BYTES];
};

/* Appends to an answer's body; what does not fit is cut off. */
void say(struct answer *answer, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Makes the answer an error. */
void refuse(struct answer *answer, int status, const char *message);

/* The value of a query parameter, or NULL; the result lies in the caller's buffer. */
const char *parameter(const char *query, const char *name, char *buffer, size_t size);
long number_parameter(const char *query, const char *name, long fallback);

uint64_t now_us(void);
uint64_t now_ns(void);
void sleep_us(uint64_t microseconds);
void start_thread(void *(*run)(void *), void *argument);

/* histogram.c: durations, counted in buckets that are 1/HISTOGRAM_STEPS of a power of two wide, up to 67 s. */
#define HISTOGRAM_STEPS 16
#define HISTOGRAM_BUCKETS (23 * HISTOGRAM_STEPS)
struct histogram {
  uint64_t count, sum_ns, max_us, buckets[HISTOGRAM_BUCKETS];
};
void record(struct histogram *histogram, uint64_t nanoseconds);
/* Fields of an object; the buckets are pairs, the longest duration counted there in µs and how many. */
void say_histogram(struct answer *answer, const struct histogram *histogram);

/* server.c: serves GET requests on a TCP port, for ever. */
void serve(int port, void (*route)(const char *path, const char *query, struct answer *answer));

/* stamp.c: an area of memory whose every page says what it must contain. */
void stamp_start(const char *query, struct answer *answer);
void stamp_pace(const char *query, struct answer *answer);
void stamp_stop(struct answer *answer);
void stamp_status(struct answer *answer);
void stamp_verify(const char *query, struct answer *answer);
void stamp_latency(struct answer *answer, bool reset);
/* The area and its number of pages; NULL while there is none. It stays until touch_halt was called. */
uint64_t *stamp_area(uint64_t *page_count);

/* touch.c: what a program feels that touches random pages of the stamped area. */
void touch_start(const char *query, struct answer *answer);
void touch_stop(const char *query, struct answer *answer);
void touch_answer(const char *query, struct answer *answer, bool reset);
void touch_halt(void);

/* disk.c: rows committed to a disk, which must be what memory says they are. */
void disk_start(const char *query, struct answer *answer);
void disk_tag(const char *query, struct answer *answer);
void disk_stop(struct answer *answer);
void disk_status(struct answer *answer);
void disk_verify(struct answer *answer);

/* identity.c: what tells a clone from its original. */
void identity_start(void);
void identity_answer(struct answer *answer);
void random_answer(struct answer *answer);

#endif
