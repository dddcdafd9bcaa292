/*
 * Commits rows to an SQLite database and says of each, on the console, that it was committed; and checks such a database.
 *
 * A line of the console is out of the machine when the next row is begun (tcdrain), so that whatever becomes of the guest, at most one row of a writer is committed and not told.
 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* Rows are of up to this many bytes, so that some need pages of their own. */
#define MAX_CONTENT 6000
#define SHARED_LOCK_MS 60000

static void fail(sqlite3 *database, const char *what) {
  fprintf(stderr, "rows: %s: %s\n", what, database ? sqlite3_errmsg(database) : strerror(errno));
  exit(1);
}

static void run(sqlite3 *database, const char *statement) {
  if (sqlite3_exec(database, statement, NULL, NULL, NULL) != SQLITE_OK) fail(database, statement);
}

static sqlite3 *open_database(const char *path, int flags) {
  sqlite3 *database = NULL;
  if (sqlite3_open_v2(path, &database, flags, NULL) != SQLITE_OK) fail(database, path);
  sqlite3_busy_timeout(database, SHARED_LOCK_MS);
  return database;
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The content of a row follows from its number and time; returns its length. */
static int content_of(uint64_t number, uint64_t at_ns, unsigned char *content) {
  uint64_t state = (number * 0x9e3779b97f4a7c15ULL) ^ at_ns;
  int length = 0;
  for (int index = 0; index == 0 || index < length; index++) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    if (index == 0) length = 8 + (int)(state % (MAX_CONTENT - 8));
    content[index] = (unsigned char)(state >> 32);
  }
  return length;
}

static uint64_t last_number(sqlite3 *database) {
  sqlite3_stmt *query = NULL;
  if (sqlite3_prepare_v2(database, "SELECT coalesce(max(number), 0) FROM rows", -1, &query, NULL) != SQLITE_OK) fail(database, "max");
  if (sqlite3_step(query) != SQLITE_ROW) fail(database, "max");
  uint64_t number = (uint64_t)sqlite3_column_int64(query, 0);
  sqlite3_finalize(query);
  return number;
}

static void write_rows(const char *path, const char *mode, const char *name, unsigned pause_us) {
  unsigned char content[MAX_CONTENT];
  char line[128];
  sqlite3 *database = open_database(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  sqlite3_stmt *insert = NULL;
  int console = open("/dev/console", O_WRONLY | O_NOCTTY);
  if (console < 0) fail(NULL, "/dev/console");
  snprintf(line, sizeof line, "PRAGMA journal_mode=%s", mode);
  run(database, line);
  /* FULL does not sync the directory after the rollback journal was deleted, by which a row is committed: a crash may bring the journal back. EXTRA does. */
  run(database, "PRAGMA synchronous=EXTRA");
  run(database, "CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, content BLOB NOT NULL)");
  run(database, "CREATE INDEX IF NOT EXISTS by_time ON rows (at)");
  if (sqlite3_prepare_v2(database, "INSERT INTO rows VALUES (?, ?, ?)", -1, &insert, NULL) != SQLITE_OK) fail(database, "insert");
  for (uint64_t number = last_number(database) + 1;; number++) {
    uint64_t at_ns = now_ns();
    int length = content_of(number, at_ns, content);
    run(database, "BEGIN IMMEDIATE");
    sqlite3_bind_int64(insert, 1, (sqlite3_int64)number);
    sqlite3_bind_int64(insert, 2, (sqlite3_int64)at_ns);
    sqlite3_bind_blob(insert, 3, content, length, SQLITE_STATIC);
    if (sqlite3_step(insert) != SQLITE_DONE) fail(database, "insert");
    sqlite3_reset(insert);
    run(database, "COMMIT");
    int bytes = snprintf(line, sizeof line, "ROW %s %llu %llu\n", name, (unsigned long long)number, (unsigned long long)at_ns);
    if (write(console, line, (size_t)bytes) != bytes) fail(NULL, "the console");
    tcdrain(console);
    if (pause_us > 0) usleep(pause_us);
  }
}

/* Prints what is wrong, and every row; returns 1 if anything is wrong. */
static int check(const char *path) {
  static unsigned char content[MAX_CONTENT];
  int wrong = 0;
  uint64_t expected = 1;
  sqlite3 *database = open_database(path, SQLITE_OPEN_READWRITE);
  sqlite3_stmt *query = NULL;
  if (sqlite3_prepare_v2(database, "PRAGMA integrity_check", -1, &query, NULL) != SQLITE_OK) fail(database, "integrity_check");
  while (sqlite3_step(query) == SQLITE_ROW) {
    const char *said = (const char *)sqlite3_column_text(query, 0);
    if (strcmp(said, "ok") == 0) continue;
    printf("wrong: %s\n", said);
    wrong = 1;
  }
  if (sqlite3_finalize(query) != SQLITE_OK) fail(database, "integrity_check");
  if (sqlite3_prepare_v2(database, "SELECT number, at, content FROM rows ORDER BY number", -1, &query, NULL) != SQLITE_OK) fail(database, "rows");
  int answer;
  while ((answer = sqlite3_step(query)) == SQLITE_ROW) {
    uint64_t number = (uint64_t)sqlite3_column_int64(query, 0), at_ns = (uint64_t)sqlite3_column_int64(query, 1);
    int length = content_of(number, at_ns, content);
    if (number != expected || sqlite3_column_bytes(query, 2) != length || memcmp(sqlite3_column_blob(query, 2), content, (size_t)length) != 0) {
      printf("wrong: row %llu where %llu is due\n", (unsigned long long)number, (unsigned long long)expected);
      wrong = 1;
    }
    expected = number + 1;
    printf("%llu %llu\n", (unsigned long long)number, (unsigned long long)at_ns);
  }
  if (answer != SQLITE_DONE) fail(database, "rows");
  sqlite3_finalize(query);
  sqlite3_close(database);
  printf("rows %llu\n", (unsigned long long)(expected - 1));
  return wrong;
}

int main(int count, char **words) {
  if ((count == 5 || count == 6) && strcmp(words[1], "write") == 0)
    write_rows(words[2], words[3], words[4], count == 6 ? (unsigned)atoi(words[5]) : 0);
  if (count == 3 && strcmp(words[1], "check") == 0) return check(words[2]);
  fprintf(stderr, "usage: rows write DATABASE wal|delete NAME [PAUSE_US] | rows check DATABASE\n");
  return 2;
}
