/*
 * The system calls Node.js does not offer: userfaultfd, pidfd, sparse-file seeks, pipes with a name, tap devices. No policy and no state but the
 * watchers. Every call takes explicit descriptors and addresses (as doubles, exact below 2^53) and returns the
 * kernel's result, or the negative errno. The types are in native.ts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/userfaultfd.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

#ifndef USERFAULTFD_IOC_NEW /* kernel headers before 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define MOST_ARGUMENTS 5
#define MOST_EVENTS 256
#define MOST_EXACT 9007199254740991.0 /* JavaScript's largest number below which every whole one is exact */

struct arguments {
  napi_value values[MOST_ARGUMENTS];
  double numbers[MOST_ARGUMENTS];
};

/* A whole number that fits: the first is a descriptor or process, the others are addresses, lengths, offsets and flags. */
static bool fits(double value, size_t index) {
  double least = index == 0 ? INT32_MIN : 0;
  double most = index == 0 ? INT32_MAX : MOST_EXACT;
  return value >= least && value <= most && value == (double)(int64_t)value;
}

/* Reads `total` arguments, the first `numeric` of which are numbers. False after throwing. */
static bool read_arguments(napi_env env, napi_callback_info info, size_t numeric, size_t total, struct arguments *into) {
  size_t given = MOST_ARGUMENTS;
  bool good = napi_get_cb_info(env, info, &given, into->values, NULL, NULL) == napi_ok && given >= total;
  for (size_t index = 0; good && index < numeric; index += 1)
    good = napi_get_value_double(env, into->values[index], &into->numbers[index]) == napi_ok;
  if (!good) napi_throw_type_error(env, NULL, "wrong arguments for a native call");
  for (size_t index = 0; good && index < numeric; index += 1) {
    good = fits(into->numbers[index], index);
    if (!good) napi_throw_range_error(env, NULL, "a number for a native call is not whole or does not fit");
  }
  return good;
}

static napi_value number(napi_env env, double value) {
  napi_value result = NULL;
  napi_create_double(env, value, &result);
  return result;
}

static napi_value result_of(napi_env env, long long result) { return number(env, result < 0 ? -errno : (double)result); }

/* ---- userfaultfd: see ioctl_userfaultfd(2) ---- */

/* create(device): a userfaultfd of this process, from /dev/userfaultfd or else by the system call. */
static napi_value create(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 1, 1, &a)) return NULL;
  int result = ioctl((int)a.numbers[0], USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
  if (result < 0) result = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  return result_of(env, result);
}

/* handshake(fd, features): UFFDIO_API. */
static napi_value handshake(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 2, 2, &a)) return NULL;
  struct uffdio_api api = {.api = UFFD_API, .features = (uint64_t)a.numbers[1]};
  return result_of(env, ioctl((int)a.numbers[0], UFFDIO_API, &api));
}

/* register(fd, address, length, mode) */
static napi_value register_range(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 4, 4, &a)) return NULL;
  struct uffdio_register request = {.range = {(uint64_t)a.numbers[1], (uint64_t)a.numbers[2]},
                                    .mode = (uint64_t)a.numbers[3]};
  return result_of(env, ioctl((int)a.numbers[0], UFFDIO_REGISTER, &request));
}

/* unregister(fd, address, length) and wake(fd, address, length) */
static napi_value range_call(napi_env env, napi_callback_info info, unsigned long call) {
  struct arguments a;
  if (!read_arguments(env, info, 3, 3, &a)) return NULL;
  struct uffdio_range range = {(uint64_t)a.numbers[1], (uint64_t)a.numbers[2]};
  return result_of(env, ioctl((int)a.numbers[0], call, &range));
}

static napi_value unregister(napi_env env, napi_callback_info info) { return range_call(env, info, UFFDIO_UNREGISTER); }
static napi_value wake(napi_env env, napi_callback_info info) { return range_call(env, info, UFFDIO_WAKE); }

/* writeProtect(fd, address, length, mode) */
static napi_value write_protect(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 4, 4, &a)) return NULL;
  struct uffdio_writeprotect request = {.range = {(uint64_t)a.numbers[1], (uint64_t)a.numbers[2]},
                                        .mode = (uint64_t)a.numbers[3]};
  return result_of(env, ioctl((int)a.numbers[0], UFFDIO_WRITEPROTECT, &request));
}

