/*
 * An area of memory whose every page says what it must contain. One thread writes the pages in order, over and over; page P is
 * written for the g-th time exactly when `written` (pages written since the start) passes (g - 1) * pages + P. So
 * at any moment the generation each page must carry is known, and a page that was lost, torn, swapped with another
 * or rolled back to an older content is found by reading it.
 */
#define _GNU_SOURCE
#include "guestd.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES 4096
#define PAGE_WORDS (PAGE_BYTES / 8)
#define BATCH_PAGES 16
#define STRIPES 64
#define MAX_BAD 16
#define SPARE_KIB (24 * 1024)
#define MAGIC 0x52616d65745374ULL

static pthread_mutex_t control = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t stripes[STRIPES];
static uint64_t *area;
static uint64_t pages, written, rate_mib, rate_now;
/* What the guest's own checks have found since the start: pages read and pages that were wrong. */
static uint64_t check_mib, checked, wrong_pages, first_wrong;
static bool whole_pages, stopping, writing, checking;
static pthread_t writer, checker;
static struct histogram writer_stalls, reader_stalls;

static uint64_t mix(uint64_t page, uint64_t generation) {
  uint64_t value = page * 0x9e3779b97f4a7c15ULL + generation * 0xbf58476d1ce4e5b9ULL + MAGIC;
  value = (value ^ (value >> 30)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

static pthread_mutex_t *stripe_of(uint64_t page) { return &stripes[page / BATCH_PAGES % STRIPES]; }

static void write_page(uint64_t page, uint64_t generation) {
  uint64_t *words = area + page * PAGE_WORDS, value = mix(page, generation);
  words[0] = MAGIC;
  words[1] = page;
  words[2] = generation;
  words[3] = value;
  if (whole_pages) {
    for (int word = 4; word < PAGE_WORDS; word++) words[word] = value += 0x9e3779b97f4a7c15ULL;
  } else {
    words[PAGE_WORDS - 1] = value;
  }
}

static bool check_page(uint64_t page, uint64_t generation) {
  const uint64_t *words = area + page * PAGE_WORDS;
  uint64_t value = mix(page, generation), wrong = 0;
  /* A page never written must still be all zeros. */
  if (generation == 0) {
    for (int word = 0; word < PAGE_WORDS; word++) wrong |= words[word];
    return wrong == 0;
  }
  wrong = (words[0] ^ MAGIC) | (words[1] ^ page) | (words[2] ^ generation) | (words[3] ^ value);
  if (whole_pages) {
    for (int word = 4; word < PAGE_WORDS; word++) wrong |= words[word] ^ (value += 0x9e3779b97f4a7c15ULL);
  } else {
    wrong |= words[PAGE_WORDS - 1] ^ value;
  }
  return wrong == 0;
}

/* The generation a page carries now. The caller holds the page's stripe, so that it cannot change meanwhile. */
static uint64_t generation_of(uint64_t page) {
  uint64_t position = __atomic_load_n(&written, __ATOMIC_ACQUIRE);
  return position / pages + (page < position % pages);
}

/* Counts a page's own check, and tells the console of one that is wrong. The caller holds the page's stripe. */
static void check_and_count(uint64_t page, uint64_t generation) {
  bool good = check_page(page, generation);
  __atomic_add_fetch(&checked, 1, __ATOMIC_RELAXED);
  if (good) return;
  if (__atomic_fetch_add(&wrong_pages, 1, __ATOMIC_RELAXED) > 0) return;
  first_wrong = page;
  printf("ramet-guest stamp: page %lu is not of generation %lu\n", page, generation);
  fflush(stdout);
}

/* Sleeps off what the writer is ahead of its rate, and measures the rate over about a second. */
static void pace(uint64_t *window_us, uint64_t *window_pages, uint64_t *paced_mib) {
  uint64_t spent_us = now_us() - *window_us, done = written - *window_pages;
  uint64_t wanted_mib = __atomic_load_n(&rate_mib, __ATOMIC_RELAXED);
  if (wanted_mib != *paced_mib) {
    *paced_mib = wanted_mib;
    *window_us = now_us();
    *window_pages = written;
  } else if (wanted_mib > 0) {
    uint64_t due_us = done * PAGE_BYTES * 1000000 / (wanted_mib << 20);
    if (due_us > spent_us) sleep_us(due_us - spent_us);
  }
  if (spent_us < 1000000) return;
  rate_now = done * PAGE_BYTES * 1000000 / spent_us >> 20;
  *window_us = now_us();
  *window_pages = written;
}

static void *write_pages(void *unused) {
  uint64_t window_us = now_us(), window_pages = written, paced_mib = rate_mib;
  (void)unused;
  while (!__atomic_load_n(&stopping, __ATOMIC_ACQUIRE)) {
    uint64_t first = written % pages, generation = written / pages + 1;
    uint64_t count = pages - first < BATCH_PAGES ? pages - first : BATCH_PAGES;
    pthread_mutex_lock(stripe_of(first));
    uint64_t begun_ns = now_ns();
    for (uint64_t page = first; page < first + count; page++) {
      if (check_mib > 0) check_and_count(page, generation - 1);
      write_page(page, generation);
    }
    record(&writer_stalls, now_ns() - begun_ns);
    __atomic_store_n(&written, written + count, __ATOMIC_RELEASE);
    pthread_mutex_unlock(stripe_of(first));
    pace(&window_us, &window_pages, &paced_mib);
  }
  return NULL;
}

/* The next page of an order that visits each of `pages` once: a full-period generator over the next power of two. */
static uint64_t next_random(uint64_t state, uint64_t mask) {
  do state = (state * 0x5851f42d4c957f2dULL + 0x14057b7ef767814fULL) & mask;
  while (state >= pages);
  return state;
}

static uint64_t page_mask(void) {
  uint64_t mask = 1;
  while (mask < pages) mask <<= 1;
  return mask - 1;
}

/* Reads all pages over and over, in an order the writer does not have. */
static void *check_pages(void *unused) {
  uint64_t mask = page_mask(), page = 0, slice_us = BATCH_PAGES * PAGE_BYTES * 1000000ULL / (check_mib << 20);
  (void)unused;
  while (!__atomic_load_n(&stopping, __ATOMIC_ACQUIRE)) {
    for (int turn = 0; turn < BATCH_PAGES; turn++) {
      pthread_mutex_lock(stripe_of(page));
      check_and_count(page, generation_of(page));
      pthread_mutex_unlock(stripe_of(page));
      page = next_random(page, mask);
    }
    sleep_us(slice_us);
  }
  return NULL;
}

/* Caller holds `control`. */
static void stop_threads(void) {
  __atomic_store_n(&stopping, true, __ATOMIC_RELEASE);
  if (writing) pthread_join(writer, NULL);
  if (checking) pthread_join(checker, NULL);
  writing = checking = false;
  rate_now = 0;
}

static uint64_t available_kib(void) {
  char line[128];
  unsigned long kib = 0;
  FILE *file = fopen("/proc/meminfo", "r");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "MemAvailable: %lu", &kib) == 1) break;
  if (file) fclose(file);
  return kib;
}

