/*
 * Part of the addon: protecting a large range on threads of its own, slice by slice, while JavaScript goes on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/userfaultfd.h>
#include <node_api.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#define MOST_TRIES 1000 /* of a call that the kernel answers with EAGAIN */
#define MOST_THREADS 8
#define USUAL 0 /* niceness (setpriority(2)) */

struct aside {
  int fd, threads;
  uint64_t address, length, slice;
  atomic_uint_fast64_t next;
  atomic_int result;
  atomic_bool cancelled;
  pthread_rwlock_t calling; /* held for reading during each system call, so that a canceller can wait for their end */
  int owners;               /* the work and the function that cancels, both let go of on the thread of JavaScript; whoever goes last frees */
  napi_async_work work;
  napi_ref callback;
};

static void disown_aside(struct aside *aside) {
  aside->owners -= 1;
  if (aside->owners > 0) return;
  pthread_rwlock_destroy(&aside->calling);
  free(aside);
}

static void on_value_collected(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  disown_aside(data);
}

/* One slice, once; 0 or the negative errno. */
static int protect_slice(struct aside *aside, uint64_t from) {
  uint64_t left = aside->length - from;
  struct uffdio_writeprotect request = {
      .range = {aside->address + from, left < aside->slice ? left : aside->slice},
      .mode = UFFDIO_WRITEPROTECT_MODE_WP,
  };
  pthread_rwlock_rdlock(&aside->calling);
  int result = -ECANCELED;
  if (!atomic_load(&aside->cancelled)) result = ioctl(aside->fd, UFFDIO_WRITEPROTECT, &request) < 0 ? -errno : 0;
  pthread_rwlock_unlock(&aside->calling);
  return result;
}

/* Takes slices until none is left, or one has failed. */
static void *protect_slices(void *data) {
  struct aside *aside = data;
  while (atomic_load(&aside->result) == 0) {
    uint64_t from = atomic_fetch_add(&aside->next, aside->slice);
    if (from >= aside->length) break;
    int result = protect_slice(aside, from);
    for (int tries = 0; result == -EAGAIN && tries < MOST_TRIES; tries += 1) result = protect_slice(aside, from);
    if (result < 0) atomic_store(&aside->result, result);
  }
  return NULL;
}

/* The agent's threads go ahead of its guests. One that helps takes only what they leave: they are not to stand still for this on all processors. */
static void *protect_calmly(void *data) {
  setpriority(PRIO_PROCESS, 0, USUAL);
  return protect_slices(data);
}

/* On a thread of libuv's pool, and on others that help. */
static void on_thread(napi_env env, void *data) {
  (void)env;
  struct aside *aside = data;
  pthread_t threads[MOST_THREADS];
  int started = 0;
  while (started + 1 < aside->threads && pthread_create(&threads[started], NULL, protect_calmly, aside) == 0) started += 1;
  protect_slices(aside);
  for (int index = 0; index < started; index += 1) pthread_join(threads[index], NULL);
}

/* Calls callback(result). */
static void on_done(napi_env env, napi_status status, void *data) {
  struct aside *aside = data;
  napi_value global, callback, argument, ignored;
  napi_get_reference_value(env, aside->callback, &callback);
  napi_get_global(env, &global);
  napi_create_int32(env, status == napi_ok ? atomic_load(&aside->result) : -ECANCELED, &argument);
  napi_delete_reference(env, aside->callback);
  napi_delete_async_work(env, aside->work);
  disown_aside(aside);
  napi_call_function(env, global, callback, 1, &argument, &ignored);
}

static bool read_range(napi_env env, napi_value *values, double *numbers) {
  bool good = true;
  for (size_t index = 0; good && index < 5; index += 1)
    good = napi_get_value_double(env, values[index], &numbers[index]) == napi_ok && numbers[index] >= 0 &&
           numbers[index] < 9007199254740992.0 && numbers[index] == (double)(int64_t)numbers[index];
  return good && numbers[0] <= INT32_MAX && numbers[3] > 0 && numbers[4] <= MOST_THREADS;
}

/* cancel(): when this returns, no system call of it is under way and none will be made. May be called twice, and after its end. */
static napi_value cancel(napi_env env, napi_callback_info info) {
  void *data = NULL;
  napi_get_cb_info(env, info, NULL, NULL, NULL, &data);
  struct aside *aside = data;
  atomic_store(&aside->cancelled, true);
  pthread_rwlock_wrlock(&aside->calling);
  pthread_rwlock_unlock(&aside->calling);
  return NULL;
}

/*
 * protectAside(fd, address, length, slice, threads, callback): protects a range in slices of so many bytes, on so many threads, then calls callback(result): 0, or a
 * negative errno, with which some of it may be protected. Returns a function that cancels it.
 */
napi_value protect_aside(napi_env env, napi_callback_info info) {
  napi_value values[6], name, canceller = NULL;
  double numbers[5];
  size_t given = 6;
  napi_valuetype type;
  struct aside *aside = NULL;
  if (napi_get_cb_info(env, info, &given, values, NULL, NULL) != napi_ok || given < 6 || !read_range(env, values, numbers) ||
      napi_typeof(env, values[5], &type) != napi_ok || type != napi_function || (aside = calloc(1, sizeof *aside)) == NULL) {
    napi_throw_type_error(env, NULL, "wrong arguments for a native call");
    return NULL;
  }
  aside->fd = (int)numbers[0];
  aside->address = (uint64_t)numbers[1];
  aside->length = (uint64_t)numbers[2];
  aside->slice = (uint64_t)numbers[3];
  aside->threads = (int)numbers[4];
  aside->owners = 2;
  pthread_rwlock_init(&aside->calling, NULL);
  napi_create_function(env, "cancel", NAPI_AUTO_LENGTH, cancel, aside, &canceller);
  napi_add_finalizer(env, canceller, aside, on_value_collected, NULL, NULL);
  napi_create_reference(env, values[5], 1, &aside->callback);
  napi_create_string_utf8(env, "ramet:protect", NAPI_AUTO_LENGTH, &name);
  napi_create_async_work(env, NULL, name, on_thread, on_done, aside, &aside->work);
  napi_queue_async_work(env, aside->work);
  return canceller;
}
