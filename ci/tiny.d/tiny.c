/* A host of the tiny library: one session in an event loop, from open to the end. Run by ci/tiny against real recorders.
 *
 *   tiny RECORDERS LINES [PAUSE_FILE GO_FILE]   prints what it was told, then the heap in use by one session
 */
#include <castkeep.h>
#include <malloc.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>

#define MESSAGE "This session must be recorded, and no recorder can be reached."

static void need(int holds, const char *what)
{
    if (!holds) {
        printf("FAILED: %s\n", what);
        exit(1);
    }
}

static int add(castkeep_config *config, const char *address)
{
    return castkeep_config_add_recorder(config, address, strlen(address));
}

/* The library is linked with these in place of malloc, realloc and free: what it has of the heap now. */
static long heap;
void *counted_malloc(size_t size);
void *counted_realloc(void *memory, size_t size);
void counted_free(void *memory);

void *counted_malloc(size_t size)
{
    void *memory = malloc(size);
    heap += (long)malloc_usable_size(memory);
    return memory;
}

void *counted_realloc(void *memory, size_t size)
{
    long old = (long)malloc_usable_size(memory);
    void *grown = realloc(memory, size);
    if (grown != NULL)
        heap += (long)malloc_usable_size(grown) - old;
    return grown;
}

void counted_free(void *memory)
{
    heap -= (long)malloc_usable_size(memory);
    free(memory);
}

static castkeep_client *client;
static castkeep_session *session;
static int started;

/* One turn of the host's loop. */
static void turn(int timeout)
{
    struct pollfd entry = {castkeep_client_fd(client), POLLIN, 0};
    int32_t event;
    castkeep_session *of;

    poll(&entry, 1, timeout);
    need(castkeep_client_process(client) == 0, "process");
    while (castkeep_client_next_event(client, &event, &of) == 0 && event != 0) {
        char text[512] = "";
        need(of == session, "the event names the session");
        if (event == CASTKEEP_EVENT_START)
            started = 1;
        if (event == CASTKEEP_EVENT_REFUSED || event == CASTKEEP_EVENT_TERMINATED) {
            size_t length = castkeep_session_message(session, text, sizeof text);
            printf("%s: %.*s\n", event == CASTKEEP_EVENT_REFUSED ? "refused" : "terminated", (int)length, text);
            castkeep_session_free(session);
            castkeep_client_free(client);
            exit(254);
        }
    }
}

static void on_log(void *user, int32_t level, const char *text, size_t len)
{
    (void)user;
    if (level <= CASTKEEP_LOG_INFO)
        printf("log: %.*s\n", (int)len, text);
}

