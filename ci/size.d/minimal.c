/* The least that records: what libcastkeep.a adds to a program is measured with it. Never run. */
#include <castkeep.h>
#include <poll.h>
#include <stddef.h>

int main(int argc, char **argv) {
    castkeep_config *config = castkeep_config_new();
    castkeep_client *client = NULL;
    castkeep_session *session = NULL, *which;
    struct pollfd fd;
    int32_t event = CASTKEEP_EVENT_NONE;
    castkeep_config_add_recorder(config, argv[argc - 1], 12);
    if (castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client) != 0) return 1;
    castkeep_session_new(client, &session);
    castkeep_session_open(session);
    fd.fd = castkeep_client_fd(client);
    fd.events = POLLIN;
    while (event != CASTKEEP_EVENT_FINISHED && poll(&fd, 1, -1) >= 0) {
        castkeep_client_process(client);
        castkeep_client_next_event(client, &event, &which);
        if (event == CASTKEEP_EVENT_START) {
            castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)"hello\r\n", 7);
            castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0);
            castkeep_session_finish(session);
        }
    }
    castkeep_session_free(session);
    castkeep_client_free(client);
    castkeep_config_free(config);
    return 0;
}
