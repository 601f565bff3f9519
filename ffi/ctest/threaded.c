/* A host with the threaded driver: each session has a thread that writes a file into it, without an event loop.
 *
 *   threaded CONFIG FILE SESSIONS [PAUSE GO]
 *
 * Every session records FILE whole. With PAUSE and GO each waits in its middle: PAUSE.N is made, GO is waited for.
 * Prints the recordings' ids. Ends with 254 when policy refuses, 3 when not everything is stored. */
#include <castkeep.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what, int32_t status) {
    fprintf(stderr, "%s: %s\n", what, castkeep_status_str(status));
    exit(2);
}

#define WANT(call, wanted) do { int32_t status_ = (call); if (status_ != (wanted)) fail(#call, status_); } while (0)
#define CHECK(call) WANT(call, CASTKEEP_STATUS_OK)

static castkeep_client *client;
static const char *path, *pause_path, *go_path;
static char ids[64][40];
static int refused, incomplete;

static void on_log(void *user, int32_t level, const char *text, size_t len) {
    sigset_t mask;
    (void)user;
    if (level <= CASTKEEP_LOG_WARNING) fprintf(stderr, "log: %.*s\n", (int)len, text);
    /* A call out of a callback is answered, not obeyed, and does not wait for itself. */
    if (client) WANT(castkeep_client_process(client), CASTKEEP_STATUS_REENTRANT);
    /* The library's thread gets none of the host's signals. */
    if (level == CASTKEEP_LOG_INFO) {
        pthread_sigmask(SIG_SETMASK, NULL, &mask);
        if (!sigismember(&mask, SIGTERM) || !sigismember(&mask, SIGCHLD)) fail("the mask of signals", 0);
    }
}

static void *session_thread(void *number) {
    int n = (int)(intptr_t)number, fd;
    castkeep_session *session = NULL;
    char buf[65536], text[512];
    struct stat whole;
    off_t done = 0;
    ssize_t got;
    int32_t status;

    CHECK(castkeep_session_new(client, &session));
    CHECK(castkeep_session_set_text(session, CASTKEEP_TEXT_LOCAL_USER, "tester", 6));
    CHECK(castkeep_session_set_text(session, CASTKEEP_TEXT_NODE, "ctest", 5));
    CHECK(castkeep_session_open(session));
    status = castkeep_session_wait_start(session, 30000);
    if (status == CASTKEEP_STATUS_REFUSED) {
        castkeep_session_message(session, text, sizeof text);
        fputs(text, stderr);
        refused = 1;
        castkeep_session_free(session);
        return NULL;
    }
    if (status != CASTKEEP_STATUS_OK) fail("wait_start", status);
    castkeep_session_recording(session, ids[n], sizeof ids[n]);
    fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &whole) != 0) fail(path, 0);
    while ((got = read(fd, buf, sizeof buf)) > 0) {
        if (pause_path && done <= whole.st_size / 2 && done + got > whole.st_size / 2) {
            snprintf(text, sizeof text, "%s.%d", pause_path, n);
            close(open(text, O_CREAT | O_WRONLY, 0600));
            while (access(go_path, F_OK) != 0) usleep(10000);
        }
        CHECK(castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)buf, (size_t)got));
        done += got;
    }
    close(fd);
    CHECK(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 7));
    if (castkeep_session_close(session, 20000) != CASTKEEP_STATUS_OK) incomplete = 1;
    castkeep_session_free(session);
    return NULL;
}

/* A child has the handles, and not the library's thread. */
static void child(void) {
    castkeep_session *session = NULL;
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        WANT(castkeep_client_process(client), CASTKEEP_STATUS_FORKED);
        WANT(castkeep_session_new(client, &session), CASTKEEP_STATUS_FORKED);
        castkeep_client_free(client);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) fail("the forked child", CASTKEEP_STATUS_INTERNAL);
}

/* Events come through the descriptor for those who want them. */
static void events(void) {
    castkeep_session *session = NULL, *which = NULL;
    int32_t event = CASTKEEP_EVENT_NONE;
    struct pollfd entry;
    CHECK(castkeep_session_new(client, &session));
    CHECK(castkeep_session_open(session));
    entry.fd = castkeep_client_fd(client);
    entry.events = POLLIN;
    if (!(fcntl(entry.fd, F_GETFD) & FD_CLOEXEC)) fail("close-on-exec", 0);
    while (event != CASTKEEP_EVENT_START) {
        if (poll(&entry, 1, 30000) != 1) fail("no event came", 0);
        CHECK(castkeep_client_next_event(client, &event, &which));
        if (event == CASTKEEP_EVENT_REFUSED) break;
    }
    if (which != session) fail("a session that nobody made", 0);
    while (castkeep_client_next_event(client, &event, &which) == 0 && event != CASTKEEP_EVENT_NONE) {}
    if (poll(&entry, 1, 0) != 0) fail("readable with nothing to tell", 0);
    castkeep_session_free(session);
}

int main(int argc, char **argv) {
    castkeep_config *config = NULL;
    pthread_t threads[64];
    char why[512] = "";
    int i, n;
    if (argc < 4 || (n = atoi(argv[3])) < 1 || n > 64) return 64;
    path = argv[2];
    if (argc > 5) pause_path = argv[4], go_path = argv[5];
    if (castkeep_config_load(argv[1], strlen(argv[1]), why, sizeof why, &config) != CASTKEEP_STATUS_OK) {
        fprintf(stderr, "%s\n", why);
        return 2;
    }
    CHECK(castkeep_config_check(config, why, sizeof why));
    CHECK(castkeep_config_set_log(config, on_log, NULL));
    {
        castkeep_client *made = NULL;
        CHECK(castkeep_client_new(config, CASTKEEP_DRIVER_THREADED, &made));
        client = made;
    }
    castkeep_config_free(config);
    events();
    for (i = 0; i < n; i++)
        if (pthread_create(&threads[i], NULL, session_thread, (void *)(intptr_t)i) != 0) return 2;
    child();
    for (i = 0; i < n; i++) pthread_join(threads[i], NULL);
    castkeep_client_free(client);
    for (i = 0; i < n; i++) puts(ids[i]);
    return refused ? 254 : incomplete ? 3 : 0;
}
