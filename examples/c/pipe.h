/* What the examples with a transport of their own have in common: standard input is recorded, then shown. minimal.c is the same by
 * itself, with a configuration file. */
#include <castkeep.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static inline int give_up(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    return 2;
}

static inline void show_log(void *user, int32_t level, const char *text, size_t len) {
    (void)user;
    if (level <= CASTKEEP_LOG_WARNING) fprintf(stderr, "%.*s\n", (int)len, text);
}

/* A client that must record, at the recorder that the host calls by this name or address. */
static inline int record_pipe(castkeep_config *config, const char *command) {
    static const char refused[] = "No recorder, no session.\n", ended[] = "The recorder is gone, and so is this session.\n";
    castkeep_client *client;
    castkeep_session *session, *which;
    char text[512] = "", buf[4096];
    int started = 0, over = 0, exit_code = -1;
    int32_t event, status;

    castkeep_config_set_log(config, show_log, NULL);
    if ((status = castkeep_config_set_text(config, CASTKEEP_OPTION_REJECT_MESSAGE, refused, sizeof refused - 1)) ||
        (status = castkeep_config_set_text(config, CASTKEEP_OPTION_TERMINATE_MESSAGE, ended, sizeof ended - 1)) ||
        (status = castkeep_config_check(config, text, sizeof text)))
        return give_up("configuration", *text ? text : castkeep_status_str(status));
    if ((status = castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client)) || (status = castkeep_session_new(client, &session)) ||
        (status = castkeep_session_set_text(session, CASTKEEP_TEXT_COMMAND, command, strlen(command))) ||
        (status = castkeep_session_open(session)))
        return give_up("castkeep", castkeep_status_str(status));
    while (exit_code < 0) {
        int reads = started && !over && castkeep_session_room(session) > 0;
        struct pollfd fds[2] = {{castkeep_client_fd(client), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
        if (poll(fds, reads ? 2 : 1, -1) < 0 && errno != EINTR) return give_up("poll", strerror(errno));
        if ((status = castkeep_client_process(client))) return give_up("castkeep", castkeep_status_str(status));
        while (!castkeep_client_next_event(client, &event, &which) && event != CASTKEEP_EVENT_NONE) {
            if (event == CASTKEEP_EVENT_START) started = 1;
            if (event == CASTKEEP_EVENT_FINISHED) exit_code = over == 254 ? 254 : 0;
            if (event == CASTKEEP_EVENT_INCOMPLETE) exit_code = over == 254 ? 254 : 1;
            if (event != CASTKEEP_EVENT_REFUSED && event != CASTKEEP_EVENT_TERMINATED) continue;
            castkeep_session_message(session, text, sizeof text);
            fputs(text, stderr);
            over = 254;
            if (event == CASTKEEP_EVENT_REFUSED) exit_code = 254;
            else castkeep_session_finish(session);
        }
        size_t room = castkeep_session_room(session); /* asked again: it may have become less */
        if (exit_code >= 0 || !reads || over || fds[1].revents == 0 || room == 0) continue;
        ssize_t n = read(STDIN_FILENO, buf, room < sizeof buf ? room : sizeof buf);
        if (n > 0 && castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)buf, (size_t)n) == CASTKEEP_STATUS_OK &&
            fwrite(buf, 1, (size_t)n, stdout) == (size_t)n)
            continue;
        over = 1;
        castkeep_session_exit(session, CASTKEEP_EXIT_CODE, n == 0 ? 0 : 1);
        castkeep_session_finish(session);
    }
    castkeep_session_free(session);
    castkeep_client_free(client);
    castkeep_config_free(config);
    return exit_code;
}
