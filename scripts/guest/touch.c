/*
 * What a program of this guest feels of its memory: one thread touches random pages of the stamped area and measures each
 * touch. A touch reads a word of the page, or writes the same word again, so the stamps stay as they are. The thread touches at
 * a rate and does not catch up after it had to wait: a program that waits asks for nothing meanwhile.
 *
 * The guest's clock stands still while the guest is stopped, so a stop is not in the figures; a wait for a page is.
 */
#define _GNU_SOURCE
#include "guestd.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define PAGE_WORDS 512
/* How far ahead of its rate it must be before it sleeps: shorter sleeps cost more than they last. */
#define LEAST_SLEEP_US 1000
#define DEFAULT_RATE 20000
#define DEFAULT_THRESHOLD_US 50

static pthread_mutex_t control = PTHREAD_MUTEX_INITIALIZER;
/* Guards what was counted, against a reset. */
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;
static pthread_t toucher;
static bool running, stopping, writing;
static uint64_t *area, pages, rate, threshold_us, seed;
static struct histogram touches;
static uint64_t stalls, stall_ns;

static uint64_t next_page(uint64_t *state) {
  uint64_t value = *state += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return (value ^ (value >> 31)) % pages;
}

static void count_touch(uint64_t nanoseconds) {
  pthread_mutex_lock(&counting);
  record(&touches, nanoseconds);
  if (nanoseconds >= threshold_us * 1000) {
    stalls += 1;
    stall_ns += nanoseconds;
  }
  pthread_mutex_unlock(&counting);
}

static void *touch_pages(void *unused) {
  uint64_t state = seed, due_us = now_us(), done = 0;
  (void)unused;
  while (!__atomic_load_n(&stopping, __ATOMIC_ACQUIRE)) {
    uint64_t *word = area + next_page(&state) * PAGE_WORDS, begun_ns = now_ns();
    /* Adding nothing writes, and may run beside the writer of stamps. */
    if (writing) __atomic_fetch_add(word, 0, __ATOMIC_SEQ_CST);
    else (void)__atomic_load_n(word, __ATOMIC_SEQ_CST);
    uint64_t ended_ns = now_ns(), ended_us = ended_ns / 1000;
    count_touch(ended_ns - begun_ns);
    if (rate == 0) continue;
    due_us += (done + 1) * 1000000 / rate - done * 1000000 / rate;
    done = (done + 1) % rate;
    if (ended_us > due_us) due_us = ended_us;
    else if (due_us - ended_us >= LEAST_SLEEP_US) sleep_us(due_us - ended_us);
  }
  return NULL;
}

static void clear(void) {
  memset(&touches, 0, sizeof touches);
  stalls = stall_ns = 0;
}

static void stop_locked(void) {
  __atomic_store_n(&stopping, true, __ATOMIC_RELEASE);
  if (running) pthread_join(toucher, NULL);
  running = false;
}

void touch_halt(void) {
  pthread_mutex_lock(&control);
  stop_locked();
  pthread_mutex_unlock(&control);
}

void touch_answer(const char *query, struct answer *answer, bool reset) {
  pthread_mutex_lock(&counting);
  say(answer, "{\"running\":%s,\"stalls\":%lu,\"stall_us\":%lu,\"threshold_us\":%lu,", running ? "true" : "false", stalls,
      stall_ns / 1000, threshold_us);
  say_histogram(answer, &touches);
  say(answer, "}");
  if (reset) clear();
  pthread_mutex_unlock(&counting);
  if (number_parameter(query, "console", 0) == 0) return;
  printf("ramet-guest touch %s\n", answer->body);
  fflush(stdout);
}

void touch_start(const char *query, struct answer *answer) {
  char mode[16] = "read";
  parameter(query, "mode", mode, sizeof mode);
  pthread_mutex_lock(&control);
  stop_locked();
  area = stamp_area(&pages);
  if (!area) {
    refuse(answer, 400, "there is no stamped area");
  } else if (strcmp(mode, "read") != 0 && strcmp(mode, "write") != 0) {
    refuse(answer, 400, "mode must be read or write");
  } else {
    writing = strcmp(mode, "write") == 0;
    rate = (uint64_t)number_parameter(query, "rate", DEFAULT_RATE);
    threshold_us = (uint64_t)number_parameter(query, "threshold_us", DEFAULT_THRESHOLD_US);
    seed = (uint64_t)number_parameter(query, "seed", 1);
    clear();
    stopping = false;
    running = pthread_create(&toucher, NULL, touch_pages, NULL) == 0;
    touch_answer("", answer, false);
  }
  pthread_mutex_unlock(&control);
}

void touch_stop(const char *query, struct answer *answer) {
  touch_halt();
  touch_answer(query, answer, false);
}
