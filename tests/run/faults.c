/* Errors, or a kill, in the system calls that touch one folder: loaded before libc (LD_PRELOAD), so
   that files are reached through it from Python and from the libraries in C++ alike. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, READ = 2, WRITE = 4 };

static char folder[PATH_MAX]; /* empty: nothing fails */
static int kinds, error;      /* which calls; what they say, 0 for a kill */
static long first, number;    /* of these calls the first that fails, and how many fail */
static atomic_long calls;

void faults_begin(const char *under, int of_kinds, long from, long how_many, int with) {
  kinds = of_kinds, first = from, number = how_many, error = with, calls = 0;
  snprintf(folder, sizeof folder, "%s", under);
}

long faults_calls(void) { return calls; }

static int below(const char *path) {
  size_t length = strlen(folder);
  return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int below_fd(int fd) {
  char link[64], path[PATH_MAX];
  if (!folder[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return below(path);
}

static int below_at(int fd, const char *path) {
  return path[0] == '/' || fd == AT_FDCWD ? below(path) : below_fd(fd);
}

static int due(int kind, int ours) {
  if (!ours || !(kinds & kind)) return 0;
  long call = atomic_fetch_add(&calls, 1);
  return first <= call && call - first < number;
}

static int fail(void) {
  if (!error) kill(getpid(), SIGKILL);
  errno = error;
  return -1;
}

#define REAL(name, ...)                                          \
  static int (*real)(__VA_ARGS__);                               \
  if (!real) real = (int (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int kind_of(int flags) {
  return OPEN | (flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC) ? WRITE : READ);
}

#define OPENS(name)                                              \
  int name(const char *path, int flags, ...) {                   \
    REAL(#name, const char *, int, ...);                         \
    va_list rest;                                                \
    va_start(rest, flags);                                       \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                \
    return due(kind_of(flags), below(path)) ? fail() : real(path, flags, mode); \
  }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                           \
  int name(int fd, const char *path, int flags, ...) {           \
    REAL(#name, int, const char *, int, ...);                    \
    va_list rest;                                                \
    va_start(rest, flags);                                       \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                \
    return due(kind_of(flags), below_at(fd, path)) ? fail() : real(fd, path, flags, mode); \
  }
OPENS_AT(openat)
OPENS_AT(openat64)

DIR *opendir(const char *path) {
  static DIR *(*real)(const char *);
  if (!real) real = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
  if (!due(OPEN | READ, below(path))) return real(path);
  fail();
  return NULL;
}

/* Of what is written half arrives, as on a disk that is full or in a process that is killed. */
ssize_t write(int fd, const void *from, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  if (!due(WRITE, below_fd(fd))) return real(fd, from, size);
  if (size > 1) real(fd, from, size / 2);
  return fail();
}

ssize_t writev(int fd, const struct iovec *from, int many) {
  static ssize_t (*real)(int, const struct iovec *, int);
  if (!real) real = (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
  if (!due(WRITE, below_fd(fd))) return real(fd, from, many);
  if (many > 1) real(fd, from, many / 2);
  return fail();
}

ssize_t read(int fd, void *to, size_t size) {
  static ssize_t (*real)(int, void *, size_t);
  if (!real) real = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
  return due(READ, below_fd(fd)) ? fail() : real(fd, to, size);
}

#define READS_AT(name, offset)                                   \
  ssize_t name(int fd, void *to, size_t size, offset at) {       \
    static ssize_t (*real)(int, void *, size_t, offset);         \
    if (!real) real = (ssize_t(*)(int, void *, size_t, offset))dlsym(RTLD_NEXT, #name); \
    return due(READ, below_fd(fd)) ? fail() : real(fd, to, size, at); \
  }
READS_AT(pread, off_t)
READS_AT(pread64, off64_t)

int fsync(int fd) {
  REAL("fsync", int);
  return due(WRITE, below_fd(fd)) ? fail() : real(fd);
}

int fdatasync(int fd) {
  REAL("fdatasync", int);
  return due(WRITE, below_fd(fd)) ? fail() : real(fd);
}

int rename(const char *from, const char *to) {
  REAL("rename", const char *, const char *);
  return due(WRITE, below(to)) ? fail() : real(from, to);
}

int mkdir(const char *path, mode_t mode) {
  REAL("mkdir", const char *, mode_t);
  return due(WRITE, below(path)) ? fail() : real(path, mode);
}

int rmdir(const char *path) {
  REAL("rmdir", const char *);
  return due(WRITE, below(path)) ? fail() : real(path);
}

int unlink(const char *path) {
  REAL("unlink", const char *);
  return due(WRITE, below(path)) ? fail() : real(path);
}

int unlinkat(int fd, const char *path, int flags) {
  REAL("unlinkat", int, const char *, int);
  return due(WRITE, below_at(fd, path)) ? fail() : real(fd, path, flags);
}