/* copy(fd, address, offset, length, bytes): bytes copied, which may be fewer than asked for. */
static napi_value copy(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 4, 5, &a)) return NULL;
  size_t held = 0;
  void *data = NULL;
  napi_typedarray_type type;
  if (napi_get_typedarray_info(env, a.values[4], &type, &held, &data, NULL, NULL) != napi_ok ||
      type != napi_uint8_array || a.numbers[2] + a.numbers[3] > (double)held) {
    napi_throw_range_error(env, NULL, "copy needs a Uint8Array that holds the range");
    return NULL;
  }
  struct uffdio_copy request = {.dst = (uint64_t)a.numbers[1],
                                .src = (uint64_t)(uintptr_t)data + (uint64_t)a.numbers[2],
                                .len = (uint64_t)a.numbers[3]};
  int result = ioctl((int)a.numbers[0], UFFDIO_COPY, &request);
  if (result == 0 || (errno == EAGAIN && request.copy > 0)) return number(env, (double)request.copy);
  return result_of(env, result);
}

/* zeroPage(fd, address, length): bytes zeroed, which may be fewer than asked for. */
static napi_value zero_page(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 3, 3, &a)) return NULL;
  struct uffdio_zeropage request = {.range = {(uint64_t)a.numbers[1], (uint64_t)a.numbers[2]}};
  int result = ioctl((int)a.numbers[0], UFFDIO_ZEROPAGE, &request);
  if (result == 0 || (errno == EAGAIN && request.zeropage > 0)) return number(env, (double)request.zeropage);
  return result_of(env, result);
}

/* ---- descriptors and sparse files ---- */

/* openProcess(pid): pidfd_open(2) */
static napi_value open_process(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 1, 1, &a)) return NULL;
  return result_of(env, syscall(SYS_pidfd_open, (pid_t)a.numbers[0], 0));
}

/* takeDescriptor(pidfd, fd): pidfd_getfd(2); the new descriptor is closed on exec. */
static napi_value take_descriptor(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 2, 2, &a)) return NULL;
  if (a.numbers[1] > INT32_MAX) return number(env, -EBADF);
  return result_of(env, syscall(SYS_pidfd_getfd, (int)a.numbers[0], (int)a.numbers[1], 0));
}

/* seek(fd, offset, hole): where the next data, or the next hole, at or after `offset` begins. */
static napi_value seek(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 3, 3, &a)) return NULL;
  return result_of(env, lseek((int)a.numbers[0], (off_t)a.numbers[1], a.numbers[2] != 0 ? SEEK_HOLE : SEEK_DATA));
}

/* punch(fd, offset, length): makes a hole of whole pages, fallocate(2); the file's length stays. */
static napi_value punch(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 3, 3, &a)) return NULL;
  int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  return result_of(env, fallocate((int)a.numbers[0], mode, (off_t)a.numbers[1], (off_t)a.numbers[2]));
}

/* makePipe(path): a pipe with a name that only its owner may open, mkfifo(3). */
static napi_value make_pipe(napi_env env, napi_callback_info info) {
  struct arguments a;
  char path[PATH_MAX];
  size_t length = 0;
  if (!read_arguments(env, info, 0, 1, &a)) return NULL;
  if (napi_get_value_string_utf8(env, a.values[0], NULL, 0, &length) != napi_ok || length >= sizeof path) {
    napi_throw_range_error(env, NULL, "makePipe needs a path");
    return NULL;
  }
  napi_get_value_string_utf8(env, a.values[0], path, sizeof path, &length);
  return result_of(env, mkfifo(path, 0600));
}

/* resizePipe(fd, bytes): how much the pipe now takes before it holds up who writes (F_SETPIPE_SZ, fcntl(2)). */
static napi_value resize_pipe(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 2, 2, &a)) return NULL;
  if (a.numbers[1] > INT32_MAX) return number(env, -EINVAL);
  return result_of(env, fcntl((int)a.numbers[0], F_SETPIPE_SZ, (int)a.numbers[1]));
}

/* ---- page faults, delivered on the event loop of the thread that asked for them ---- */

