/* Every function with NULL for each pointer in turn, lengths beyond any object, numbers that mean nothing, and handles at the wrong
 * time. With `--list`: the functions that are in the table, for a comparison with those that the library exports.
 *
 *   nulls RECORDER */
#include "rules.h"

static int lists;
/* The name stands in front of the parenthesis. */
static void name_of(const char *call) { printf("%.*s\n", (int)strcspn(call, "("), call); }
#define TRY(call, wanted) \
    do { \
        if (lists) name_of(#call); \
        else IS(call, wanted); \
    } while (0)
#define DO(call) \
    do { \
        if (lists) name_of(#call); \
        else call; \
    } while (0)
#define THEN(condition) \
    do { \
        if (!lists) HOLDS(condition); \
    } while (0)
#define BAD CASTKEEP_STATUS_BAD_PARAMETER

static const size_t absurd = (size_t)-1;
static const uint8_t byte = 'x';

static void no_library_state(void) {
    TRY(castkeep_version_num(), CASTKEEP_VERSION_NUM);
    TRY(castkeep_version() != NULL, 1);
    TRY(castkeep_has(0), 0);
    TRY(castkeep_has(-1), 0);
    TRY(castkeep_has(2147483647), 0);
    TRY(castkeep_status_str(77) != NULL, 1);
    TRY(castkeep_status_str((int32_t)0x80000000) != NULL, 1);
}

static void on_config(void) {
    castkeep_config *config = castkeep_config_new(), *other = config;
    char why[8] = "before";
    static const castkeep_transport table = {sizeof table, NULL, NULL, NULL, NULL, NULL}, shorter = {8, NULL, NULL, NULL, NULL, NULL};
    DO(castkeep_config_free(NULL));
    if (lists) name_of("castkeep_config_new(");
    THEN(config != NULL);
    TRY(castkeep_config_load(NULL, 0, why, sizeof why, &other), BAD);
    THEN(other == NULL && why[0] == '\0');
    TRY(castkeep_config_load("x", 1, why, sizeof why, NULL), BAD);
    TRY(castkeep_config_load("x", absurd, why, sizeof why, &other), CASTKEEP_STATUS_TOO_BIG);
    TRY(castkeep_config_load("/nowhere/at/all", 15, NULL, 0, &other), CASTKEEP_STATUS_CONFIG);
    TRY(castkeep_config_load("/nowhere/at/all", 15, why, 1, &other), CASTKEEP_STATUS_CONFIG);
    THEN(why[0] == '\0');
    TRY(castkeep_config_load("/nowhere/at/all", 15, why, sizeof why, &other), CASTKEEP_STATUS_CONFIG);
    THEN(strcmp(why, "/nowher") == 0);
    TRY(castkeep_config_add_recorder(NULL, "127.0.0.1:1", 11), BAD);
    TRY(castkeep_config_add_recorder(config, NULL, 0), BAD);
    TRY(castkeep_config_add_recorder(config, NULL, 11), BAD);
    TRY(castkeep_config_add_recorder(config, "127.0.0.1:1", absurd), CASTKEEP_STATUS_TOO_BIG);
    TRY(castkeep_config_add_recorder(config, "recorder:80", 11), BAD);
    TRY(castkeep_config_add_recorder_named(NULL, "https://127.0.0.1:1", 19, "a", 1), BAD);
    TRY(castkeep_config_add_recorder_named(config, NULL, 19, "a", 1), BAD);
    TRY(castkeep_config_add_recorder_named(config, "https://127.0.0.1:1", 19, NULL, 1), BAD);
    TRY(castkeep_config_add_recorder_named(config, "127.0.0.1:1", 11, "a", 1), BAD);
    TRY(castkeep_config_add_recorder_host(NULL, "a:1", 3), BAD);
    TRY(castkeep_config_add_recorder_host(config, NULL, 3), BAD);
    TRY(castkeep_config_add_recorder_host(config, "a", 1), BAD);
    TRY(castkeep_config_check(NULL, why, sizeof why), BAD);
    TRY(castkeep_config_check(config, NULL, 0), CASTKEEP_STATUS_OK);
    TRY(castkeep_config_set_bytes(NULL, CASTKEEP_OPTION_TLS_KEY, &byte, 1), BAD);
    TRY(castkeep_config_set_bytes(config, CASTKEEP_OPTION_TLS_KEY, NULL, 1), BAD);
    TRY(castkeep_config_set_bytes(config, CASTKEEP_OPTION_TLS_KEY, &byte, absurd), BAD);
    TRY(castkeep_config_set_bytes(config, CASTKEEP_OPTION_RING_BYTES, &byte, 1), BAD);
    TRY(castkeep_config_set_text(NULL, CASTKEEP_OPTION_REJECT_MESSAGE, "x", 1), BAD);
    TRY(castkeep_config_set_text(config, CASTKEEP_OPTION_REJECT_MESSAGE, NULL, 1), BAD);
    TRY(castkeep_config_set_text(config, CASTKEEP_OPTION_REJECT_MESSAGE, "x", absurd), CASTKEEP_STATUS_TOO_BIG);
    TRY(castkeep_config_set_text(config, CASTKEEP_OPTION_RING_BYTES, "x", 1), BAD);
    TRY(castkeep_config_set_text(config, -1, "x", 1), BAD);
    if (castkeep_has(CASTKEEP_CAP_POLICY)) {
        /* Whom to record is not asked in clear text over a network. */
        TRY(castkeep_config_set_text(config, CASTKEEP_OPTION_POLICY, "192.0.2.7:80", 12), BAD);
        TRY(castkeep_config_set_text(config, CASTKEEP_OPTION_POLICY, "unix:relative", 13), BAD);
        TRY(castkeep_config_set_text(config, CASTKEEP_OPTION_POLICY_TOKEN, "two words", 9), BAD);
        TRY(castkeep_config_set_number(config, CASTKEEP_OPTION_POLICY_AS_CONFIGURED, 2), BAD);
    }
    TRY(castkeep_config_set_number(NULL, CASTKEEP_OPTION_RING_BYTES, 65536), BAD);
    TRY(castkeep_config_set_number(config, CASTKEEP_OPTION_RING_BYTES, 0), BAD);
    TRY(castkeep_config_set_number(config, CASTKEEP_OPTION_RING_BYTES, UINT64_MAX), BAD);
    TRY(castkeep_config_set_number(config, CASTKEEP_OPTION_MAX_SESSIONS, 0), BAD);
    TRY(castkeep_config_set_number(config, CASTKEEP_OPTION_RECORD_INPUT, 2), BAD);
    TRY(castkeep_config_set_number(config, CASTKEEP_OPTION_GRACE_MS, UINT64_MAX), BAD);
    TRY(castkeep_config_set_number(config, CASTKEEP_OPTION_REJECT_MESSAGE, 1), BAD);
    TRY(castkeep_config_set_number(config, 4711, 1), BAD);
    TRY(castkeep_config_set_log(NULL, NULL, NULL), BAD);
    TRY(castkeep_config_set_log(config, NULL, NULL), CASTKEEP_STATUS_OK);
    TRY(castkeep_config_set_dial(NULL, NULL, NULL), BAD);
    TRY(castkeep_config_set_dial(config, NULL, NULL), CASTKEEP_STATUS_OK);
    TRY(castkeep_config_set_transport(NULL, &table, NULL), BAD);
    TRY(castkeep_config_set_transport(config, NULL, NULL), CASTKEEP_STATUS_OK);
    TRY(castkeep_config_set_transport(config, &table, NULL), BAD);
    TRY(castkeep_config_set_transport(config, &shorter, NULL), BAD);
    castkeep_config_free(config);
}

static void on_client(castkeep_client *live) {
    castkeep_config *config = castkeep_config_new();
    castkeep_client *client = live;
    castkeep_session *session = NULL;
    int32_t event = 77;
    DO(castkeep_client_free(NULL));
    TRY(castkeep_client_new(NULL, CASTKEEP_DRIVER_POLLED, &client), BAD);
    THEN(client == NULL);
    TRY(castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, NULL), BAD);
    TRY(castkeep_client_new(config, 0, &client), BAD);
    TRY(castkeep_client_new(config, 77, &client), BAD);
    TRY(castkeep_client_fd(NULL), -1);
    TRY(castkeep_client_process(NULL), BAD);
    TRY(castkeep_client_dialed(NULL, 1, -1), BAD);
    TRY(castkeep_client_dialed(live, 1, -1), CASTKEEP_STATUS_CLOSED);
    TRY(castkeep_client_next_event(NULL, &event, &session), BAD);
    THEN(event == CASTKEEP_EVENT_NONE);
    TRY(castkeep_client_next_event(live, NULL, &session), BAD);
    TRY(castkeep_client_next_event(live, &event, NULL), BAD);
    TRY(castkeep_session_new(NULL, &session), BAD);
    TRY(castkeep_session_new(live, NULL), BAD);
    castkeep_config_free(config);
}

/* Calls that need an open session, at a time when there is none. */
static void at_the_wrong_time(castkeep_session *session, int32_t wanted) {
    castkeep_stats stats;
    stats.size = sizeof stats;
    TRY(castkeep_session_wait_start(session, 0), wanted);
    TRY(castkeep_session_room(session), 0);
    TRY(castkeep_session_output(session, CASTKEEP_STDOUT, &byte, 1), wanted);
    TRY(castkeep_session_input(session, &byte, 1), wanted);
    TRY(castkeep_session_marker(session, "x", 1), wanted);
    TRY(castkeep_session_released(session, CASTKEEP_STDOUT), 0);
    TRY(castkeep_session_message(session, NULL, 0), 0);
    TRY(castkeep_session_recording(session, NULL, 0), 0);
    TRY(castkeep_session_stats(session, &stats), wanted);
    TRY(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0), wanted);
    TRY(castkeep_session_finish(session), wanted);
    TRY(castkeep_session_close(session, 0), wanted);
}

