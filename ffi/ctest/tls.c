/* A session over the library's own TLS, everything set from C: `tls ADDRESS NAME AUTHORITIES CERTIFICATE KEY [PIN]`; "-" leaves out.
 *
 * Records one line. Prints the recording's id; ends with 254 when policy refuses, 2 when the configuration cannot be used. */
#include <castkeep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what, int32_t status) {
    fprintf(stderr, "%s: %s\n", what, castkeep_status_str(status));
    exit(1);
}

#define WANT(call, wanted) do { int32_t status_ = (call); if (status_ != (wanted)) fail(#call, status_); } while (0)
#define CHECK(call) WANT(call, CASTKEEP_STATUS_OK)

static void set_file(castkeep_config *config, int32_t option, const char *path) {
    static uint8_t bytes[65536];
    size_t n;
    FILE *file;
    if (strcmp(path, "-") == 0) return;
    file = fopen(path, "rb");
    if (!file) fail(path, 0);
    n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    CHECK(castkeep_config_set_bytes(config, option, bytes, n));
    /* They are copied. */
    memset(bytes, 0, sizeof bytes);
}

static void on_log(void *user, int32_t level, const char *text, size_t len) {
    (void)user;
    if (level <= CASTKEEP_LOG_WARNING) fprintf(stderr, "log: %.*s\n", (int)len, text);
}

int main(int argc, char **argv) {
    castkeep_config *config;
    castkeep_client *client;
    castkeep_session *session;
    const char *text = "over TLS\r\n", *no = "This session must be recorded.\n";
    char why[512] = "", id[40];
    int status;
    if (argc < 6) return 64;
    if (!castkeep_has(CASTKEEP_CAP_TLS)) fail("built without TLS", 0);
    config = castkeep_config_new();
    if (!config) return 1;
    if (strcmp(argv[2], "-") == 0) CHECK(castkeep_config_add_recorder(config, argv[1], strlen(argv[1])));
    else CHECK(castkeep_config_add_recorder_named(config, argv[1], strlen(argv[1]), argv[2], strlen(argv[2])));
    WANT(castkeep_config_add_recorder_named(config, "127.0.0.1:80", 12, "x", 1), CASTKEEP_STATUS_BAD_PARAMETER);
    WANT(castkeep_config_add_recorder(config, "https://recorder.example:443", 28), CASTKEEP_STATUS_BAD_PARAMETER);
    CHECK(castkeep_config_set_text(config, CASTKEEP_OPTION_REJECT_MESSAGE, no, strlen(no)));
    set_file(config, CASTKEEP_OPTION_TLS_AUTHORITIES, argv[3]);
    set_file(config, CASTKEEP_OPTION_TLS_CERTIFICATE, argv[4]);
    set_file(config, CASTKEEP_OPTION_TLS_KEY, argv[5]);
    if (argc > 6) CHECK(castkeep_config_set_text(config, CASTKEEP_OPTION_TLS_PIN, argv[6], strlen(argv[6])));
    CHECK(castkeep_config_set_log(config, on_log, NULL));
    status = castkeep_config_check(config, why, sizeof why);
    WANT(castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client), status);
    castkeep_config_free(config);
    if (status != CASTKEEP_STATUS_OK) {
        fprintf(stderr, "%s\n", why);
        return status == CASTKEEP_STATUS_CONFIG ? 2 : 1;
    }
    CHECK(castkeep_session_new(client, &session));
    CHECK(castkeep_session_open(session));
    status = castkeep_session_wait_start(session, 30000);
    if (status == CASTKEEP_STATUS_REFUSED) {
        int32_t event;
        castkeep_session *which;
        /* The log's messages come with the events. */
        CHECK(castkeep_client_next_event(client, &event, &which));
        if (event != CASTKEEP_EVENT_REFUSED || which != session) fail("the event", event);
        return 254;
    }
    if (status != CASTKEEP_STATUS_OK) fail("wait_start", status);
    castkeep_session_recording(session, id, sizeof id);
    CHECK(castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)text, strlen(text)));
    CHECK(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0));
    CHECK(castkeep_session_close(session, 20000));
    castkeep_session_free(session);
    castkeep_client_free(client);
    puts(id);
    return 0;
}