static void status_locked(struct answer *answer) {
  uint64_t position = __atomic_load_n(&written, __ATOMIC_ACQUIRE);
  say(answer, "{\"running\":%s,\"pages\":%lu,\"mib\":%lu,\"generation\":%lu,\"written_pages\":%lu,\"mib_per_s\":%lu,",
      writing ? "true" : "false", pages, pages * PAGE_BYTES >> 20, pages ? position / pages : 0, position, rate_now);
  say(answer, "\"checking\":%s,\"checked_pages\":%lu,\"wrong_pages\":%lu,\"first_wrong\":%lu}",
      checking ? "true" : "false", checked, wrong_pages, first_wrong);
}

void stamp_status(struct answer *answer) {
  pthread_mutex_lock(&control);
  status_locked(answer);
  pthread_mutex_unlock(&control);
}

void stamp_start(const char *query, struct answer *answer) {
  char fill[16] = "page";
  long mib = number_parameter(query, "mib", 64);
  parameter(query, "fill", fill, sizeof fill);
  touch_halt();
  pthread_mutex_lock(&control);
  stop_threads();
  if (area) munmap(area, pages * PAGE_BYTES);
  area = NULL;
  pages = written = checked = wrong_pages = first_wrong = 0;
  if (mib < 1 || (uint64_t)mib * 1024 + SPARE_KIB > available_kib()) {
    refuse(answer, 400, "mib must be at least 1 and fit in the free memory");
    goto out;
  }
  area = mmap(NULL, (size_t)mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) {
    area = NULL;
    refuse(answer, 400, "the memory could not be allocated");
    goto out;
  }
  for (int stripe = 0; stripe < STRIPES; stripe++) pthread_mutex_init(&stripes[stripe], NULL);
  pages = ((uint64_t)mib << 20) / PAGE_BYTES;
  rate_mib = (uint64_t)number_parameter(query, "rate", 0);
  whole_pages = strcmp(fill, "edges") != 0;
  stopping = false;
  check_mib = (uint64_t)number_parameter(query, "check", 0);
  writing = pthread_create(&writer, NULL, write_pages, NULL) == 0;
  checking = check_mib > 0 && pthread_create(&checker, NULL, check_pages, NULL) == 0;
  status_locked(answer);
out:
  pthread_mutex_unlock(&control);
}

