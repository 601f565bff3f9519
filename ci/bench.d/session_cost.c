/* What recording adds to each read of a daemon: 4 KiB of a terminal are given to castkeep_session_output, beside a plain write of the
 * same bytes to a pipe that somebody reads, and what castkeep_client_process then takes, which with the polled driver is the daemon's
 * time too.
 *
 *   session_cost RECORDER READS PACE_US
 *
 * The reads of all come in turn, one every PACE_US, so that the recorder keeps up and the ring never fills. Prints a line for each:
 * name, median and 99th percentile in nanoseconds. */
#define _GNU_SOURCE
#include <castkeep.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 4096
enum { PIPE, POLLED_OUTPUT, POLLED_PROCESS, THREADED_OUTPUT, KINDS };
static const char *const names[KINDS] = {"pipe", "polled_output", "polled_process", "threaded_output"};

static _Noreturn void fail(const char *what, int32_t status) {
    fprintf(stderr, "session_cost: %s: %s\n", what, status ? castkeep_status_str(status) : strerror(errno));
    exit(2);
}
static int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}
static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}
static void *drain(void *fd) {
    static char buf[65536];
    while (read(*(int *)fd, buf, sizeof buf) > 0) {}
    return NULL;
}

struct recording {
    castkeep_client *client;
    castkeep_session *session;
};

static void turn(struct recording *rec, int timeout_ms, int32_t wanted) {
    struct pollfd fd = {castkeep_client_fd(rec->client), POLLIN, 0};
    castkeep_session *which;
    int32_t event = CASTKEEP_EVENT_NONE, status;
    int64_t by = now_ns() + INT64_C(30000000000);
    do {
        poll(&fd, 1, timeout_ms);
        if ((status = castkeep_client_process(rec->client))) fail("process", status);
        while (!castkeep_client_next_event(rec->client, &event, &which) && event != CASTKEEP_EVENT_NONE && event != wanted) {}
        if (now_ns() > by) fail("waited in vain", CASTKEEP_STATUS_TIMED_OUT);
    } while (wanted && event != wanted);
}

static struct recording begin(const char *recorder, int32_t driver) {
    struct recording rec;
    castkeep_config *config = castkeep_config_new();
    int32_t status;
    if ((status = castkeep_config_add_recorder(config, recorder, strlen(recorder))) ||
        (status = castkeep_config_set_text(config, CASTKEEP_OPTION_REJECT_MESSAGE, "none", 4)) ||
        (status = castkeep_config_set_text(config, CASTKEEP_OPTION_TERMINATE_MESSAGE, "none", 4)) ||
        (status = castkeep_client_new(config, driver, &rec.client)) || (status = castkeep_session_new(rec.client, &rec.session)) ||
        (status = castkeep_session_open(rec.session)) || (status = castkeep_session_wait_start(rec.session, 30000)))
        fail("begin", status);
    castkeep_config_free(config);
    return rec;
}
static void end(struct recording *rec) {
    int32_t status;
    castkeep_session_exit(rec->session, CASTKEEP_EXIT_CODE, 0);
    if ((status = castkeep_session_close(rec->session, 30000))) fail("close", status);
    castkeep_session_free(rec->session);
    castkeep_client_free(rec->client);
}

int main(int argc, char **argv) {
    static char text[READ_BYTES];
    size_t reads, i, k;
    int64_t pace_ns, next, *took[KINDS];
    int ends[2];
    pthread_t reader;
    struct recording polled, threaded;
    if (argc != 4) return 64;
    reads = strtoul(argv[2], NULL, 10);
    pace_ns = (int64_t)strtoul(argv[3], NULL, 10) * 1000;
    for (k = 0; k < KINDS; k++)
        if (!(took[k] = calloc(reads, sizeof *took[k]))) fail("memory", 0);
    /* Lines as a shell shows them, colours among them. */
    for (i = 0; i < sizeof text; i++) text[i] = "drwxr-xr-x 2 alice staff 4096 Nov 23 15:04 \033[01;34mdirectory\033[0m\r\n"[i % 67];
    if (pipe2(ends, O_CLOEXEC) != 0 || pthread_create(&reader, NULL, drain, &ends[0]) != 0) fail("pipe", 0);
    polled = begin(argv[1], CASTKEEP_DRIVER_POLLED);
    threaded = begin(argv[1], CASTKEEP_DRIVER_THREADED);
    next = now_ns();
    for (i = 0; i < reads; i++) {
        int64_t at[6];
        next += pace_ns;
        while (now_ns() < next) turn(&polled, 0, 0); /* as in the daemon's loop, between two reads */
        while (castkeep_session_room(polled.session) < READ_BYTES) turn(&polled, 1, 0);
        while (castkeep_session_room(threaded.session) < READ_BYTES) usleep(100);
        at[0] = now_ns();
        if (write(ends[1], text, sizeof text) != READ_BYTES) fail("write", 0);
        at[1] = now_ns();
        if (castkeep_session_output(polled.session, CASTKEEP_STDOUT, (uint8_t *)text, sizeof text)) fail("output", CASTKEEP_STATUS_WOULD_BLOCK);
        at[2] = now_ns();
        castkeep_client_process(polled.client);
        at[3] = now_ns();
        if (castkeep_session_output(threaded.session, CASTKEEP_STDOUT, (uint8_t *)text, sizeof text)) fail("output", CASTKEEP_STATUS_WOULD_BLOCK);
        at[4] = now_ns();
        took[PIPE][i] = at[1] - at[0];
        took[POLLED_OUTPUT][i] = at[2] - at[1];
        took[POLLED_PROCESS][i] = at[3] - at[2];
        took[THREADED_OUTPUT][i] = at[4] - at[3];
    }
    end(&polled);
    end(&threaded);
    close(ends[1]);
    pthread_join(reader, NULL);
    for (k = 0; k < KINDS; k++) {
        qsort(took[k], reads, sizeof *took[k], by_size);
        printf("%s %lld %lld\n", names[k], (long long)took[k][reads / 2], (long long)took[k][reads * 99 / 100]);
        free(took[k]);
    }
    return 0;
}
