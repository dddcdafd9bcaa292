/* Durations counted in buckets that are 1/16 of a power of two wide, as the agents do (about 6 % exact). */
#include "guestd.h"

static uint64_t bucket_of(uint64_t microseconds) {
  if (microseconds < HISTOGRAM_STEPS) return microseconds;
  uint64_t exponent = 63 - (uint64_t)__builtin_clzll(microseconds);
  uint64_t bucket = (exponent - 3) * HISTOGRAM_STEPS + (microseconds >> (exponent - 4)) % HISTOGRAM_STEPS;
  return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* The longest duration that is counted in a bucket. */
static uint64_t longest_of(uint64_t bucket) {
  if (bucket < HISTOGRAM_STEPS) return bucket;
  return ((HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS + 1) << (bucket / HISTOGRAM_STEPS - 1)) - 1;
}

void record(struct histogram *histogram, uint64_t nanoseconds) {
  uint64_t microseconds = nanoseconds / 1000;
  histogram->count += 1;
  histogram->sum_ns += nanoseconds;
  histogram->buckets[bucket_of(microseconds)] += 1;
  if (microseconds > histogram->max_us) histogram->max_us = microseconds;
}

/* The duration in µs that so many in a million do not exceed. */
static uint64_t percentile_us(const struct histogram *histogram, uint64_t per_million) {
  uint64_t seen = 0, wanted = (histogram->count * per_million + 999999) / 1000000;
  for (uint64_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
    seen += histogram->buckets[bucket];
    if (seen < wanted || seen == 0) continue;
    return longest_of(bucket) < histogram->max_us ? longest_of(bucket) : histogram->max_us;
  }
  return 0;
}

void say_histogram(struct answer *answer, const struct histogram *histogram) {
  const char *comma = "";
  say(answer, "\"count\":%lu,\"mean_ns\":%lu,\"max_us\":%lu,", histogram->count,
      histogram->count ? histogram->sum_ns / histogram->count : 0, histogram->max_us);
  say(answer, "\"p50_us\":%lu,\"p99_us\":%lu,\"p999_us\":%lu,\"buckets\":[", percentile_us(histogram, 500000),
      percentile_us(histogram, 990000), percentile_us(histogram, 999000));
  for (uint64_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
    if (histogram->buckets[bucket] == 0) continue;
    say(answer, "%s[%lu,%lu]", comma, longest_of(bucket), histogram->buckets[bucket]);
    comma = ",";
  }
  say(answer, "]");
}