static void on_session(castkeep_session *open) {
    castkeep_stats stats;
    char text[4] = "abc";
    stats.size = 4;
    DO(castkeep_session_free(NULL));
    TRY(castkeep_session_set_text(NULL, CASTKEEP_TEXT_COMMAND, "x", 1), BAD);
    TRY(castkeep_session_set_text(open, CASTKEEP_TEXT_COMMAND, NULL, 1), BAD);
    TRY(castkeep_session_set_text(open, CASTKEEP_TEXT_COMMAND, "x", absurd), CASTKEEP_STATUS_TOO_BIG);
    TRY(castkeep_session_set_text(open, CASTKEEP_TEXT_COMMAND, "x", 1), CASTKEEP_STATUS_WRONG_STATE);
    TRY(castkeep_session_open(NULL), BAD);
    TRY(castkeep_session_open(open), CASTKEEP_STATUS_WRONG_STATE);
    TRY(castkeep_session_resize(NULL, 80, 24), BAD);
    TRY(castkeep_session_output(open, CASTKEEP_STDOUT, NULL, 1), BAD);
    TRY(castkeep_session_output(open, CASTKEEP_STDOUT, NULL, 0), CASTKEEP_STATUS_OK);
    TRY(castkeep_session_output(open, CASTKEEP_STDOUT, &byte, absurd), BAD);
    TRY(castkeep_session_output(open, 0, &byte, 1), BAD);
    TRY(castkeep_session_output(open, 77, &byte, 1), BAD);
    TRY(castkeep_session_input(open, NULL, 1), BAD);
    TRY(castkeep_session_input(open, &byte, absurd), BAD);
    TRY(castkeep_session_marker(open, NULL, 1), BAD);
    TRY(castkeep_session_marker(open, "x", absurd), CASTKEEP_STATUS_TOO_BIG);
    TRY(castkeep_session_released(open, 77), 0);
    TRY(castkeep_session_message(open, text, 0), 0);
    THEN(strcmp(text, "abc") == 0);
    TRY(castkeep_session_recording(open, text, sizeof text), 32);
    THEN(strlen(text) == 3);
    TRY(castkeep_session_stats(open, NULL), BAD);
    TRY(castkeep_session_stats(open, &stats), BAD);
    TRY(castkeep_session_exit(open, 77, 0), BAD);
}

