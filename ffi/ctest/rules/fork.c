/* Forked children: they are answered FORKED and send nothing, they hold copies of everything for as long as they like, an exec that
 * fails is theirs alone; and the session of the parent is whole.
 *
 *   fork RECORDER */
#include "rules.h"
#include <fcntl.h>
#include <sys/wait.h>

static void all_forked(castkeep_client *client, castkeep_session *session) {
    castkeep_session *which;
    castkeep_stats stats;
    int32_t event;
    int fd;
    stats.size = sizeof stats;
    IS(castkeep_client_process(client), CASTKEEP_STATUS_FORKED);
    IS(castkeep_client_next_event(client, &event, &which), CASTKEEP_STATUS_FORKED);
    fd = dup(0);
    IS(castkeep_client_dialed(client, 1, fd), CASTKEEP_STATUS_FORKED);
    HOLDS(fcntl(fd, F_GETFD) < 0); /* it is the client's, whatever the answer */
    IS(castkeep_session_new(client, &which), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_open(session), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_set_text(session, CASTKEEP_TEXT_TERM, "x", 1), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_resize(session, 1, 1), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_wait_start(session, 0), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_room(session), 0);
    IS(say(session, "from a child\n"), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_input(session, (const uint8_t *)"x", 1), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_marker(session, "x", 1), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_released(session, CASTKEEP_STDOUT), 0);
    IS(castkeep_session_message(session, NULL, 0), 0);
    IS(castkeep_session_recording(session, NULL, 0), 0);
    IS(castkeep_session_stats(session, &stats), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_finish(session), CASTKEEP_STATUS_FORKED);
    IS(castkeep_session_close(session, 1000), CASTKEEP_STATUS_FORKED);
}

/* A child that calls everything, frees what it has, and ends. */
static void child(castkeep_client *client, castkeep_session *session) {
    int status;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        all_forked(client, session);
        castkeep_session_free(session);
        castkeep_client_free(client);
        fflush(stdout);
        _exit(part_failures != 0);
    }
    HOLDS(waitpid(pid, &status, 0) == pid && status == 0);
}

static void driver(const char *recorder, int32_t kind, const char *command, const char *what) {
    castkeep_client *client = client_of(recorder, kind);
    castkeep_session *session = NULL;
    int gate[2], status;
    pid_t held, failed;
    char text[100];

    IS(castkeep_session_new(client, &session), CASTKEEP_STATUS_OK);
    child(client, session);
    castkeep_session_free(session);
    snprintf(text, sizeof text, "%s: a child of before open", what);
    part(text);

    session = running(client, command);
    IS(say(session, "one\r\n"), CASTKEEP_STATUS_OK);
    child(client, session);
    IS(say(session, "two\r\n"), CASTKEEP_STATUS_OK);
    snprintf(text, sizeof text, "%s: a child in mid-session", what);
    part(text);

    /* As of a command in the background: it has copies of all descriptors, and outlives the session. */
    if (pipe(gate) != 0) hopeless("pipe", 0);
    fflush(stdout);
    held = fork();
    if (held == 0) {
        char end;
        close(gate[1]);
        _exit(read(gate[0], &end, 1) != 0);
    }
    failed = fork();
    if (failed == 0) {
        execl("/nowhere/at/all", "all", (char *)NULL);
        _exit(127);
    }
    HOLDS(waitpid(failed, &status, 0) == failed && WIFEXITED(status) && WEXITSTATUS(status) == 127);
    IS(say(session, "three\r\n"), CASTKEEP_STATUS_OK);
    ended(session);
    castkeep_client_free(client);
    HOLDS(waitpid(held, &status, WNOHANG) == 0); /* still there, with its copies */
    close(gate[1]);
    HOLDS(waitpid(held, &status, 0) == held && status == 0);
    snprintf(text, sizeof text, "%s: stored, while a child holds copies of the connection; exec failed in another", what);
    part(text);
}

int main(int argc, char **argv) {
    if (argc != 2) return 64;
    driver(argv[1], CASTKEEP_DRIVER_POLLED, "fork polled", "polled");
    driver(argv[1], CASTKEEP_DRIVER_THREADED, "fork threaded", "threaded");
    return failures != 0;
}
