/* Records what it reads from a pipe, and passes it on: the polled driver in as few lines as it takes.
 *
 *     cc minimal.c $(pkg-config --cflags --libs castkeep) -o minimal
 *     seq 1000 | ./minimal castkeep.hujson
 *
 * Prints the recording's id on standard error. Ends with 0 when all of it is stored, 1 when it is not known to be, 2 when
 * something is set up wrongly, 254 when policy ends it. */
#include <castkeep.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int give_up(const char *why) { return fprintf(stderr, "minimal: %s\n", why), 2; }

int main(int argc, char **argv) {
    castkeep_config *config;
    castkeep_client *client;
    castkeep_session *session, *which;
    char text[512] = "", buf[4096];
    int started = 0, shut = 0, exit_code = -1;
    int32_t event, status;

    if (argc != 2) return give_up("usage: minimal CONFIG <INPUT");
    if (castkeep_config_load(argv[1], strlen(argv[1]), text, sizeof text, &config)) return give_up(text);
    if ((status = castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client)) || (status = castkeep_session_new(client, &session)) ||
        (status = castkeep_session_set_text(session, CASTKEEP_TEXT_COMMAND, "minimal", 7)) || (status = castkeep_session_open(session)))
        return give_up(castkeep_status_str(status));
    castkeep_session_recording(session, text, sizeof text);
    fprintf(stderr, "recording %s\n", text);
    while (exit_code < 0) {
        int reads = started && !shut && castkeep_session_room(session) > 0;
        struct pollfd fds[2] = {{castkeep_client_fd(client), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
        if (poll(fds, reads ? 2 : 1, -1) < 0 && errno != EINTR) return give_up(strerror(errno));
        if ((status = castkeep_client_process(client))) return give_up(castkeep_status_str(status));
        while (!castkeep_client_next_event(client, &event, &which) && event != CASTKEEP_EVENT_NONE) {
            if (event == CASTKEEP_EVENT_START) started = 1;
            if (event == CASTKEEP_EVENT_FINISHED && exit_code < 0) exit_code = shut == 254 ? 254 : 0;
            if (event == CASTKEEP_EVENT_INCOMPLETE && exit_code < 0) exit_code = shut == 254 ? 254 : 1;
            if (event != CASTKEEP_EVENT_REFUSED && event != CASTKEEP_EVENT_TERMINATED) continue;
            castkeep_session_message(session, text, sizeof text);
            fprintf(stderr, "%s%s", text, strchr(text, '\n') ? "" : "\n");
            shut = 254; /* what is there to read is neither recorded nor shown */
            if (event == CASTKEEP_EVENT_REFUSED) exit_code = 254;
            else castkeep_session_finish(session);
        }
        size_t room = castkeep_session_room(session); /* asked again: it may have become less */
        if (!reads || shut || fds[1].revents == 0 || room == 0) continue;
        ssize_t n = read(STDIN_FILENO, buf, room < sizeof buf ? room : sizeof buf);
        if (n > 0 && castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)buf, (size_t)n) == 0 &&
            fwrite(buf, 1, (size_t)n, stdout) == (size_t)n) continue; /* recorded, then shown */
        shut = 1;
        castkeep_session_exit(session, CASTKEEP_EXIT_CODE, n == 0 ? 0 : 1);
        castkeep_session_finish(session);
    }
    castkeep_session_free(session), castkeep_client_free(client), castkeep_config_free(config);
    return exit_code;
}