int main(int argc, char **argv) {
    castkeep_client *client = NULL;
    castkeep_session *session = NULL, *early = NULL;
    lists = argc == 2 && strcmp(argv[1], "--list") == 0;
    if (argc != 2) return 64;
    no_library_state();
    on_config();
    if (lists) {
        on_client(NULL);
        at_the_wrong_time(NULL, BAD);
        on_session(NULL);
        return 0;
    }
    client = client_of(argv[1], CASTKEEP_DRIVER_POLLED);
    on_client(client);
    at_the_wrong_time(NULL, BAD);
    part("NULL, absurd lengths and unknown numbers are answered");
    IS(castkeep_session_new(client, &early), CASTKEEP_STATUS_OK);
    at_the_wrong_time(early, CASTKEEP_STATUS_WRONG_STATE);
    IS(castkeep_session_resize(early, 65535, 65535), CASTKEEP_STATUS_OK);
    part("before open every call says so");
    session = running(client, "nulls");
    on_session(session);
    ended(session);
    session = running(client, "nulls");
    IS(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0), CASTKEEP_STATUS_OK);
    IS(castkeep_session_output(session, CASTKEEP_STDOUT, &byte, 1), CASTKEEP_STATUS_CLOSED);
    IS(castkeep_session_finish(session), CASTKEEP_STATUS_OK);
    HOLDS(until(client, CASTKEEP_EVENT_FINISHED));
    IS(castkeep_session_output(session, CASTKEEP_STDOUT, &byte, 1), CASTKEEP_STATUS_CLOSED);
    IS(castkeep_session_room(session), 0);
    IS(castkeep_session_wait_start(session, 0), CASTKEEP_STATUS_CLOSED);
    part("behind the end too");
    castkeep_client_free(client);
    at_the_wrong_time(session, CASTKEEP_STATUS_CLOSED);
    at_the_wrong_time(early, CASTKEEP_STATUS_CLOSED);
    IS(castkeep_session_open(early), CASTKEEP_STATUS_CLOSED);
    IS(castkeep_session_resize(early, 1, 1), CASTKEEP_STATUS_CLOSED);
    castkeep_session_free(session);
    castkeep_session_free(early);
    part("handles whose client is gone answer CLOSED");
    return failures != 0;
}
