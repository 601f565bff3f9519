/* Several clients in one process, of both drivers, do not know of each other; limits answer LIMIT, and what is freed can be had again.
 *
 *   many RECORDER */
#include "rules.h"

static void limits(const char *recorder, int32_t driver, const char *what) {
    castkeep_config *config = closed_config(recorder);
    castkeep_client *client = NULL;
    castkeep_session *first = NULL, *second = NULL, *third = NULL;
    IS(castkeep_config_set_number(config, CASTKEEP_OPTION_MAX_SESSIONS, 2), CASTKEEP_STATUS_OK);
    IS(castkeep_client_new(config, driver, &client), CASTKEEP_STATUS_OK);
    first = running(client, "many limits");
    second = running(client, "many limits");
    IS(castkeep_session_new(client, &third), CASTKEEP_STATUS_OK);
    IS(castkeep_session_open(third), CASTKEEP_STATUS_LIMIT);
    castkeep_session_free(third);
    ended(first);
    first = running(client, "many limits");
    ended(first);
    ended(second);
    castkeep_client_free(client);

    /* Memory of one ring and a half. */
    IS(castkeep_config_set_number(config, CASTKEEP_OPTION_RING_BYTES, 65536), CASTKEEP_STATUS_OK);
    IS(castkeep_config_set_number(config, CASTKEEP_OPTION_MAX_BYTES, 98304), CASTKEEP_STATUS_OK);
    IS(castkeep_client_new(config, driver, &client), CASTKEEP_STATUS_OK);
    first = running(client, "many limits");
    IS(castkeep_session_new(client, &second), CASTKEEP_STATUS_OK);
    IS(castkeep_session_open(second), CASTKEEP_STATUS_LIMIT);
    castkeep_session_free(second);
    ended(first);
    second = running(client, "many limits");
    ended(second);
    castkeep_client_free(client);
    castkeep_config_free(config);
    part(what);
}

int main(int argc, char **argv) {
    castkeep_client *clients[4];
    castkeep_session *sessions[4];
    char line[64];
    int i, n;
    if (argc != 2) return 64;
    for (i = 0; i < 4; i++) {
        clients[i] = client_of(argv[1], i % 2 ? CASTKEEP_DRIVER_THREADED : CASTKEEP_DRIVER_POLLED);
        snprintf(line, sizeof line, "many %d", i);
        sessions[i] = running(clients[i], line);
    }
    for (n = 0; n < 2000; n++)
        for (i = 0; i < 4; i++) {
            snprintf(line, sizeof line, "client %d line %04d\n", i, n);
            while (i % 2 == 0 && castkeep_session_room(sessions[i]) < strlen(line))
                if (!until(clients[i], CASTKEEP_EVENT_ROOM)) hopeless("room", CASTKEEP_STATUS_TIMED_OUT);
            IS(say(sessions[i], line), CASTKEEP_STATUS_OK);
        }
    /* One that goes takes nothing of the others with it. */
    ended(sessions[0]);
    castkeep_client_free(clients[0]);
    for (i = 1; i < 4; i++) {
        ended(sessions[i]);
        castkeep_client_free(clients[i]);
    }
    part("four clients in one process, of both drivers");
    limits(argv[1], CASTKEEP_DRIVER_POLLED, "polled: past a limit open answers LIMIT; what is freed can be had again");
    limits(argv[1], CASTKEEP_DRIVER_THREADED, "threaded: the same");
    return failures != 0;
}