struct watcher {
  uv_poll_t poll;
  int fd;
  int owners; /* the libuv handle and the JavaScript value; whoever goes last frees */
  bool closing;
  size_t capacity;
  napi_env env;
  napi_ref array;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
};

static void disown_watcher(struct watcher *watcher) {
  watcher->owners -= 1;
  if (watcher->owners == 0) free(watcher);
}

static void on_value_collected(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  disown_watcher(data);
}

static void on_closed(uv_handle_t *handle) {
  struct watcher *watcher = handle->data;
  napi_handle_scope scope;
  napi_open_handle_scope(watcher->env, &scope);
  napi_delete_reference(watcher->env, watcher->array);
  napi_delete_reference(watcher->env, watcher->callback);
  napi_async_destroy(watcher->env, watcher->context);
  napi_close_handle_scope(watcher->env, scope);
  napi_remove_async_cleanup_hook(watcher->cleanup);
  disown_watcher(watcher);
}

static void close_watcher(struct watcher *watcher) {
  if (watcher->closing) return;
  watcher->closing = true;
  uv_close((uv_handle_t *)&watcher->poll, on_closed);
}

static void on_environment_end(napi_async_cleanup_hook_handle handle, void *data) {
  (void)handle;
  close_watcher(data);
}

/* Writes addresses to the array. False when its memory has been given away since (ArrayBuffer.transfer, postMessage). */
static bool write_addresses(struct watcher *watcher, const double *addresses, int count) {
  napi_value array;
  size_t capacity = 0;
  void *data = NULL;
  napi_get_reference_value(watcher->env, watcher->array, &array);
  if (napi_get_typedarray_info(watcher->env, array, NULL, &capacity, &data, NULL, NULL) != napi_ok ||
      capacity < (size_t)count)
    return false;
  memcpy(data, addresses, (size_t)count * sizeof addresses[0]);
  return true;
}

/* Calls callback(result): how many addresses were written to the array, or a negative errno after which all is over. */
static void deliver(struct watcher *watcher, int result, const double *addresses) {
  napi_handle_scope scope;
  napi_value global, callback, argument, ignored, thrown;
  if (napi_open_handle_scope(watcher->env, &scope) != napi_ok) return;
  if (result > 0 && !write_addresses(watcher, addresses, result)) {
    uv_poll_stop(&watcher->poll);
    result = -EFAULT;
  }
  napi_get_global(watcher->env, &global);
  napi_get_reference_value(watcher->env, watcher->callback, &callback);
  napi_create_int32(watcher->env, result, &argument);
  if (napi_make_callback(watcher->env, watcher->context, global, callback, 1, &argument, &ignored) == napi_pending_exception &&
      napi_get_and_clear_last_exception(watcher->env, &thrown) == napi_ok)
    napi_fatal_exception(watcher->env, thrown);
  napi_close_handle_scope(watcher->env, scope);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)events;
  struct watcher *watcher = poll->data;
  struct uffd_msg messages[MOST_EVENTS];
  ssize_t length = status < 0 ? -1 : read(watcher->fd, messages, watcher->capacity * sizeof messages[0]);
  if (status == 0 && length < 0 && (errno == EAGAIN || errno == EINTR)) return; /* the waiter was woken, or has died */
  if (length < 0) {
    int result = status < 0 ? status : -errno;
    uv_poll_stop(poll);
    deliver(watcher, result, NULL);
    return;
  }
  double addresses[MOST_EVENTS];
  int count = 0;
  for (size_t index = 0; index < (size_t)length / sizeof messages[0]; index += 1)
    if (messages[index].event == UFFD_EVENT_PAGEFAULT)
      addresses[count++] = (double)messages[index].arg.pagefault.address;
  if (count > 0) deliver(watcher, count, addresses);
}

