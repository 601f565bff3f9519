/* The state of the host's process: no signal is raised or handled, no mask changed, descriptors are close-on-exec and all given back,
 * nothing is written to standard output or error (not for a configuration that is wrong, not for a fault inside, although a
 * backtrace is asked for), and threads are as many as promised.
 *
 *   process RECORDER */
#define _GNU_SOURCE
#include "rules.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

/* In builds with test-hooks; in no header. */
int32_t castkeep_test_panic(void);

static int stray; /* the read end of what is standard output and error while the library is called */

static void each_descriptor(int *count, int *inherited) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    *count = *inherited = 0;
    while (dir && (entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(dir)) continue;
        ++*count;
        if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC)) ++*inherited;
    }
    if (dir) closedir(dir);
}
static int threads(void) {
    int count = 0;
    DIR *dir = opendir("/proc/self/task");
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) count += entry->d_name[0] != '.';
    if (dir) closedir(dir);
    return count;
}

/* Resets each connection after its first bytes: what is written then would raise SIGPIPE. */
static void *resetter(void *listener) {
    for (;;) {
        struct linger hard = {1, 0};
        char buf[64];
        int fd = accept(*(int *)listener, NULL, NULL);
        if (fd < 0) return NULL;
        if (read(fd, buf, sizeof buf) > 0) {}
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(fd);
    }
}

static void whole_session(const char *recorder, int32_t driver, int own_threads) {
    castkeep_client *client;
    castkeep_session *session;
    int before, inherited, now, inherited_now, n, was = threads();
    each_descriptor(&before, &inherited);
    client = client_of(recorder, driver);
    session = running(client, "process");
    IS(say(session, "quiet\r\n"), CASTKEEP_STATUS_OK);
    for (n = 0; n < 3; n++) IS(castkeep_client_process(client), CASTKEEP_STATUS_OK);
    each_descriptor(&now, &inherited_now);
    IS(inherited_now, inherited);
    /* The header's number: 2 for a client, 2 more with a thread, at most 3 for a session. */
    HOLDS(now > before && now - before <= (own_threads ? 4 : 2) + 3);
    IS(threads() - was, own_threads);
    ended(session);
    castkeep_client_free(client);
    each_descriptor(&now, &inherited_now);
    IS(now, before);
    IS(threads(), was);
}

static void lost_connections(void) {
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    char recorder[64];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t thread;
    castkeep_client *client;
    castkeep_session *session = NULL;
    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 16) != 0 || getsockname(listener, (struct sockaddr *)&at, &len) != 0 ||
        pthread_create(&thread, NULL, resetter, &listener) != 0)
        hopeless("a listener", 0);
    snprintf(recorder, sizeof recorder, "127.0.0.1:%d", ntohs(at.sin_port));
    client = client_of(recorder, CASTKEEP_DRIVER_POLLED);
    IS(castkeep_session_new(client, &session), CASTKEEP_STATUS_OK);
    IS(castkeep_session_open(session), CASTKEEP_STATUS_OK);
    IS(castkeep_session_wait_start(session, 30000), CASTKEEP_STATUS_REFUSED);
    castkeep_session_free(session);
    castkeep_client_free(client);
    shutdown(listener, SHUT_RDWR);
    close(listener);
    pthread_join(thread, NULL);
}

int main(int argc, char **argv) {
    struct sigaction before[65], after;
    sigset_t mask, mask_after;
    int n, ends[2], out, err;
    char text[64], why[64];
    castkeep_config *config;
    if (argc != 2) return 64;
    setenv("RUST_BACKTRACE", "1", 1);
    for (n = 1; n < 65; n++) sigaction(n, NULL, &before[n]);
    HOLDS(before[SIGPIPE].sa_handler == SIG_DFL);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return 64;
    stray = ends[0];
    fflush(stdout);
    out = fcntl(1, F_DUPFD_CLOEXEC, 3);
    err = fcntl(2, F_DUPFD_CLOEXEC, 3);
    dup2(ends[1], 1);
    dup2(ends[1], 2);

    IS(castkeep_test_panic(), CASTKEEP_STATUS_INTERNAL); /* before anything else was called */
    IS(castkeep_config_load("/nowhere", 8, why, sizeof why, &config), CASTKEEP_STATUS_CONFIG);
    whole_session(argv[1], CASTKEEP_DRIVER_POLLED, 0);
    whole_session(argv[1], CASTKEEP_DRIVER_THREADED, 1);
    lost_connections();
    IS(castkeep_test_panic(), CASTKEEP_STATUS_INTERNAL);

    /* Nothing of ours is flushed into the pipe before it is looked at. */
    n = (int)read(stray, text, sizeof text);
    dup2(out, 1);
    dup2(err, 2);
    part("descriptors are close-on-exec, as many as promised, and given back; threads too");
    HOLDS(n < 0 && errno == EAGAIN);
    part("nothing on standard output and error, whatever fails");
    for (n = 1; n < 65; n++) {
        sigaction(n, NULL, &after);
        HOLDS(after.sa_handler == before[n].sa_handler && after.sa_flags == before[n].sa_flags);
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    HOLDS(memcmp(&mask, &mask_after, sizeof mask) == 0);
    part("SIGPIPE is not raised; dispositions and mask of signals are as they were");
    return failures != 0;
}
