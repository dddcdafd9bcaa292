/*
 * A writer that commits rows to a disk, one after the other, and knows what must be there. Past the guest's page cache, so that what is read back was on the disk:
 *
 *     blocks 0 to SLOTS - 1   a table: each row overwrites one slot of it
 *     blocks from SLOTS on    a log: row after row
 *
 * A row is committed once both are written and flushed; memory then says so. What memory and disk say of each other must hold in a clone, too.
 */
#define _GNU_SOURCE
#include "guestd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BLOCK 4096
#define SLOTS 512
#define MAGIC 0x52414d4554524f57ull
#define MAX_TAGS 8

struct row {
  uint64_t magic, number, tag, filler[BLOCK / 8 - 4], sum;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int device = -1;
static bool writing, writer_lives;
static uint64_t committed, capacity, tag, pause_us, longest_us, failures;
static uint64_t table[SLOTS];
static struct row *buffer;

static uint64_t sum_of(const struct row *row) {
  const uint64_t *words = (const uint64_t *)row;
  uint64_t sum = 1469598103934665603ull;
  for (size_t at = 0; at < BLOCK / 8 - 1; at++) sum = (sum ^ words[at]) * 1099511628211ull;
  return sum;
}

static uint64_t slot_of(uint64_t number) { return number * 2654435761u % SLOTS; }

static bool put(uint64_t block) { return pwrite(device, buffer, BLOCK, (off_t)block * BLOCK) == BLOCK; }

/* With `lock` held. */
static bool commit(void) {
  uint64_t number = committed + 1;
  *buffer = (struct row){.magic = MAGIC, .number = number, .tag = tag};
  for (size_t at = 0; at < sizeof buffer->filler / 8; at++) buffer->filler[at] = number * 31 + at;
  buffer->sum = sum_of(buffer);
  uint64_t began = now_us();
  if (!put(slot_of(number)) || !put(SLOTS + number - 1) || fdatasync(device)) return false;
  if (now_us() - began > longest_us) longest_us = now_us() - began;
  table[slot_of(number)] = number;
  committed = number;
  return true;
}

static void *write_rows(void *unused) {
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&lock);
    if (!writing || committed == capacity) {
      writer_lives = writing = false;
      pthread_mutex_unlock(&lock);
      return NULL;
    }
    if (!commit()) failures += 1;
    uint64_t wait = pause_us;
    pthread_mutex_unlock(&lock);
    sleep_us(wait > 0 ? wait : 1);
  }
}

/* With `lock` held. */
static bool open_device(const char *query, struct answer *answer) {
  char name[32], path[64];
  uint64_t bytes;
  if (device >= 0) return true;
  snprintf(path, sizeof path, "/dev/%s", parameter(query, "device", name, sizeof name) ? name : "vda");
  device = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
  if (device < 0 || ioctl(device, BLKGETSIZE64, &bytes) || posix_memalign((void **)&buffer, BLOCK, BLOCK)) {
    refuse(answer, 400, "there is no such disk");
    return false;
  }
  capacity = bytes / BLOCK - SLOTS;
  return true;
}

static void say_status(struct answer *answer) {
  say(answer, "{\"committed\":%lu,\"tag\":%lu,\"writing\":%s,\"longest_us\":%lu,\"failures\":%lu}", committed, tag,
      writing ? "true" : "false", longest_us, failures);
}

void disk_start(const char *query, struct answer *answer) {
  pthread_mutex_lock(&lock);
  if (open_device(query, answer)) {
    tag = (uint64_t)number_parameter(query, "tag", (long)tag);
    pause_us = (uint64_t)number_parameter(query, "pause", (long)pause_us);
    writing = true;
    if (!writer_lives) start_thread(write_rows, NULL);
    writer_lives = true;
    say_status(answer);
  }
  pthread_mutex_unlock(&lock);
}

/* What is written from now on says so; answers what was committed before. */
void disk_tag(const char *query, struct answer *answer) {
  pthread_mutex_lock(&lock);
  tag = (uint64_t)number_parameter(query, "value", (long)tag);
  longest_us = 0;
  say_status(answer);
  pthread_mutex_unlock(&lock);
}

void disk_stop(struct answer *answer) {
  pthread_mutex_lock(&lock);
  writing = false;
  say_status(answer);
  pthread_mutex_unlock(&lock);
}

/* Does not wait for a disk that hangs. */
void disk_status(struct answer *answer) { say_status(answer); }

static bool is_row(uint64_t block, uint64_t number) {
  return pread(device, buffer, BLOCK, (off_t)block * BLOCK) == BLOCK && buffer->magic == MAGIC &&
         buffer->number == number && buffer->sum == sum_of(buffer);
}

/* Reads all that was committed. Between two rows, so nothing is half done; the row after the last must not be there. */
void disk_verify(struct answer *answer) {
  uint64_t wrong = 0, first_wrong = 0, after = 0, tags[MAX_TAGS] = {0};
  pthread_mutex_lock(&lock);
  for (uint64_t number = 1; device >= 0 && number <= committed; number++) {
    if (is_row(SLOTS + number - 1, number)) tags[buffer->tag % MAX_TAGS] += 1;
    else if (wrong++ == 0) first_wrong = number;
  }
  for (uint64_t slot = 0; device >= 0 && slot < SLOTS; slot++)
    if (table[slot] && !is_row(slot, table[slot]) && wrong++ == 0) first_wrong = table[slot];
  for (uint64_t number = committed + 1; device >= 0 && number <= committed + 64 && number <= capacity; number++)
    if (is_row(SLOTS + number - 1, number)) after += 1;
  say(answer, "{\"committed\":%lu,\"wrong\":%lu,\"first_wrong\":%lu,\"after\":%lu,\"tags\":[", committed, wrong, first_wrong,
      after);
  for (int at = 0; at < MAX_TAGS; at++) say(answer, "%s%lu", at ? "," : "", tags[at]);
  say(answer, "]}");
  pthread_mutex_unlock(&lock);
}
