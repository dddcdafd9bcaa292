/* The sample guest's only program: it serves HTTP and keeps watch over its own memory (see README.md beside this). */
#define _GNU_SOURCE
#include "guestd.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/input.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#define TICK_US 10000

static unsigned long requests;
static char boot_id[64], hostname[65];

uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t now_us(void) { return now_ns() / 1000; }

void sleep_us(uint64_t microseconds) {
  struct timespec time = {.tv_sec = (time_t)(microseconds / 1000000), .tv_nsec = (long)(microseconds % 1000000) * 1000};
  nanosleep(&time, NULL);
}

void start_thread(void *(*run)(void *), void *argument) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, argument) == 0) pthread_detach(thread);
}

/* Gives the answer time to leave. */
static void *reboot_soon(void *unused) {
  (void)unused;
  sleep_us(100000);
  reboot(RB_AUTOBOOT);
  return NULL;
}

/* Powers the guest off when its power button is pressed. */
static void *watch_button(void *argument) {
  int fd = (int)(intptr_t)argument;
  struct input_event event;
  while (read(fd, &event, sizeof event) == sizeof event)
    if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) reboot(RB_POWER_OFF);
  return NULL;
}

static void watch_buttons(void) {
  struct dirent *entry;
  DIR *inputs = opendir("/dev/input");
  while (inputs && (entry = readdir(inputs))) {
    char path[300];
    if (strncmp(entry->d_name, "event", 5) != 0) continue;
    snprintf(path, sizeof path, "/dev/input/%s", entry->d_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) start_thread(watch_button, (void *)(intptr_t)fd);
  }
  if (inputs) closedir(inputs);
}

/* Ticks are counted from the clock: a thread that counted them would keep a tenth of an emulator's processor busy. */
static void counter(struct answer *answer) {
  uint64_t uptime_us = now_us();
  say(answer, "{\"counter\":%lu,\"ticks\":%lu,\"uptime_ms\":%lu,\"boot_id\":\"%s\",\"hostname\":\"%s\"}",
      __atomic_add_fetch(&requests, 1, __ATOMIC_RELAXED), uptime_us / TICK_US, uptime_us / 1000, boot_id, hostname);
}

static void route(const char *path, const char *query, struct answer *answer) {
  if (strcmp(path, "/") == 0 || strcmp(path, "/counter") == 0) return counter(answer);
  if (strcmp(path, "/stamp/start") == 0) return stamp_start(query, answer);
  if (strcmp(path, "/stamp/pace") == 0) return stamp_pace(query, answer);
  if (strcmp(path, "/stamp/stop") == 0) return stamp_stop(answer);
  if (strcmp(path, "/stamp/status") == 0) return stamp_status(answer);
  if (strcmp(path, "/stamp/verify") == 0) return stamp_verify(query, answer);
  if (strcmp(path, "/latency") == 0) return stamp_latency(answer, false);
  if (strcmp(path, "/latency/reset") == 0) return stamp_latency(answer, true);
  if (strcmp(path, "/touch/start") == 0) return touch_start(query, answer);
  if (strcmp(path, "/touch/stop") == 0) return touch_stop(query, answer);
  if (strcmp(path, "/touch") == 0) return touch_answer(query, answer, false);
  if (strcmp(path, "/touch/reset") == 0) return touch_answer(query, answer, true);
  if (strcmp(path, "/disk/start") == 0) return disk_start(query, answer);
  if (strcmp(path, "/disk/tag") == 0) return disk_tag(query, answer);
  if (strcmp(path, "/disk/stop") == 0) return disk_stop(answer);
  if (strcmp(path, "/disk/status") == 0) return disk_status(answer);
  if (strcmp(path, "/disk/verify") == 0) return disk_verify(answer);
  if (strcmp(path, "/vmgenid") == 0) return identity_answer(answer);
  if (strcmp(path, "/random") == 0) return random_answer(answer);
  if (strcmp(path, "/reboot") == 0) {
    say(answer, "{\"rebooting\":true}");
    return start_thread(reboot_soon, NULL);
  }
  refuse(answer, 404, "no such page");
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  gethostname(hostname, sizeof hostname - 1);
  FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
  if (file && fgets(boot_id, sizeof boot_id, file)) boot_id[strcspn(boot_id, "\n")] = 0;
  if (file) fclose(file);
  identity_start();
  watch_buttons();
  serve(80, route);
  return 0;
}