int main(int argc, char **argv)
{
    castkeep_config *config;
    castkeep_session *more;
    char why[64], *recorder;
    uint8_t *big;
    size_t room;
    char line[64];
    long before, after;
    int i, lines, status;
    pid_t child;

    if (argc < 3)
        return 2;
    lines = atoi(argv[2]);
    /* What this build cannot do is there, and says so. */
    need(castkeep_has(CASTKEEP_CAP_HTTP2) == 0 && castkeep_has(CASTKEEP_CAP_TLS) == 0, "neither HTTP/2 nor TLS");
    need(castkeep_config_load("x", 1, why, sizeof why, &config) == CASTKEEP_STATUS_UNSUPPORTED, "no file is read");
    need(config == NULL && strstr(why, "setters") != NULL, "the reason is told");
    config = castkeep_config_new();
    need(config != NULL, "config_new");
    need(add(config, "no address") == CASTKEEP_STATUS_BAD_PARAMETER, "what is no address is refused");
    need(add(config, "127.0.0.1:99999") == CASTKEEP_STATUS_BAD_PARAMETER, "what is no port is refused");
    need(add(config, "[::1:80") == CASTKEEP_STATUS_BAD_PARAMETER, "what is no IPv6 address is refused");
    need(add(config, "https://127.0.0.1:1") == CASTKEEP_STATUS_UNSUPPORTED, "TLS is UNSUPPORTED");
    need(castkeep_config_set_bytes(config, CASTKEEP_OPTION_TLS_KEY, (const uint8_t *)"x", 1) == CASTKEEP_STATUS_UNSUPPORTED, "so are keys");
    for (recorder = strtok(argv[1], ","); recorder != NULL; recorder = strtok(NULL, ","))
        need(add(config, recorder) == 0, "add_recorder");
    need(castkeep_config_set_text(config, CASTKEEP_OPTION_REJECT_MESSAGE, MESSAGE, strlen(MESSAGE)) == 0, "set_text");
    need(castkeep_config_set_text(config, CASTKEEP_OPTION_TERMINATE_MESSAGE, MESSAGE, strlen(MESSAGE)) == 0, "set_text");
    need(castkeep_config_set_number(config, CASTKEEP_OPTION_START_LIMIT_MS, 3000) == 0, "start limit");
    need(castkeep_config_set_number(config, CASTKEEP_OPTION_MAX_SESSIONS, 1) == 0, "max sessions");
    need(castkeep_config_set_number(config, CASTKEEP_OPTION_RING_BYTES, 65536) == 0, "ring");
    need(castkeep_config_set_log(config, on_log, NULL) == 0, "set_log");
    need(castkeep_config_check(config, NULL, 0) == 0, "check");
    need(castkeep_client_new(config, CASTKEEP_DRIVER_THREADED, &client) == CASTKEEP_STATUS_UNSUPPORTED, "there is no threaded driver");
    need(castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client) == 0, "client_new");
    castkeep_config_free(config);

    before = heap;
    need(castkeep_session_new(client, &session) == 0, "session_new");
    need(castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)"x", 1) != 0, "nothing is taken before open");
    need(castkeep_session_set_text(session, CASTKEEP_TEXT_SSH_USER, "alice", 5) == 0, "set_text");
    need(castkeep_session_set_text(session, CASTKEEP_TEXT_TERM, "xterm", 5) == 0, "set_text");
    need(castkeep_session_resize(session, 80, 24) == 0, "resize");
    need(castkeep_session_open(session) == 0, "open");
    need(castkeep_session_open(session) == CASTKEEP_STATUS_WRONG_STATE, "a second open is WRONG_STATE");
    need(castkeep_session_new(client, &more) == 0 && castkeep_session_open(more) == CASTKEEP_STATUS_LIMIT, "past the limit open is LIMIT");
    castkeep_session_free(more);
    need(castkeep_session_room(session) == 0, "no room before a recorder accepted");

    /* A child has the handles and may do nothing with them. */
    child = fork();
    if (child == 0) {
        int held = castkeep_session_room(session) == 0 && castkeep_client_process(client) != 0 &&
                   castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)"x", 1) != 0;
        castkeep_session_free(session);
        castkeep_client_free(client);
        _exit(held ? 0 : 1);
    }
    need(waitpid(child, &status, 0) == child && status == 0, "calls in a child answer as failures");

    while (!started)
        turn(10000);
    after = heap;
    for (i = 0; i < lines; i++) {
        int length = snprintf(line, sizeof line, "line %d of the session\r\n", i);
        while (castkeep_session_room(session) < (size_t)length)
            turn(1000);
        need(castkeep_session_output(session, CASTKEEP_STDOUT, (const uint8_t *)line, (size_t)length) == 0, "output within room is taken whole");
        if (argc > 4 && i == lines / 2) {
            FILE *pause = fopen(argv[3], "w");
            need(pause != NULL && fclose(pause) == 0, "the pause file");
            while (access(argv[4], F_OK) != 0)
                turn(50);
        }
    }
    room = castkeep_session_room(session) + 1;
    big = calloc(1, room);
    need(big != NULL && castkeep_session_output(session, CASTKEEP_STDOUT, big, room) == CASTKEEP_STATUS_WOULD_BLOCK, "past room nothing is taken");
    free(big);
    need(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 7) == 0, "exit");
    status = castkeep_session_close(session, 10000);
    need(status == 0, "everything is stored when close returns");
    castkeep_session_free(session);
    castkeep_client_free(client);
    if (heap != 0) printf("left: %ld\n", heap);
    need(heap == 0, "everything is freed");
    printf("heap of a session: %ld\n", after - before);
    return 0;
}