/* watch(fd, addresses, callback): a watcher; `addresses` is a Float64Array that each call of `callback` overwrites. */
static napi_value watch(napi_env env, napi_callback_info info) {
  struct arguments a;
  if (!read_arguments(env, info, 1, 3, &a)) return NULL;
  struct watcher *watcher = calloc(1, sizeof *watcher);
  napi_typedarray_type type;
  napi_valuetype callback_type;
  napi_value name, value;
  uv_loop_t *loop = NULL;
  if (watcher == NULL ||
      napi_get_typedarray_info(env, a.values[1], &type, &watcher->capacity, NULL, NULL, NULL) != napi_ok ||
      type != napi_float64_array || watcher->capacity == 0 || watcher->capacity > MOST_EVENTS ||
      napi_typeof(env, a.values[2], &callback_type) != napi_ok || callback_type != napi_function ||
      napi_get_uv_event_loop(env, &loop) != napi_ok) {
    free(watcher);
    napi_throw_type_error(env, NULL, "watch needs a Float64Array of 1 to 256 addresses and a function");
    return NULL;
  }
  watcher->env = env;
  watcher->fd = (int)a.numbers[0];
  int result = uv_poll_init(loop, &watcher->poll, watcher->fd);
  if (result < 0) {
    free(watcher);
    return number(env, result);
  }
  watcher->poll.data = watcher;
  watcher->owners = 2;
  napi_create_string_utf8(env, "ramet:faults", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, NULL, name, &watcher->context);
  napi_create_reference(env, a.values[1], 1, &watcher->array);
  napi_create_reference(env, a.values[2], 1, &watcher->callback);
  napi_add_async_cleanup_hook(env, on_environment_end, watcher, &watcher->cleanup);
  napi_create_external(env, watcher, on_value_collected, NULL, &value);
  uv_poll_start(&watcher->poll, UV_READABLE, on_readable);
  return value;
}

/* unwatch(watcher): no callback from here on. The descriptor stays open; close it only afterwards. */
static napi_value unwatch(napi_env env, napi_callback_info info) {
  struct arguments a;
  void *watcher = NULL;
  if (!read_arguments(env, info, 0, 1, &a)) return NULL;
  if (napi_get_value_external(env, a.values[0], &watcher) != napi_ok)
    napi_throw_type_error(env, NULL, "unwatch needs a watcher");
  else
    close_watcher(watcher);
  return NULL;
}

/* openTap(name): a new tap device of this name; it is gone when the last process that has it open has closed it. Its frames
 * have no header of their own, as devices without offloads want them (Linux, Documentation/networking/tuntap.rst). */
static napi_value open_tap(napi_env env, napi_callback_info info) {
  struct arguments a;
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  size_t length = 0;
  if (!read_arguments(env, info, 0, 1, &a)) return NULL;
  if (napi_get_value_string_utf8(env, a.values[0], NULL, 0, &length) != napi_ok || length == 0 || length >= IFNAMSIZ) {
    napi_throw_range_error(env, NULL, "openTap needs a name of 1 to 15 bytes");
    return NULL;
  }
  napi_get_value_string_utf8(env, a.values[0], request.ifr_name, IFNAMSIZ, &length);
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd >= 0 && ioctl(fd, TUNSETIFF, &request) < 0) {
    int reason = errno;
    close(fd);
    errno = reason;
    fd = -1;
  }
  return result_of(env, fd);
}

napi_value separate(napi_env env, napi_callback_info info);      /* separate.c */
napi_value shut_down(napi_env env, napi_callback_info info);     /* connections.c */
napi_value protect_aside(napi_env env, napi_callback_info info); /* aside.c */

#define METHOD(name, function) {name, NULL, function, NULL, NULL, NULL, napi_enumerable, NULL}

NAPI_MODULE_INIT() {
  const napi_property_descriptor methods[] = {
      METHOD("create", create),
      METHOD("handshake", handshake),
      METHOD("register", register_range),
      METHOD("unregister", unregister),
      METHOD("writeProtect", write_protect),
      METHOD("copy", copy),
      METHOD("zeroPage", zero_page),
      METHOD("wake", wake),
      METHOD("openProcess", open_process),
      METHOD("takeDescriptor", take_descriptor),
      METHOD("seek", seek),
      METHOD("openTap", open_tap),
      METHOD("shutDown", shut_down),
      METHOD("punch", punch),
      METHOD("makePipe", make_pipe),
      METHOD("resizePipe", resize_pipe),
      METHOD("separate", separate),
      METHOD("protectAside", protect_aside),
      METHOD("watch", watch),
      METHOD("unwatch", unwatch),
  };
  napi_define_properties(env, exports, sizeof methods / sizeof methods[0], methods);
  return exports;
}
