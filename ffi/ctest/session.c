/* A host with the polled driver, as small as it can be: records its standard input as the output of a program.
 *
 *   session CONFIG [signal]
 *
 * Prints the recording's id. Ends with 254 when policy refuses or ends the session, 3 when not everything is stored. */
#include <castkeep.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what, int32_t status) {
    fprintf(stderr, "%s: %s\n", what, castkeep_status_str(status));
    exit(2);
}

#define CHECK(call) do { int32_t status_ = (call); if (status_ != CASTKEEP_STATUS_OK) fail(#call, status_); } while (0)
#define WANT(call, wanted) do { int32_t status_ = (call); if (status_ != (wanted)) fail(#call, status_); } while (0)

static void on_log(void *user, int32_t level, const char *text, size_t len) {
    castkeep_client **client = (castkeep_client **)user;
    if (level <= CASTKEEP_LOG_WARNING) fprintf(stderr, "log: %.*s\n", (int)len, text);
    /* A call out of a callback is answered, not obeyed. */
    if (*client) WANT(castkeep_client_process(*client), CASTKEEP_STATUS_REENTRANT);
}

/* In a child nothing is sent and nothing is touched. */
static void child(castkeep_client *client, castkeep_session *session) {
    int32_t event;
    castkeep_session *which;
    pid_t pid = fork();
    int status = 0;
    if (pid == 0) {
        WANT(castkeep_client_process(client), CASTKEEP_STATUS_FORKED);
        WANT(castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)"x", 1), CASTKEEP_STATUS_FORKED);
        WANT(castkeep_client_next_event(client, &event, &which), CASTKEEP_STATUS_FORKED);
        if (castkeep_session_room(session) != 0) _exit(9);
        castkeep_session_free(session);
        castkeep_client_free(client);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) fail("the forked child", CASTKEEP_STATUS_INTERNAL);
}

static void wrong_calls(castkeep_client *client, castkeep_session *session) {
    castkeep_stats stats;
    char tiny[4];
    stats.size = 4;
    WANT(castkeep_session_stats(session, &stats), CASTKEEP_STATUS_BAD_PARAMETER);
    stats.size = 16;
    stats.taken = 77;
    CHECK(castkeep_session_stats(session, &stats));
    if (stats.taken != 77) fail("stats wrote past its size", 0);
    WANT(castkeep_session_output(session, 7, (const uint8_t *)"x", 1), CASTKEEP_STATUS_BAD_PARAMETER);
    WANT(castkeep_session_output(session, CASTKEEP_STDOUT, NULL, 1), CASTKEEP_STATUS_BAD_PARAMETER);
    WANT(castkeep_session_output(NULL, CASTKEEP_STDOUT, NULL, 0), CASTKEEP_STATUS_BAD_PARAMETER);
    WANT(castkeep_session_open(session), CASTKEEP_STATUS_WRONG_STATE);
    WANT(castkeep_session_exit(session, 99, 0), CASTKEEP_STATUS_BAD_PARAMETER);
    WANT(castkeep_client_process(NULL), CASTKEEP_STATUS_BAD_PARAMETER);
    WANT(castkeep_client_new(NULL, CASTKEEP_DRIVER_POLLED, &client), CASTKEEP_STATUS_BAD_PARAMETER);
    castkeep_session_free(NULL);
    castkeep_client_free(NULL);
    castkeep_config_free(NULL);
    if (castkeep_session_recording(session, tiny, sizeof tiny) != 32 || strlen(tiny) != 3) fail("recording", 0);
}

int main(int argc, char **argv) {
    castkeep_config *config = NULL;
    castkeep_client *client = NULL;
    castkeep_session *session = NULL, *which = NULL;
    uint8_t buf[16384];
    char why[512] = "", id[40];
    int started = 0, ended = 0, eof = 0, over = 0, status = 0;
    int32_t event = CASTKEEP_EVENT_NONE;

    if (argc < 2) return 64;
    status = castkeep_config_load(argv[1], strlen(argv[1]), why, sizeof why, &config);
    if (status != CASTKEEP_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", castkeep_status_str(status), why);
        return 2;
    }
    CHECK(castkeep_config_set_log(config, on_log, &client));
    CHECK(castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client));
    castkeep_config_free(config);
    if (!(fcntl(castkeep_client_fd(client), F_GETFD) & FD_CLOEXEC)) fail("close-on-exec", 0);
    CHECK(castkeep_session_new(client, &session));
    WANT(castkeep_session_output(session, CASTKEEP_STDOUT, NULL, 0), CASTKEEP_STATUS_WRONG_STATE);
    CHECK(castkeep_session_set_text(session, CASTKEEP_TEXT_LOCAL_USER, "tester", 6));
    CHECK(castkeep_session_set_text(session, CASTKEEP_TEXT_COMMAND, "cat", 3));
    CHECK(castkeep_session_set_text(session, CASTKEEP_TEXT_NODE, "ctest", 5));
    CHECK(castkeep_session_resize(session, 100, 40));
    CHECK(castkeep_session_open(session));
    if (castkeep_session_room(session) != 0) fail("room before the start", 0);
    wrong_calls(client, session);

    while (!ended) {
        size_t room = castkeep_session_room(session);
        struct pollfd fds[2];
        int n = started && !eof && room > 0 ? 2 : 1;
        fds[0].fd = castkeep_client_fd(client);
        fds[1].fd = 0;
        fds[0].events = fds[1].events = POLLIN;
        fds[0].revents = fds[1].revents = 0;
        if (poll(fds, n, -1) < 0 && errno != EINTR) return 2;
        CHECK(castkeep_client_process(client));
        while (castkeep_client_next_event(client, &event, &which) == CASTKEEP_STATUS_OK && event != CASTKEEP_EVENT_NONE) {
            if (which != session) fail("a session that nobody made", 0);
            switch (event) {
                case CASTKEEP_EVENT_START:
                    started = 1;
                    child(client, session);
                    break;
                case CASTKEEP_EVENT_REFUSED:
                case CASTKEEP_EVENT_TERMINATED:
                    castkeep_session_message(session, why, sizeof why);
                    fputs(why, stderr);
                    over = 254;
                    if (event == CASTKEEP_EVENT_REFUSED) ended = 1;
                    else CHECK(castkeep_session_finish(session));
                    eof = 1;
                    break;
                case CASTKEEP_EVENT_FINISHED:
                    ended = 1;
                    break;
                case CASTKEEP_EVENT_INCOMPLETE:
                    ended = 1;
                    if (!over) over = 3;
                    break;
                default:
                    break;
            }
        }
        if (n == 2 && fds[1].revents && !eof) {
            ssize_t got;
            room = castkeep_session_room(session);
            got = room == 0 ? -1 : read(0, buf, room < sizeof buf ? room : sizeof buf);
            if (got > 0) {
                CHECK(castkeep_session_output(session, CASTKEEP_STDOUT, buf, (size_t)got));
            } else if (got == 0) {
                eof = 1;
                if (argc > 2) CHECK(castkeep_session_exit(session, CASTKEEP_EXIT_SIGNAL, SIGTERM));
                else CHECK(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 7));
                CHECK(castkeep_session_finish(session));
                WANT(castkeep_session_output(session, CASTKEEP_STDOUT, buf, 1),
                     CASTKEEP_STATUS_CLOSED);
            }
        }
    }
    castkeep_session_recording(session, id, sizeof id);
    puts(id);
    /* The client first: the session's handle has to survive that. */
    castkeep_client_free(client);
    WANT(castkeep_session_finish(session), CASTKEEP_STATUS_CLOSED);
    castkeep_session_free(session);
    return over;
}
