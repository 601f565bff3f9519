/* What the programs of this directory have in common. Each shows that a promise of castkeep.h is kept, prints `ok: ...` or
 * `FAILED: ...` for each part of it, and ends with 1 when one is not. Run by ci/rules, which says what each is given. */
#ifndef RULES_H
#define RULES_H

#include <castkeep.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int failures, part_failures;

/* One thing that has to hold within the part that `part` ends. */
#define HOLDS(condition) \
    do { \
        if (!(condition)) { \
            printf("      %s:%d: %s\n", __FILE__, __LINE__, #condition); \
            part_failures++; \
        } \
    } while (0)
/* A call and what it has to answer. */
#define IS(call, wanted) \
    do { \
        long got_ = (long)(call); \
        if (got_ != (long)(wanted)) { \
            printf("      %s:%d: %s is %ld, not %s\n", __FILE__, __LINE__, #call, got_, #wanted); \
            part_failures++; \
        } \
    } while (0)

static inline void part(const char *what) {
    printf("%s: %s\n", part_failures ? "FAILED" : "ok", what);
    fflush(stdout);
    failures += part_failures != 0;
    part_failures = 0;
}

static inline _Noreturn void hopeless(const char *what, int32_t status) {
    printf("FAILED: %s: %s\n", what, castkeep_status_str(status));
    exit(1);
}

static inline double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

#define REJECT "nobody can record this"
/* A configuration that must record, at recorders with commas between them; NULL without memory. */
static inline castkeep_config *closed_config(const char *recorders) {
    castkeep_config *config = castkeep_config_new();
    int32_t status = config ? 0 : CASTKEEP_STATUS_NO_MEMORY;
    while (!status && *recorders) {
        size_t len = strcspn(recorders, ",");
        status = castkeep_config_add_recorder(config, recorders, len);
        recorders += len + (recorders[len] == ',');
    }
    if (!status) status = castkeep_config_set_text(config, CASTKEEP_OPTION_REJECT_MESSAGE, REJECT, strlen(REJECT));
    if (!status) status = castkeep_config_set_text(config, CASTKEEP_OPTION_TERMINATE_MESSAGE, REJECT, strlen(REJECT));
    if (!status) status = castkeep_config_set_number(config, CASTKEEP_OPTION_CLOSE_WAIT_MS, 20000);
    if (!status) return config;
    castkeep_config_free(config);
    return NULL;
}

/* Turns of the host's loop until an event; 0 when it does not come. */
static inline int until(castkeep_client *client, int32_t wanted) {
    double by = seconds() + 30; /* a hang guard */
    while (seconds() < by) {
        struct pollfd fd;
        castkeep_session *which;
        int32_t event;
        fd.fd = castkeep_client_fd(client);
        fd.events = POLLIN;
        poll(&fd, 1, 200);
        if (castkeep_client_process(client) != 0) return 0;
        while (castkeep_client_next_event(client, &event, &which) == 0 && event != CASTKEEP_EVENT_NONE)
            if (event == wanted) return 1;
    }
    return 0;
}

/* A session that runs, with this command so that ci/rules finds its recording. */
static inline castkeep_session *running(castkeep_client *client, const char *command) {
    castkeep_session *session = NULL;
    int32_t status = castkeep_session_new(client, &session);
    if (!status) status = castkeep_session_set_text(session, CASTKEEP_TEXT_COMMAND, command, strlen(command));
    if (!status) status = castkeep_session_open(session);
    if (!status) status = castkeep_session_wait_start(session, 30000);
    if (status) hopeless(command, status);
    return session;
}

static inline castkeep_client *client_of(const char *recorders, int32_t driver) {
    castkeep_config *config = closed_config(recorders);
    castkeep_client *client = NULL;
    int32_t status = castkeep_client_new(config, driver, &client);
    if (status) hopeless("castkeep_client_new", status);
    castkeep_config_free(config);
    return client;
}

static inline int32_t say(castkeep_session *session, const char *text) {
    return castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)text, strlen(text));
}

static inline void ended(castkeep_session *session) {
    IS(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0), CASTKEEP_STATUS_OK);
    IS(castkeep_session_close(session, 30000), CASTKEEP_STATUS_OK);
    castkeep_session_free(session);
}
#endif
