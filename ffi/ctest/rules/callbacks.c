/* Calls out of callbacks are answered REENTRANT and change nothing, whatever the callback and the driver; the free functions do
 * nothing there.
 *
 *   callbacks RECORDER */
#define _GNU_SOURCE
#include "rules.h"
#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>

static castkeep_client *client;
static castkeep_session *session;
/* Calls out of callbacks of each kind. */
static int logs, dials, starts, reads, writes, asks, closes;

static void call_back(void) {
    castkeep_session *which;
    int32_t event;
    if (!client) return;
    IS(castkeep_client_process(client), CASTKEEP_STATUS_REENTRANT);
    IS(castkeep_client_next_event(client, &event, &which), CASTKEEP_STATUS_REENTRANT);
    IS(castkeep_session_new(client, &which), CASTKEEP_STATUS_REENTRANT);
    castkeep_client_free(client);
    if (!session) return;
    IS(castkeep_session_room(session), 0);
    IS(say(session, "out of a callback"), CASTKEEP_STATUS_REENTRANT);
    IS(castkeep_session_marker(session, "x", 1), CASTKEEP_STATUS_REENTRANT);
    IS(castkeep_session_finish(session), CASTKEEP_STATUS_REENTRANT);
    IS(castkeep_session_close(session, 1000), CASTKEEP_STATUS_REENTRANT);
    IS(castkeep_session_wait_start(session, 1000), CASTKEEP_STATUS_REENTRANT);
    castkeep_session_free(session);
}

static void on_log(void *user, int32_t level, const char *text, size_t len) {
    (void)user, (void)level, (void)text, (void)len;
    logs++;
    call_back();
}

static int dial_now(const char *address, size_t len) {
    struct sockaddr_in to;
    char text[64] = "", *port;
    int fd;
    memset(&to, 0, sizeof to);
    memcpy(text, address, len < sizeof text ? len : sizeof text - 1);
    port = strrchr(text, ':');
    if (!port) return -1;
    *port++ = '\0';
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    inet_pton(AF_INET, text, &to.sin_addr);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS) return close(fd), -1;
    return fd;
}
static int32_t on_dial(void *user, uint64_t ticket, const char *address, size_t len, int *fd) {
    (void)user;
    dials++;
    call_back();
    if (client) IS(castkeep_client_dialed(client, ticket, -1), CASTKEEP_STATUS_REENTRANT);
    return (*fd = dial_now(address, len)) < 0 ? CASTKEEP_STATUS_CLOSED : CASTKEEP_STATUS_OK;
}

struct link {
    int fd;
};
static int32_t on_start(void *user, const char *address, size_t len, void **link) {
    struct link *made;
    (void)user;
    starts++;
    call_back();
    if (*link) return CASTKEEP_STATUS_OK;
    if (!(made = calloc(1, sizeof *made))) return CASTKEEP_STATUS_NO_MEMORY;
    made->fd = dial_now(address, len);
    *link = made;
    return made->fd < 0 ? CASTKEEP_STATUS_CLOSED : CASTKEEP_STATUS_WOULD_BLOCK;
}
static int64_t outcome(ssize_t n) { return n >= 0 ? n : errno == EAGAIN ? CASTKEEP_STATUS_WOULD_BLOCK : CASTKEEP_STATUS_CLOSED; }
static int64_t on_read(void *user, void *link, uint8_t *buf, size_t len) {
    (void)user;
    reads++;
    call_back();
    return outcome(recv(((struct link *)link)->fd, buf, len, 0));
}
static int64_t on_write(void *user, void *link, const uint8_t *data, size_t len) {
    (void)user;
    writes++;
    call_back();
    return outcome(send(((struct link *)link)->fd, data, len, MSG_NOSIGNAL));
}
static int32_t on_wants(void *user, void *link, int32_t more, int *fd) {
    (void)user;
    asks++;
    call_back();
    *fd = ((struct link *)link)->fd;
    return CASTKEEP_WANTS_READ | (more ? CASTKEEP_WANTS_WRITE : 0);
}
static void on_close(void *user, void *link, int32_t abort) {
    (void)user, (void)abort;
    closes++;
    call_back();
    close(((struct link *)link)->fd);
    free(link);
}

static void run(const char *recorder, int32_t kind, int with, const char *what) {
    static const castkeep_transport table = {sizeof table, on_start, on_read, on_write, on_wants, on_close};
    char both[128];
    castkeep_config *config;
    int32_t status;
    /* The first cannot be had, which is something to log. */
    snprintf(both, sizeof both, "127.0.0.1:1,%s", recorder);
    config = closed_config(both);
    logs = dials = starts = reads = writes = asks = closes = 0;
    IS(castkeep_config_set_log(config, on_log, NULL), CASTKEEP_STATUS_OK);
    if (with == 1) IS(castkeep_config_set_dial(config, on_dial, NULL), CASTKEEP_STATUS_OK);
    if (with == 2) IS(castkeep_config_set_transport(config, &table, NULL), CASTKEEP_STATUS_OK);
    if ((status = castkeep_client_new(config, kind, &client))) hopeless("castkeep_client_new", status);
    castkeep_config_free(config);
    session = running(client, "callbacks");
    IS(say(session, "between callbacks\r\n"), CASTKEEP_STATUS_OK);
    IS(castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0), CASTKEEP_STATUS_OK);
    IS(castkeep_session_close(session, 30000), CASTKEEP_STATUS_OK);
    castkeep_session_free(session);
    session = NULL;
    castkeep_client_free(client);
    client = NULL;
    HOLDS(logs > 0);
    HOLDS(with != 1 || dials > 0);
    HOLDS(with != 2 || (starts > 1 && reads > 0 && writes > 0 && asks > 0 && closes > 0));
    part(what);
}

int main(int argc, char **argv) {
    if (argc != 2) return 64;
    run(argv[1], CASTKEEP_DRIVER_POLLED, 0, "polled: out of the log function");
    run(argv[1], CASTKEEP_DRIVER_POLLED, 1, "polled: out of the dial function");
    run(argv[1], CASTKEEP_DRIVER_POLLED, 2, "polled: out of a transport");
    run(argv[1], CASTKEEP_DRIVER_THREADED, 0, "threaded: out of the log function");
    run(argv[1], CASTKEEP_DRIVER_THREADED, 1, "threaded: out of the dial function");
    run(argv[1], CASTKEEP_DRIVER_THREADED, 2, "threaded: out of a transport");
    return failures != 0;
}
