/*
 * What an agent rehearses transfers on in the place of an emulator: a process with memory of its own, in a file without a name that it has mapped shared, under the
 * library that emulators run under. It does as it is told, one command after the other, and answers each when it is done:
 *
 *   usage: ramet-rehearsal PAGES         says "ready DESCRIPTOR", the number of its memory file
 *   input:  fill FIRST COUNT             content: in each 64 pages, 40 that do not compress, 12 that do, 4 of zeros and 8 that stay holes
 *           read FIRST COUNT TIMES       reads so many of these pages, at random
 *           write FIRST COUNT TIMES      writes to them
 *           empty                        gives all pages back
 *   output: done, for each command
 *
 * It never outlives its agent, even while it waits for a page.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PAGE 4096
#define BLOCK_PAGES 64
#define NOISE_PAGES 40
#define PATTERN_PAGES 52
#define ZERO_PAGES 56

static uint64_t state = 88172645463325252ull;

/* Marsaglia's xorshift64: what is touched and written need only differ. */
static uint64_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static void fill_page(unsigned char *page, size_t kind) {
  uint64_t words[PAGE / sizeof(uint64_t)];
  for (size_t index = 0; index < PAGE / sizeof(uint64_t); index += 1)
    words[index] = kind < NOISE_PAGES ? next_random() : kind < PATTERN_PAGES ? index / 16 + kind : 0;
  memcpy(page, words, PAGE);
}

static void touch(unsigned char *memory, size_t first, size_t count, size_t times, int writes) {
  for (; times > 0; times -= 1) {
    volatile unsigned char *page = memory + (first + next_random() % count) * PAGE;
    if (writes) page[next_random() % PAGE] += 1;
    else (void)page[0];
  }
}

int main(int count, char **arguments) {
  const size_t pages = count == 2 ? strtoull(arguments[1], NULL, 10) : 0;
  if (pages == 0) return 2;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int memory_file = memfd_create("ramet-rehearsal", MFD_CLOEXEC);
  if (memory_file < 0 || ftruncate(memory_file, (off_t)(pages * PAGE)) < 0) return perror("ramet-rehearsal"), 1;
  unsigned char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_file, 0);
  if (memory == MAP_FAILED) return perror("ramet-rehearsal"), 1;
  dprintf(STDOUT_FILENO, "ready %d\n", memory_file);

  char line[128], name[16];
  while (fgets(line, sizeof line, stdin) != NULL) {
    size_t first = 0, length = 0, times = 0;
    const int given = sscanf(line, "%15s %zu %zu %zu", name, &first, &length, &times);
    if (given > 1 && (length == 0 || first + length > pages)) return 2;
    if (given == 3 && strcmp(name, "fill") == 0) {
      for (size_t page = first; page < first + length; page += 1)
        if (page % BLOCK_PAGES < ZERO_PAGES) fill_page(memory + page * PAGE, page % BLOCK_PAGES);
    } else if (given == 4 && (strcmp(name, "read") == 0 || strcmp(name, "write") == 0)) {
      touch(memory, first, length, times, name[0] == 'w');
    } else if (given == 1 && strcmp(name, "empty") == 0) {
      fallocate(memory_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)(pages * PAGE));
    } else {
      return 2;
    }
    dprintf(STDOUT_FILENO, "done\n");
  }
  return 0;
}
