/* Preloaded: adds the seconds that a file holds to what the wall clock says, from call to call, and leaves every other
 * clock alone. Setting the machine's own clock is for root, and for nobody's tests. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *at)
{
	static int (*real)(clockid_t, struct timespec *);
	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int result = real(clock, at);
	const char *path = getenv("CLOCK_STEP_FILE");
	if (result == 0 && clock == CLOCK_REALTIME && path) {
		char text[32] = { 0 };
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			if (read(fd, text, sizeof text - 1) > 0)
				at->tv_sec += atol(text);
			close(fd);
		}
	}
	return result;
}
