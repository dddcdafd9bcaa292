/*
 * Loaded into an emulator by LD_PRELOAD: gives its process the userfaultfd that the agent later serves.
 *
 * A userfaultfd belongs to the address space that created it, so only the emulator can make its own. It is never closed
 * here: with the last descriptor gone, missing pages would silently read as zeros. While this one stays open for the
 * life of the process, the faults of an emulator whose agent has died wait for the next agent.
 *
 * An emulator that is to map another guest's memory privately inherits that file open for reading, which is all a private mapping needs. It opens its memory
 * file by a name and for writing, though; it is given the inherited descriptor then, once, so that it need not be let at the file itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW /* kernel headers before 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM /* kernel headers before 5.19 */
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

/* Where the agent looks for the descriptor: above those an emulator opens first. The same number is in descriptors.ts. */
#define FIRST_RESERVED_DESCRIPTOR 200

static void fail(const char *what) {
  dprintf(STDERR_FILENO, "ramet: %s: %s\n", what, strerror(errno));
  _exit(127);
}

__attribute__((constructor)) static void create_userfaultfd(void) {
  const int flags = O_CLOEXEC | O_NONBLOCK;
  const char *number = getenv("RAMET_USERFAULTFD");
  errno = EINVAL;
  if (number == NULL) fail("RAMET_USERFAULTFD must be the number of the inherited /dev/userfaultfd");
  const int device = atoi(number);

  /* The device needs no privilege in this process; the system call, for kernels without the device, does. */
  int created = ioctl(device, USERFAULTFD_IOC_NEW, flags);
  if (created < 0) created = (int)syscall(SYS_userfaultfd, flags);
  if (created < 0) fail("cannot create a userfaultfd (needs /dev/userfaultfd or CAP_SYS_PTRACE)");

  struct uffdio_api api = {.api = UFFD_API,
                           .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM |
                                       UFFD_FEATURE_WP_HUGETLBFS_SHMEM};
  if (ioctl(created, UFFDIO_API, &api) < 0) fail("cannot write-protect shared memory (needs Linux 5.19)");
  if (fcntl(created, F_DUPFD_CLOEXEC, FIRST_RESERVED_DESCRIPTOR) < 0) fail("cannot keep the userfaultfd");

  close(created);
  close(device);
  /* The agent goes ahead of emulators, whose faults it serves; what it starts inherits that and must not keep it. */
  setpriority(PRIO_PROCESS, 0, 0);
  /* For this process only, not for what it starts. */
  unsetenv("LD_PRELOAD");
  unsetenv("RAMET_USERFAULTFD");
}

/* ---- the memory file of an emulator that maps it privately: "DESCRIPTOR:PATH" ---- */

static char *memory_path;
static int memory_descriptor;

__attribute__((constructor)) static void take_memory(void) {
  const char *named = getenv("RAMET_MEMORY");
  if (named == NULL) return;
  const char *path = strchr(named, ':');
  errno = EINVAL;
  if (path == NULL || (memory_path = strdup(path + 1)) == NULL) fail("RAMET_MEMORY must be DESCRIPTOR:PATH");
  memory_descriptor = atoi(named);
  unsetenv("RAMET_MEMORY");
  /*
   * A child that shares its parent's memory is one of many. The emulator asks for huge pages for what it translates, of which a child fills a few
   * MiB: clearing the rest is up to a seventh of the processor time until it has answered something, and 2 to 4 MiB of what an idle one holds.
   */
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

static int open_file(const char *path, int flags, mode_t mode) {
  if (memory_path == NULL || strcmp(path, memory_path) != 0)
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  free(memory_path);
  memory_path = NULL;
  fcntl(memory_descriptor, F_SETFD, FD_CLOEXEC);
  return memory_descriptor;
}

#define EXPORTED __attribute__((visibility("default")))

/* Under the names that programs built for files above 2 GiB call open(2) by, with and without checks of their compiler. */
EXPORTED int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open_file(path, flags | O_LARGEFILE, mode);
}

EXPORTED int __open64_2(const char *path, int flags) { return open_file(path, flags | O_LARGEFILE, 0); }