void stamp_pace(const char *query, struct answer *answer) {
  pthread_mutex_lock(&control);
  __atomic_store_n(&rate_mib, (uint64_t)number_parameter(query, "rate", 0), __ATOMIC_RELAXED);
  status_locked(answer);
  pthread_mutex_unlock(&control);
}

uint64_t *stamp_area(uint64_t *page_count) {
  pthread_mutex_lock(&control);
  uint64_t *found = area;
  *page_count = pages;
  pthread_mutex_unlock(&control);
  return found;
}

void stamp_stop(struct answer *answer) {
  pthread_mutex_lock(&control);
  stop_threads();
  status_locked(answer);
  pthread_mutex_unlock(&control);
}

void stamp_verify(const char *query, struct answer *answer) {
  char order[16] = "linear";
  uint64_t bad = 0, bad_pages[MAX_BAD], begun_us = now_us();
  parameter(query, "order", order, sizeof order);
  bool random = strcmp(order, "random") == 0;
  pthread_mutex_lock(&control);
  uint64_t mask = page_mask();
  uint64_t page = random && pages ? next_random((uint64_t)number_parameter(query, "seed", 1) % pages, mask) : 0;
  for (uint64_t done = 0; done < pages; done++) {
    /* The stripe keeps the writer off this page, so which generation it must have cannot change meanwhile. */
    pthread_mutex_lock(stripe_of(page));
    uint64_t generation = generation_of(page);
    uint64_t started_ns = now_ns();
    bool good = check_page(page, generation);
    record(&reader_stalls, now_ns() - started_ns);
    pthread_mutex_unlock(stripe_of(page));
    if (!good && bad++ < MAX_BAD) bad_pages[bad - 1] = page;
    page = random ? next_random(page, mask) : page + 1;
  }
  say(answer, "{\"order\":\"%s\",\"checked\":%lu,\"bad\":%lu,\"duration_ms\":%lu,\"bad_pages\":[",
      random ? "random" : "linear", pages, bad, (now_us() - begun_us) / 1000);
  for (uint64_t index = 0; index < bad && index < MAX_BAD; index++)
    say(answer, "%s%lu", index ? "," : "", bad_pages[index]);
  say(answer, "]}");
  pthread_mutex_unlock(&control);
}

void stamp_latency(struct answer *answer, bool reset) {
  say(answer, "{\"writer_batch_pages\":%d,\"writer\":{", BATCH_PAGES);
  say_histogram(answer, &writer_stalls);
  say(answer, "},\"reader\":{");
  say_histogram(answer, &reader_stalls);
  say(answer, "}}");
  if (!reset) return;
  memset(&writer_stalls, 0, sizeof writer_stalls);
  memset(&reader_stalls, 0, sizeof reader_stalls);
}
