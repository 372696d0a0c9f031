/* Writes that would make a file below BACKSTOP_FULL_DIRECTORY longer fail as on a full disk, while BACKSTOP_FULL_FLAG exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_refused(int fd, off_t end)
{
	const char *directory = getenv("BACKSTOP_FULL_DIRECTORY"), *flag = getenv("BACKSTOP_FULL_FLAG");
	char link[64], path[PATH_MAX];
	struct stat now;
	ssize_t length;

	if (!directory || !flag || access(flag, F_OK) != 0 || fstat(fd, &now) != 0 || end <= now.st_size)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof path);
	return length > 0 && (size_t) length > strlen(directory) && strncmp(path, directory, strlen(directory)) == 0;
}

static off_t length_of(const struct iovec *pieces, int count)
{
	off_t length = 0;

	for (int i = 0; i < count; i++)
		length += pieces[i].iov_len;
	return length;
}

#define WRITE(name) \
ssize_t name(int fd, const void *bytes, size_t count, off_t offset) \
{ \
	ssize_t (*next)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, #name); \
	if (!is_refused(fd, offset + count)) \
		return next(fd, bytes, count, offset); \
	errno = ENOSPC; \
	return -1; \
}
#define WRITE_PIECES(name) \
ssize_t name(int fd, const struct iovec *pieces, int count, off_t offset) \
{ \
	ssize_t (*next)(int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, #name); \
	if (!is_refused(fd, offset + length_of(pieces, count))) \
		return next(fd, pieces, count, offset); \
	errno = ENOSPC; \
	return -1; \
}
#define ALLOCATE(name) \
int name(int fd, off_t offset, off_t length) \
{ \
	int (*next)(int, off_t, off_t) = dlsym(RTLD_NEXT, #name); \
	return is_refused(fd, offset + length) ? ENOSPC : next(fd, offset, length); \
}

WRITE(pwrite)
WRITE(pwrite64)
WRITE_PIECES(pwritev)
WRITE_PIECES(pwritev64)
ALLOCATE(posix_fallocate)
ALLOCATE(posix_fallocate64)
