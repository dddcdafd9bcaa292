/*
 * Part of the addon: the end of a connection that another process has, too.
 */
#include <errno.h>
#include <node_api.h>
#include <stdint.h>
#include <sys/socket.h>

/* shutDown(fd): shutdown(2) of a socket in both directions, for everybody who has it open. */
napi_value shut_down(napi_env env, napi_callback_info info) {
  napi_value value, answer = NULL;
  double fd = 0;
  size_t given = 1;
  if (napi_get_cb_info(env, info, &given, &value, NULL, NULL) != napi_ok || given < 1 ||
      napi_get_value_double(env, value, &fd) != napi_ok) {
    napi_throw_type_error(env, NULL, "wrong arguments for a native call");
    return NULL;
  }
  if (!(fd >= INT32_MIN && fd <= INT32_MAX) || fd != (double)(int32_t)fd) {
    napi_throw_range_error(env, NULL, "a number for a native call is not whole or does not fit");
    return NULL;
  }
  napi_create_double(env, shutdown((int)fd, SHUT_RDWR) == 0 ? 0 : -errno, &answer);
  return answer;
}
