/* What a client and a session take, with the polled driver.
 *
 *   heap RECORDER MEBIBYTES PIN [blocks]
 *
 * libcastkeep.a is linked with its names of the allocator changed, so that what is counted is the library's alone, in bytes as it
 * asked for them. PIN is that of the recorder's certificate, or -. Prints one figure a line; with `blocks` the blocks too that are
 * live at the end of its output. */
#include <castkeep.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_BLOCKS 4096
/* In front of each block; 16 bytes keep what malloc promises about alignment. */
struct head {
    void *base;
    uint32_t size, at;
};
#define HEAD_BYTES 16
static struct head *blocks[KEEP_BLOCKS];
static long now, peak;

static void fail(const char *what) {
    fprintf(stderr, "heap: %s\n", what);
    exit(2);
}

static struct head *head_of(void *block) { return (struct head *)((char *)block - HEAD_BYTES); }

int counted_posix_memalign(void **out, size_t align, size_t size);
int counted_posix_memalign(void **out, size_t align, size_t size) {
    size_t lead = align > HEAD_BYTES ? align : HEAD_BYTES;
    char *base = NULL;
    uint32_t at = 0;
    struct head *head;
    if (posix_memalign((void **)&base, align > 16 ? align : 16, lead + size) != 0) return 12;
    head = head_of(base + lead);
    while (at < KEEP_BLOCKS && blocks[at]) at++;
    if (at == KEEP_BLOCKS) fail("more blocks than were thought of");
    blocks[at] = head;
    head->base = base;
    head->size = (uint32_t)size;
    head->at = at;
    now += (long)size;
    if (now > peak) peak = now;
    *out = base + lead;
    return 0;
}
void *counted_malloc(size_t size);
void *counted_malloc(size_t size) {
    void *block = NULL;
    return counted_posix_memalign(&block, 16, size) == 0 ? block : NULL;
}
void *counted_calloc(size_t count, size_t size);
void *counted_calloc(size_t count, size_t size) {
    void *block = counted_malloc(count * size);
    return block ? memset(block, 0, count * size) : NULL;
}
void counted_free(void *block);
void counted_free(void *block) {
    struct head *head;
    if (!block) return;
    head = head_of(block);
    now -= (long)head->size;
    blocks[head->at] = NULL;
    free(head->base);
}
void *counted_realloc(void *block, size_t size);
void *counted_realloc(void *block, size_t size) {
    struct head *head;
    void *other;
    if (!block) return counted_malloc(size);
    head = head_of(block);
    now -= (long)head->size; /* the old one counts no more: an allocator may well grow it where it is */
    other = counted_malloc(size);
    now += (long)head->size;
    if (!other) return NULL;
    memcpy(other, block, head->size < size ? head->size : size);
    counted_free(block);
    return other;
}

/* KiB of a line of a file of /proc; -1 where there is no such file. */
static long figure(const char *file, const char *name) {
    char line[256];
    long value = -1;
    FILE *from = fopen(file, "r");
    if (!from) return -1;
    while (fgets(line, sizeof line, from))
        if (strncmp(line, name, strlen(name)) == 0) value = strtol(line + strlen(name), NULL, 10);
    fclose(from);
    return value;
}
static long dirty(void) { return figure("/proc/self/smaps_rollup", "Private_Dirty:"); }

static int32_t turn(castkeep_client *client, int timeout_ms) {
    struct pollfd fd;
    castkeep_session *which;
    int32_t event = CASTKEEP_EVENT_NONE;
    fd.fd = castkeep_client_fd(client);
    fd.events = POLLIN;
    poll(&fd, 1, timeout_ms);
    if (castkeep_client_process(client) != 0 || castkeep_client_next_event(client, &event, &which) != 0) fail("process");
    return event;
}

static void session(castkeep_client *client, size_t bytes, int list, long *dirty_kib) {
    static uint8_t text[16384];
    castkeep_session *session;
    size_t i, room;
    int32_t event;
    for (i = 0; i < sizeof text; i++) text[i] = (uint8_t)(i % 80 == 79 ? '\n' : 'a' + i % 26);
    if (castkeep_session_new(client, &session) != 0 || castkeep_session_open(session) != 0) fail("open");
    do {
        event = turn(client, 1000);
        if (event == CASTKEEP_EVENT_REFUSED) fail("refused");
    } while (event != CASTKEEP_EVENT_START);
    while (bytes > 0) {
        room = castkeep_session_room(session);
        if (room > sizeof text) room = sizeof text;
        if (room > bytes) room = bytes;
        if (room > 0 && castkeep_session_output(session, CASTKEEP_STDOUT, text, room) != 0) fail("output");
        bytes -= room;
        turn(client, room > 0 ? 0 : 1000);
    }
    *dirty_kib = dirty();
    for (i = 0; list && i < KEEP_BLOCKS; i++)
        if (blocks[i] && blocks[i]->size >= 256) printf("block %lu\n", (unsigned long)blocks[i]->size);
    if (castkeep_session_exit(session, CASTKEEP_EXIT_CODE, 0) != 0 || castkeep_session_finish(session) != 0) fail("finish");
    do {
        event = turn(client, 1000);
        if (event == CASTKEEP_EVENT_INCOMPLETE) fail("incomplete");
    } while (event != CASTKEEP_EVENT_FINISHED);
    castkeep_session_free(session);
}

int main(int argc, char **argv) {
    castkeep_config *config;
    castkeep_client *client;
    size_t bytes;
    long start = now, heap[2], dirty_kib[2], live_kib;
    if (argc < 4) return 64;
    bytes = (size_t)strtoul(argv[2], NULL, 10) << 20;
    config = castkeep_config_new();
    if (castkeep_config_add_recorder(config, argv[1], strlen(argv[1])) != 0) fail("recorder");
    if (castkeep_config_set_text(config, CASTKEEP_OPTION_REJECT_MESSAGE, "none", 4) != 0) fail("policy");
    if (castkeep_config_set_number(config, CASTKEEP_OPTION_CLOSE_WAIT_MS, 20000) != 0) fail("close-wait");
    if (argv[3][0] != '-' && castkeep_config_set_text(config, CASTKEEP_OPTION_TLS_PIN, argv[3], strlen(argv[3])) != 0) fail("pin");
    heap[0] = now;
    dirty_kib[0] = dirty();
    if (castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client) != 0) fail("client");
    printf("client %ld\n", now - heap[0]);
    dirty_kib[1] = dirty();
    if (dirty_kib[0] >= 0) printf("client_dirty_kib %ld\n", dirty_kib[1] - dirty_kib[0]);
    heap[1] = peak = now;
    session(client, bytes, argc > 4, &live_kib);
    printf("session %ld\n", peak - heap[1]);
    if (dirty_kib[0] >= 0) {
        printf("session_dirty_kib %ld\n", live_kib - dirty_kib[1]);
        printf("threads %ld\n", figure("/proc/self/status", "Threads:") - 1);
    }
    castkeep_client_free(client);
    castkeep_config_free(config);
    if (now > start) fail("something is still held behind free");
    return 0;
}
