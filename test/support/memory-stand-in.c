/*
 * Stands in for an emulator: maps a tmpfs file shared and touches its pages on command, each command on a thread of its
 * own, so that one that waits for a page holds up no other.
 *
 *   usage: stand-in FILE BYTES [cut|private]   `cut` splits the mapping into several of the kernel's areas
 *   input:  ID read PAGE                  through the mapping; answers with the page's bytes, or "mixed"
 *           ID write PAGE VALUE           through the mapping, the whole page
 *           ID storm PAGES SECONDS        writes pages below PAGES at random, from here on; answers with 0 when the time is over
 *           ID kernel-write PAGE VALUE    read(2) into the page: the kernel touches it
 *           ID kernel-read PAGE           write(2) from the page
 *           ID environment                answers 1 when LD_PRELOAD or RAMET_USERFAULTFD is still set
 *   output: ready, then per command: ID VALUE, where VALUE is 0..255, "mixed" or "error"
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

struct command {
  int id, value;
  char name[32];
  size_t page;
};

static unsigned char *memory;

static void answer_value(int id, int value) { dprintf(STDOUT_FILENO, "%d %d\n", id, value); }
static void answer_text(int id, const char *text) { dprintf(STDOUT_FILENO, "%d %s\n", id, text); }

static void answer_content(int id, const unsigned char *bytes) {
  for (size_t index = 1; index < PAGE; index += 1)
    if (bytes[index] != bytes[0]) return answer_text(id, "mixed");
  answer_value(id, bytes[0]);
}

/* Goes through a pipe: its buffer is the kernel's, so that the page is touched by the system call itself. */
static void touch_in_kernel(const struct command *command, unsigned char *page, int into_page) {
  unsigned char buffer[PAGE];
  int ends[2];
  memset(buffer, command->value, PAGE);
  if (pipe2(ends, O_CLOEXEC) < 0) return answer_text(command->id, "error");
  if (write(ends[1], into_page ? buffer : page, PAGE) != PAGE || read(ends[0], into_page ? page : buffer, PAGE) != PAGE)
    answer_text(command->id, "error");
  else if (into_page)
    answer_value(command->id, command->value);
  else
    answer_content(command->id, buffer);
  close(ends[0]);
  close(ends[1]);
}

static void *execute(void *argument) {
  struct command *command = argument;
  unsigned char *page = memory + command->page * PAGE;
  if (strcmp(command->name, "read") == 0) {
    unsigned char buffer[PAGE];
    memcpy(buffer, page, PAGE);
    answer_content(command->id, buffer);
  } else if (strcmp(command->name, "write") == 0) {
    memset(page, command->value, PAGE);
    answer_value(command->id, command->value);
  } else if (strcmp(command->name, "kernel-write") == 0) {
    touch_in_kernel(command, page, 1);
  } else if (strcmp(command->name, "kernel-read") == 0) {
    touch_in_kernel(command, page, 0);
  } else if (strcmp(command->name, "storm") == 0) {
    unsigned int state = (unsigned int)command->id;
    for (time_t until = time(NULL) + command->value; time(NULL) < until;) {
      size_t chosen = (size_t)rand_r(&state) % command->page;
      memset(memory + chosen * PAGE, rand_r(&state) & 0xff, PAGE);
    }
    answer_value(command->id, 0);
  } else if (strcmp(command->name, "environment") == 0) {
    answer_value(command->id, getenv("LD_PRELOAD") != NULL || getenv("RAMET_USERFAULTFD") != NULL);
  } else {
    answer_text(command->id, "error");
  }
  free(command);
  return NULL;
}

int main(int count, char **arguments) {
  if (count < 3) return 2;
  const int fd = open(arguments[1], O_RDWR | O_CLOEXEC);
  const size_t bytes = strtoull(arguments[2], NULL, 10);
  const int is_private = count > 3 && strcmp(arguments[3], "private") == 0;
  memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, is_private ? MAP_PRIVATE : MAP_SHARED, fd, 0);
  if (fd < 0 || memory == MAP_FAILED) return perror("stand-in"), 1;
  /* A flag on the second quarter makes three areas of one. */
  if (count > 3 && !is_private) madvise(memory + bytes / 4, bytes / 4, MADV_DONTDUMP);
  dprintf(STDOUT_FILENO, "ready\n");

  char line[128];
  while (fgets(line, sizeof line, stdin) != NULL) {
    struct command *command = calloc(1, sizeof *command);
    pthread_t thread;
    if (sscanf(line, "%d %31s %zu %d", &command->id, command->name, &command->page, &command->value) < 2) return 2;
    if (pthread_create(&thread, NULL, execute, command) != 0) return 1;
    pthread_detach(thread);
  }
  _exit(0); /* without waiting for threads that wait for pages */
}
