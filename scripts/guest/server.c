/*
 * A small HTTP/1.1 server: GET only, keep-alive. Threads that wait for connections are there before they are needed, because a
 * child of a fork answers its first request with code that its emulator has yet to translate: making a thread would double that.
 */
#define _GNU_SOURCE
#include "guestd.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_BYTES 8192
/* Threads that wait for a connection, and most threads of all: what comes then waits in the listener's queue. */
#define SPARE_THREADS 4
#define MAX_THREADS 128
/* How long a connection may be open before it has asked something, so that only those that have wake a thread. */
#define ASK_SECONDS 5

static void (*handle)(const char *, const char *, struct answer *);
static int listener;
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;
static int threads, waiting;

/* What a thread needs to serve one connection after the other. */
struct server {
  char request[REQUEST_BYTES + 1];
  struct answer answer;
};

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

static bool reply(int fd, struct answer *answer, bool keep) {
  char head[256];
  const char *reason = answer->status == 200 ? "OK" : answer->status == 404 ? "Not Found" : "Bad Request";
  answer->body[answer->length++] = '\n';
  int length = snprintf(head, sizeof head,
                        "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                        "Connection: %s\r\n\r\n",
                        answer->status, reason, answer->length, keep ? "keep-alive" : "close");
  struct iovec parts[] = {{head, (size_t)length}, {answer->body, answer->length}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  /* A blocking socket takes all of it, unless the connection breaks or a signal comes, of which there are none. */
  return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)(parts[0].iov_len + parts[1].iov_len);
}

/* Answers one request, whose head ends in a zero byte. Returns whether the connection goes on. */
static bool answer_request(int fd, struct server *server) {
  struct answer *answer = &server->answer;
  char *target = strchr(server->request, ' ');
  char *version = target ? strchr(target + 1, ' ') : NULL;
  bool keep = version && strncmp(version, " HTTP/1.1", 9) == 0 && !strcasestr(version, "\nConnection: close");
  answer->status = 200;
  answer->length = 0;
  if (!version || strncmp(server->request, "GET ", 4) != 0) {
    refuse(answer, 400, "only GET is understood");
    keep = false;
  } else {
    *version = 0;
    char *query = strchr(++target, '?');
    if (query) *query++ = 0;
    handle(target, query ? query : "", answer);
  }
  return reply(fd, answer, keep) && keep;
}

static void serve_connection(int fd, struct server *server) {
  char *buffer = server->request;
  size_t filled = 0;
  bool keep = true;
  while (keep) {
    buffer[filled] = 0;
    char *end = strstr(buffer, "\r\n\r\n");
    if (end) {
      size_t used = (size_t)(end - buffer) + 4;
      end[2] = 0;
      keep = answer_request(fd, server);
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
  close(fd);
}

static void *serve_connections(void *argument);

/* With `counting` held. */
static void add_thread(void) {
  struct server *server = malloc(sizeof *server);
  if (!server) return;
  threads += 1;
  waiting += 1;
  start_thread(serve_connections, server);
}

static void *serve_connections(void *argument) {
  struct server *server = argument;
  bool needed = true;
  while (needed) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    pthread_mutex_lock(&counting);
    waiting -= 1;
    if (waiting == 0 && threads < MAX_THREADS) add_thread();
    pthread_mutex_unlock(&counting);
    serve_connection(fd, server);
    pthread_mutex_lock(&counting);
    needed = waiting < SPARE_THREADS;
    if (needed) waiting += 1;
    else threads -= 1;
    pthread_mutex_unlock(&counting);
  }
  free(server);
  return NULL;
}

void serve(int port, void (*route)(const char *, const char *, struct answer *)) {
  handle = route;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int on = 1, seconds = ASK_SECONDS;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  /* Connections have these from their listener (tcp(7)). */
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
    perror("guestd: listen");
    exit(1);
  }
  printf("ramet-guest ready\n");
  fflush(stdout);
  pthread_mutex_lock(&counting);
  while (threads < SPARE_THREADS) add_thread();
  pthread_mutex_unlock(&counting);
  for (;;) pause();
}
