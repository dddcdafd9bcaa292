/*
 * Part of the addon: pages of its own for a process that has mapped a file privately.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define NO_MEMORY ((void *)1) /* an address at which there never is any */
#define MOST_BYTES (1 << 20)  /* less than process_vm_writev(2) takes hold of at a time */

/*
 * separate(pid, address, length): has the kernel give the process pages of its own, as if it wrote to them, but changes no byte of them. process_vm_writev(2)
 * makes the pages writable first and reads what is to be written then, from where there is no memory: EFAULT is the expected end. It is also the end when a page
 * could not be had, so the caller has to look (proc(5), pagemap).
 */
napi_value separate(napi_env env, napi_callback_info info) {
  napi_value values[3], answer = NULL;
  double numbers[3];
  size_t given = 3;
  bool good = napi_get_cb_info(env, info, &given, values, NULL, NULL) == napi_ok && given >= 3;
  for (size_t index = 0; good && index < 3; index += 1)
    good = napi_get_value_double(env, values[index], &numbers[index]) == napi_ok;
  if (!good) {
    napi_throw_type_error(env, NULL, "wrong arguments for a native call");
    return NULL;
  }
  for (size_t index = 0; good && index < 3; index += 1)
    good = numbers[index] >= 0 && numbers[index] < 9007199254740992.0 && numbers[index] == (double)(int64_t)numbers[index];
  if (!good || numbers[0] > INT32_MAX || numbers[2] > MOST_BYTES) {
    napi_throw_range_error(env, NULL, "a number for a native call is not whole or does not fit");
    return NULL;
  }
  struct iovec nothing = {NO_MEMORY, (size_t)numbers[2]};
  struct iovec pages = {(void *)(uintptr_t)numbers[1], (size_t)numbers[2]};
  ssize_t result = process_vm_writev((pid_t)numbers[0], &nothing, 1, &pages, 1, 0);
  napi_create_double(env, result < 0 && errno != EFAULT ? -errno : 0, &answer);
  return answer;
}
