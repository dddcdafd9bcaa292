/*
 * What tells a clone from its original. The hypervisor gives every guest a generation id (Microsoft's "Virtual Machine
 * Generation ID", which QEMU offers as the device vmgenid) and changes it when the guest is forked. Kernels with a
 * driver for it reseed their random numbers then; the Debian 12 cloud kernel has none, so this program does
 * it: it reads the id from the guest-physical address that the ACPI tables name, and feeds the kernel fresh bytes from
 * the hardware random number generator when the id has changed.
 */
#define _GNU_SOURCE
#include "guestd.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/random.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define TABLES "/sys/firmware/acpi/tables"
#define GUID_BYTES 16
#define GUID_OFFSET 40 /* where QEMU puts the id in its page (docs/specs/vmgenid.txt) */
#define RESEED_BYTES 64
#define POLL_US 250000 /* a guest of which nobody wants anything should cost next to nothing */

static const unsigned char *guid; /* NULL when this guest has no generation id */
static unsigned char known[GUID_BYTES];
static int source, pool, kernel_log; /* opened beforehand, so that a clone has less to do */
static unsigned long changes, reseeds, kernel_reseeds;

/* Finds the page's address in one ACPI table: Name (VGIA, 0x........) is 08 'V' 'G' 'I' 'A' 0C and four bytes. */
static uint32_t address_in(const char *path) {
  static unsigned char table[65536];
  static const unsigned char name[] = {0x08, 'V', 'G', 'I', 'A', 0x0c};
  uint32_t address = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t length = read(fd, table, sizeof table);
  close(fd);
  if (length <= 0) return 0;
  const unsigned char *at = memmem(table, (size_t)length, name, sizeof name);
  if (at && at + sizeof name + 4 <= table + length) memcpy(&address, at + sizeof name, 4);
  return address;
}

static void map_guid(void) {
  struct dirent *entry;
  uint32_t address = 0;
  DIR *tables = opendir(TABLES);
  while (tables && !address && (entry = readdir(tables))) {
    char path[300];
    if (strncmp(entry->d_name, "SSDT", 4) != 0) continue;
    snprintf(path, sizeof path, TABLES "/%s", entry->d_name);
    address = address_in(path);
  }
  if (tables) closedir(tables);
  if (!address) return;
  int fd = open("/dev/mem", O_RDONLY | O_CLOEXEC);
  void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, address & ~4095u);
  close(fd);
  if (page == MAP_FAILED) return;
  guid = (unsigned char *)page + (address & 4095) + GUID_OFFSET;
}

/* Mixes fresh bytes into the kernel's pool and makes it use them at once (random(4)). */
static void reseed(void) {
  struct {
    struct rand_pool_info info;
    unsigned char bytes[RESEED_BYTES];
  } entropy = {.info = {.entropy_count = RESEED_BYTES * 8, .buf_size = RESEED_BYTES}};
  ssize_t got = read(source, entropy.info.buf, RESEED_BYTES);
  if (got == RESEED_BYTES && ioctl(pool, RNDADDENTROPY, &entropy.info) == 0 && ioctl(pool, RNDRESEEDCRNG) == 0)
    reseeds += 1;
}

/* Counts the kernel's own messages, for kernels that have the driver. */
static void read_kernel_log(void) {
  char line[2048];
  ssize_t length;
  while ((length = read(kernel_log, line, sizeof line - 1)) > 0) {
    line[length] = 0;
    if (strstr(line, "crng reseeded due to virtual machine fork")) kernel_reseeds += 1;
  }
}

static void look(void) {
  static pthread_mutex_t looking = PTHREAD_MUTEX_INITIALIZER;
  if (!guid) return;
  pthread_mutex_lock(&looking);
  if (memcmp(known, guid, GUID_BYTES) != 0) {
    memcpy(known, guid, GUID_BYTES);
    changes += 1;
    reseed();
  }
  pthread_mutex_unlock(&looking);
}

static void *watch(void *unused) {
  (void)unused;
  for (;; sleep_us(POLL_US)) look();
  return NULL;
}

void identity_start(void) {
  map_guid();
  source = open("/dev/hwrng", O_RDONLY | O_CLOEXEC);
  pool = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
  kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (!guid) return;
  memcpy(known, guid, GUID_BYTES);
  start_thread(watch, NULL);
}

void identity_answer(struct answer *answer) {
  static const int order[GUID_BYTES] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  look();
  read_kernel_log();
  say(answer, "{\"vmgenid\":");
  if (guid) {
    say(answer, "\"");
    for (int index = 0; index < GUID_BYTES; index++)
      say(answer, "%s%02x", index == 4 || index == 6 || index == 8 || index == 10 ? "-" : "", guid[order[index]]);
    say(answer, "\"");
  } else {
    say(answer, "null");
  }
  say(answer, ",\"changes\":%lu,\"reseeds\":%lu,\"kernel_reseeds\":%lu}", changes, reseeds, kernel_reseeds);
}

void random_answer(struct answer *answer) {
  unsigned char bytes[16] = {0};
  look(); /* never the same bytes as the original's */
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return refuse(answer, 400, "getrandom failed");
  say(answer, "{\"random\":\"");
  for (size_t index = 0; index < sizeof bytes; index++) say(answer, "%02x", bytes[index]);
  say(answer, "\"}");
}
