/* A small HTTP/1.1 server: GET only, keep-alive, one thread for each connection. */
#define _GNU_SOURCE
#include "guestd.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_BYTES 8192
#define MAX_CONNECTIONS 128

static void (*handle)(const char *, const char *, struct answer *);
static int open_connections;

void say(struct answer *answer, const char *format, ...) {
  va_list arguments;
  size_t room = BODY_BYTES - answer->length;
  va_start(arguments, format);
  int wanted = vsnprintf(answer->body + answer->length, room, format, arguments);
  va_end(arguments);
  if (wanted > 0) answer->length += (size_t)wanted < room ? (size_t)wanted : room - 1;
}

void refuse(struct answer *answer, int status, const char *message) {
  answer->status = status;
  answer->length = 0;
  say(answer, "{\"error\":\"%s\"}", message);
}

const char *parameter(const char *query, const char *name, char *buffer, size_t size) {
  size_t length = strlen(name);
  for (const char *at = query; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL) {
    if (strncmp(at, name, length) != 0 || at[length] != '=') continue;
    size_t end = strcspn(at + length + 1, "&");
    snprintf(buffer, size, "%.*s", (int)end, at + length + 1);
    return buffer;
  }
  return NULL;
}

long number_parameter(const char *query, const char *name, long fallback) {
  char text[32];
  return parameter(query, name, text, sizeof text) ? strtol(text, NULL, 10) : fallback;
}

static bool send_all(int fd, const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes += sent;
    length -= (size_t)sent;
  }
  return true;
}

static bool reply(int fd, const struct answer *answer, bool keep) {
  char text[BODY_BYTES + 512];
  const char *reason = answer->status == 200 ? "OK" : answer->status == 404 ? "Not Found" : "Bad Request";
  int length = snprintf(text, sizeof text,
                        "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                        "Connection: %s\r\n\r\n%.*s\n",
                        answer->status, reason, answer->length + 1, keep ? "keep-alive" : "close",
                        (int)answer->length, answer->body);
  return send_all(fd, text, (size_t)length);
}

/* Answers one request, whose head ends in a zero byte. Returns whether the connection goes on. */
static bool answer_request(int fd, char *head) {
  struct answer *answer = calloc(1, sizeof *answer);
  if (!answer) return false;
  char *target = strchr(head, ' ');
  char *version = target ? strchr(target + 1, ' ') : NULL;
  bool keep = version && strncmp(version, " HTTP/1.1", 9) == 0 && !strcasestr(version, "\nConnection: close");
  answer->status = 200;
  if (!version || strncmp(head, "GET ", 4) != 0) {
    refuse(answer, 400, "only GET is understood");
    keep = false;
  } else {
    *version = 0;
    char *query = strchr(++target, '?');
    if (query) *query++ = 0;
    handle(target, query ? query : "", answer);
  }
  keep = reply(fd, answer, keep) && keep;
  free(answer);
  return keep;
}

static void *serve_connection(void *argument) {
  int fd = (int)(intptr_t)argument;
  char *buffer = malloc(REQUEST_BYTES + 1);
  size_t filled = 0;
  bool keep = buffer != NULL;
  while (keep) {
    buffer[filled] = 0;
    char *end = strstr(buffer, "\r\n\r\n");
    if (end) {
      size_t used = (size_t)(end - buffer) + 4;
      end[2] = 0;
      keep = answer_request(fd, buffer);
      memmove(buffer, buffer + used, filled - used);
      filled -= used;
      continue;
    }
    if (filled == REQUEST_BYTES) break;
    ssize_t got = recv(fd, buffer + filled, REQUEST_BYTES - filled, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    filled += (size_t)got;
  }
  free(buffer);
  close(fd);
  __atomic_sub_fetch(&open_connections, 1, __ATOMIC_RELAXED);
  return NULL;
}

void serve(int port, void (*route)(const char *, const char *, struct answer *)) {
  handle = route;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
    perror("guestd: listen");
    exit(1);
  }
  printf("ramet-guest ready\n");
  fflush(stdout);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    if (__atomic_add_fetch(&open_connections, 1, __ATOMIC_RELAXED) > MAX_CONNECTIONS) {
      __atomic_sub_fetch(&open_connections, 1, __ATOMIC_RELAXED);
      close(fd);
      continue;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    start_thread(serve_connection, (void *)(intptr_t)fd);
  }
}
